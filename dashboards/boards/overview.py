"""How far is the sweep, and what came in its way?"""

from dashboards import grafana, health, panels
from dashboards.boards.common import select, variables
from dashboards.grafana import Json

_SWEEP = 'sweep="$sweep"'


def _trials(state: str) -> str:
    return select(health.TRIALS.name, _SWEEP, f'state="{state}"')


def _newest(name: str) -> str:
    # a run that is on may be scraped from its driver as well: the maximum counts it once
    return f"max ({select(name, _SWEEP)})"


_WHILE_ON = "Only while a run of the sweep is on with --metrics-port."


def build() -> Json:
    """How far the newest run of a sweep is, what failed, how fast it goes, what is slow, its provenance."""
    grid = grafana.Grid()
    grid.place(
        panels.stat(
            "Done",
            "Trials of the newest run with a record or a failure. Good: 100 %.",
            grafana.newest_query(
                f"max ({_trials('recorded')} + ignoring (state) {_trials('failed')}) / "
                f"max ({_trials('planned')})",
                "",
            ),
            unit="percentunit",
            decimals=1,
            text_mode="value",
        ),
        4,
        4,
    )
    grid.place(
        panels.stat(
            "Trials",
            "Trials of the newest run by state. Good: recorded equals planned.",
            grafana.newest_query(f"max by (state) ({select(health.TRIALS.name, _SWEEP)})", "{{state}}"),
            unit="short",
        ),
        8,
        4,
    )
    grid.place(
        panels.stat(
            "Failed",
            "Failed trials over all that came back. Good: 0; farm show tells why they failed.",
            grafana.newest_query(
                f"max ({_trials('failed')}) / max ({_trials('recorded')} + ignoring (state) "
                f"{_trials('failed')})",
                "",
            ),
            unit="percentunit",
            decimals=1,
            text_mode="value",
        ),
        4,
        4,
    )
    grid.place(
        panels.stat(
            "Time left",
            f"Expected by the trials so far. Good: falls as time goes by. {_WHILE_ON}",
            grafana.newest_query(_newest(health.LIVE_SECONDS_LEFT.name), ""),
            unit="s",
            text_mode="value",
        ),
        4,
        4,
    )
    grid.place(
        panels.stat(
            "Packets simulated",
            "By the newest run, over all its trials. Good: more than a million by second and core, see the "
            "rate.",
            grafana.newest_query(_newest(health.SIMULATED_PACKETS.name), ""),
            unit="short",
            text_mode="value",
        ),
        4,
        4,
    )
    grid.place(
        panels.time_series(
            "Trials done and planned",
            f"Good: done climbs to planned at a steady pace, failed stays at 0. {_WHILE_ON}",
            [grafana.range_query(f"max by (state) ({select(health.LIVE_TRIALS.name, _SWEEP)})", "{{state}}")],
            unit="short",
        ),
        12,
        8,
    )
    grid.place(
        panels.time_series(
            "Packets simulated per second",
            f"Of real time, all slots. Good: steady; a dip is a lost node or a costlier cell. {_WHILE_ON}",
            [
                grafana.range_query(
                    f"sum (rate({select(health.LIVE_PACKETS.name, _SWEEP)}[$__rate_interval]))", "packets/s"
                )
            ],
            unit="short",
        ),
        12,
        8,
    )
    by_kind = "max by (arch, traffic_kind)"
    grid.place(
        panels.table(
            "Real time per trial",
            "Slowest first. Good: within a factor of ten; a cell far above the others decides how long the "
            "sweep takes, so shorten it or give it seeds of its own.",
            grafana.table_query(
                f"{by_kind} ({select(health.TRIAL_SECONDS.name, _SWEEP)}) / "
                f"{by_kind} ({select(health.TIMED_TRIALS.name, _SWEEP)})"
            ),
            unit="s",
            transformations=[grafana.hide("Time"), grafana.sort_by("Value", descending=True)],
        ),
        12,
        8,
    )
    grid.place(
        panels.table(
            "Failures by kind",
            "Failed trials of the newest run by the error that ended them. Good: empty.",
            grafana.table_query(f"max by (kind) ({select(health.FAILED_TRIALS.name, _SWEEP)})"),
            unit="short",
            transformations=[grafana.hide("Time"), grafana.sort_by("Value", descending=True)],
        ),
        12,
        8,
    )
    grid.place(
        panels.table(
            "Where the results come from",
            "Run, model and versions; several rows if several took part. Good: one row, and the same model "
            "digest as the run you compare with.",
            grafana.table_query(
                f"max by (run, model_digest, farm_version, python_version, numba_version) "
                f"({select(health.RUN_INFO.name, _SWEEP)})"
            ),
            unit="none",
            transformations=[grafana.hide("Time", "Value")],
        ),
        24,
        5,
    )
    return grafana.dashboard(
        "page-pool-farm-overview",
        "Sweep overview",
        build.__doc__ or "",
        variables(),
        grid,
        refresh="30s",
    )
