"""The lazy plan against a plain enumeration."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.errors import SweepError
from farm.plan import Plan
from farm.sweep import Sweep, parse
from workers.config import TrialConfig, TrialField, fields
from workers.errors import ConfigError
from workers.fields.derived import INPUT_FIELDS, SEED_FIELDS, seed_matters
from workers.fields.groups import Value

Fields = dict[str, Value]

VALUES: dict[str, list[Value]] = {
    "pool.size": [64, 128, 256, 512],
    "pool.recycle": [True, False],
    "nic.budget": [16, 32, 64],
    "traffic.kind": ["constant", "poisson", "capture"],
    "traffic.packet_size": [64, "imix", 1000],
    "app.reader": ["drop", "fast", "slow"],
    "app.work_distribution": ["constant", "exponential"],
    "arch": ["broadwell-ep", "armada-8040"],
}


def enumerate_trials(sweep: Sweep) -> list[Fields]:
    """Every trial, the long way."""
    axes: list[list[Fields]] = [[{name: v} for v in values] for name, values in sweep.grid.items()]
    if sweep.zip:
        axes.append([dict(zip(sweep.zip, row, strict=True)) for row in zip(*sweep.zip.values(), strict=True)])
    cells = []
    for parts in product(*axes):
        cell = dict(sweep.fixed)
        for part in parts:
            cell |= part
        if not any(all(cell[n] in values for n, values in block.items()) for block in sweep.exclude):
            cells.append(cell)
    for block in sweep.include:
        for row in product(*block.values()):
            cells.append({**sweep.fixed, **dict(zip(block, row, strict=True))})
    return [
        {**cell, "seed": seed}
        for cell in cells
        for seed in range(sweep.seeds if seed_matters(TrialConfig.unchecked(cell)) else 1)
    ]


def in_order(trials: list[Fields]) -> list[str]:
    return sorted(repr(sorted(trial.items())) for trial in trials)


@st.composite
def sweeps(draw: st.DrawFn) -> Sweep:
    names = draw(st.permutations(list(VALUES)))
    cut, end = sorted((draw(st.integers(0, 5)), draw(st.integers(0, 5))))

    def some(name: str, least: int = 1) -> tuple[Value, ...]:
        return tuple(draw(st.lists(st.sampled_from(VALUES[name]), min_size=least, max_size=3, unique=True)))

    grid = {name: some(name) for name in names[:cut]}
    rows = st.tuples(*(st.sampled_from(VALUES[name]) for name in names[cut:end]))
    drawn = draw(st.lists(rows, min_size=1, max_size=3, unique=True)) if end > cut else []
    zipped = dict(zip(names[cut:end], zip(*drawn, strict=True), strict=True)) if drawn else {}
    swept = [*grid, *zipped]
    include = tuple({n: some(n) for n in swept} for _ in range(draw(st.integers(0, 2))) if swept)
    excluded = st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)
    exclude = tuple({n: some(n) for n in draw(excluded)} for _ in range(draw(st.integers(0, 2))))
    base = parse('name = "s"', "x")
    fixed = {name: value for name, value in base.fixed.items() if name not in swept}
    return Sweep("s", draw(st.integers(1, 4)), fixed, grid, zipped, include, exclude)


@given(sweeps())
@settings(max_examples=200, deadline=None)
def test_the_trials_are_those_of_a_plain_enumeration(sweep: Sweep) -> None:
    expected = in_order(enumerate_trials(sweep))
    if not expected:
        with pytest.raises(SweepError, match="excluded"):
            Plan(sweep)
        return
    if sweep.include and len(set(expected)) < len(expected):
        with pytest.raises(SweepError, match="there already"):
            Plan(sweep)
        return
    plan = Plan(sweep)
    assert plan.trials == len(expected)
    assert plan.cells * sweep.seeds - plan.collapsed == plan.trials
    assert in_order([plan.fields(number) for number in range(plan.trials)]) == expected


def test_ten_million_cells_cost_no_more_than_their_axes() -> None:
    plan = Plan(
        parse(
            f"""
            name = "big"
            seeds = 10
            [grid]
            pool.size = {list(range(500))}
            nic.rx_usecs = {list(range(500))}
            traffic.rate_pps = {list(range(1, 11))}
            traffic.packet_size = ["imix", 64, 128, 1000]
            [[exclude]]
            pool.size = [5, 6]
            nic.rx_usecs = 3
            """,
            "x",
        )
    )
    assert plan.cells == 500 * 500 * 10 * 4 - 2 * 10 * 4
    assert plan.trials == plan.cells * 10
    last = plan.fields(plan.trials - 1)
    assert (last["pool.size"], last["nic.rx_usecs"], last["seed"]) == (499, 499, 9)
    with pytest.raises(IndexError):
        plan.fields(plan.trials)


def test_a_broken_rule_is_found_anywhere_in_the_grid() -> None:
    with pytest.raises(ConfigError, match=r"warmup_ms = 50: must be below duration_ms = 20"):
        Plan(parse('name = "s"\n[grid]\nduration_ms = [100, 20]\nwarmup_ms = [2, 50]', "x"))


def test_a_rule_is_not_broken_by_excluded_cells() -> None:
    text = 'name = "s"\n[grid]\nduration_ms = [100, 20]\nwarmup_ms = [2, 50]\n'
    plan = Plan(parse(text + "[[exclude]]\nduration_ms = 20\nwarmup_ms = 50", "x"))
    assert plan.cells == 3


OTHER_FIELDS = {
    int: [3000, 4000],
    float: [0.5, 2.0],
    bool: [True, False],
    "app.reader_cpu": ["same", "other"],
    "nic.link_gbps": [1, 10],
    "nic.budget": [16, 64],
    "numa.nodes": [1, 2],
    **{f"numa.{who}": [0, 1] for who in ("nic", "queues", "readers", "steering")},
    "nic.queues": [1, 2],
    "pool.slow_batch": [1, 64],
    "nic.tx_gbps": [1, 10],
    "xdp.redirect_cpus": [1, 2],
    "nic.hw_gro_flows": [1, 64],
    "life.queues": [1, 2],
    "stack.rps": [0, 2],
    "app.readers": [1, 2],
    "driver.buffer_bytes": [1024, 4096],
    "machine.page_bytes": [4096, 65536],
    "app.socket_bytes": [3000, 4000],
}


@pytest.mark.parametrize("field", [f for f in fields() if f.name not in SEED_FIELDS], ids=lambda f: f.name)
def test_only_the_seed_fields_decide_whether_the_seed_matters(field: TrialField) -> None:
    values = OTHER_FIELDS.get(field.name, OTHER_FIELDS.get(type(field.default), [field.default]))
    drawn: dict[str, list[Value]] = {
        "traffic.flows": [1, 2],
        "traffic.flow_packets": [0, 9],
        "xdp.pass_percent": [100, 30],
        "xdp.drop_percent": [0],
        "xdp.tx_percent": [70],
        "xdp.redirect_percent": [0],
        "stack.capture_percent": [0, 50],
        "app.hold_percent": [0, 50],
    }
    defaults = {f.name: [f.default] for f in fields()}
    values_of = {**defaults, **VALUES, **drawn, "workload": ["nic", "pool_ring"]}
    for row in product(*(values_of[name] for name in SEED_FIELDS)):
        plain = dict(zip(SEED_FIELDS, row, strict=True))
        found = {seed_matters(TrialConfig.unchecked({**plain, field.name: value})) for value in values}
        assert found == {seed_matters(TrialConfig.unchecked(plain))}


def test_the_seeds_of_drawn_work_are_kept_and_those_of_the_rest_collapsed() -> None:
    text = (
        'name = "s"\nseeds = 3\n[fixed]\ntraffic.kind = "constant"\n[grid]\napp.reader = ["fast", "slow"]\n'
    )
    plan = Plan(parse(text + 'app.work_distribution = ["constant", "exponential"]', "x"))
    assert (plan.cells, plan.trials) == (4, 3 + 3)


def test_ids_differ_between_trials_and_not_between_plans(small: str) -> None:
    plan, again = Plan(parse(small, "x")), Plan(parse(small, "y"))
    ids = [plan.trial_id(number) for number in range(plan.trials)]
    assert len(set(ids)) == plan.trials == 24
    assert ids == [again.trial_id(number) for number in range(again.trials)]


def test_the_inputs_are_those_of_the_trials() -> None:
    import workers

    text = """
    name = "s"
    [fixed]
    traffic.capture_destination = "10.77.0.2"
    [grid]
    traffic.kind = ["capture", "poisson"]
    arch = ["broadwell-ep", "armada-3720"]
    pool.size = [64, 128]
    """
    plan = Plan(parse(text, "x"))
    expected = {one.name: one for n in range(plan.trials) for one in workers.inputs(plan.config(n))}
    assert plan.inputs() == expected
    assert set(expected) == {"tcp_bulk", "broadwell-ep", "armada-3720"}
    assert set(INPUT_FIELDS) <= {f.name for f in fields()}
