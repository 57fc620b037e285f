"""Is the farm itself well?"""

from dashboards import external, grafana, health, panels
from dashboards.boards.common import select
from dashboards.grafana import Json

_SWEEPS = 'sweep=~"$sweep"'
_RATE = "[$__rate_interval]"


def _rate(metric: health.HealthMetric) -> str:
    return f"sum (rate({select(metric.name, _SWEEPS)}{_RATE}))"


def _by_sweep(metric: health.HealthMetric) -> Json:
    return grafana.newest_query(f"max by (sweep) ({select(metric.name, _SWEEPS)})", "{{sweep}}")


def build() -> Json:
    """Workers and batches of the runs that are on, retries and failures, the store, the exporter, and Ray."""
    grid = grafana.Grid()
    for title, description, queries, unit in (
        (
            "Slots in use",
            "Trials that run at the same time, and how many could. Good: both lines together; a gap is "
            "workers that wait for batches or compile.",
            [
                grafana.range_query(_rate(health.LIVE_TRIAL_SECONDS), "in use"),
                grafana.range_query(f"sum ({select(health.LIVE_SLOTS.name, _SWEEPS)})", "there are", "B"),
            ],
            "short",
        ),
        (
            "Seconds per batch",
            "Work in what comes back at a time. Good: 2 to 5 s on Ray; far less and the driver is busy with "
            "transport, far more and a lost worker loses much.",
            [
                grafana.range_query(
                    f"{_rate(health.LIVE_TRIAL_SECONDS)} / {_rate(health.LIVE_BATCHES)}", "seconds"
                )
            ],
            "s",
        ),
        (
            "Batches per second",
            "Good: steady; below a few hundred the driver keeps up.",
            [grafana.range_query(_rate(health.LIVE_BATCHES), "batches/s")],
            "short",
        ),
    ):
        grid.place(panels.time_series(title, description, queries, unit=unit), 8, 8)
    for title, description, metric, unit in (
        ("Retries", "Trials sent out again because their worker died. Good: 0.", health.RETRIES, "short"),
        (
            "Nodes",
            "Hosts that have run trials of the newest run. Good: all that you have.",
            health.NODES,
            "short",
        ),
        (
            "Compile time",
            "Longest time to compile or load the event loop. Good: below a minute, and once per node.",
            health.COMPILE_SECONDS,
            "s",
        ),
        (
            "Unreadable runs",
            "1 where the newest run of a sweep is damaged. Good: 0.",
            health.UNREADABLE_RUNS,
            "short",
        ),
        (
            "Series refused",
            "Result series left out for want of budget. Good: 0; else serve with a larger --series-budget.",
            health.REFUSED_SERIES,
            "short",
        ),
    ):
        grid.place(panels.stat(title, description, _by_sweep(metric), unit=unit), 4, 5)
    grid.place(
        panels.stat(
            "Time of a scrape",
            "Collecting what is exposed. Good: below 0.25 s; a scrape that reads a new run takes longer.",
            grafana.newest_query(f"max by (job) ({health.COLLECT_SECONDS.name})", "{{job}}"),
            unit="s",
            decimals=3,
        ),
        4,
        5,
    )
    grid.place(
        panels.time_series(
            "Size of the store",
            "Good: grows while runs are on, by about 1 kB a trial.",
            [grafana.range_query(f"max by (job) ({health.STORE_BYTES.name})", "{{job}}")],
            unit="bytes",
        ),
        12,
        7,
    )
    grid.place(
        panels.time_series(
            "Room left for the store",
            "Share of its file system that is free. Good: above 10 %; below it an alert fires.",
            [
                grafana.range_query(
                    f"min by (job) ({health.STORE_FREE_BYTES.name} / {health.STORE_CAPACITY_BYTES.name})",
                    "{{job}}",
                )
            ],
            unit="percentunit",
        ),
        12,
        7,
    )
    grid.row("Ray")
    for title, description, expression, legend, unit in (
        (
            "CPU of Ray's nodes",
            "Good: near 100 % on workers while a run is on. Empty without a Ray that is scraped.",
            f"avg by (instance) ({external.RAY_CPU_PERCENT}) / 100",
            "{{instance}}",
            "percentunit",
        ),
        (
            "Memory of Ray's nodes",
            "Good: below 90 %; above 95 % Ray kills workers.",
            f"avg by (instance) ({external.RAY_MEMORY_USED_BYTES} / {external.RAY_MEMORY_TOTAL_BYTES})",
            "{{instance}}",
            "percentunit",
        ),
        (
            "Ray's tasks by state",
            "Good: as many running as there are slots, few pending, none failed.",
            f"sum by (State) ({external.RAY_TASKS})",
            "{{State}}",
            "short",
        ),
    ):
        query = grafana.range_query(expression, legend)
        grid.place(panels.time_series(title, description, [query], unit=unit), 8, 7)
    variables = [
        grafana.data_source_variable(),
        grafana.label_variable("sweep", "sweep", health.TRIALS.name, multiple=True),
    ]
    return grafana.dashboard(
        "page-pool-farm-health", "Farm health", build.__doc__ or "", variables, grid, refresh="30s"
    )
