"""Sweep files: what they mean, and that nothing unknown or absurd gets through."""

import pytest

from farm import sweep
from farm.errors import FarmError, SweepError
from workers import config
from workers.errors import ConfigError, TrialError

SWEEP = """
name = "s"
seeds = 2
[fixed]
duration_ms = 5
traffic.kind = "bursts"
[grid]
pool.size = [64, 256]
[zip]
arch = ["broadwell-ep", "armada-8040"]
nic.rx_ring = [512, 1024]
[[include]]
pool.size = 0
arch = "armada-3720"
nic.rx_ring = 2048
[[exclude]]
pool.size = 64
arch = ["armada-8040"]
"""


def test_dotted_and_nested_tables_are_the_same() -> None:
    nested = 'name = "s"\n[fixed.traffic]\nkind = "bursts"\n[grid.pool]\nsize = [64]\n'
    dotted = 'name = "s"\n[fixed]\ntraffic.kind = "bursts"\n[grid]\npool.size = [64]\n'
    assert sweep.parse(nested, "x") == sweep.parse(dotted, "x")


def test_every_field_but_the_seed_is_fixed_or_swept() -> None:
    found = sweep.parse(SWEEP, "x")
    assert {*found.fixed, *found.grid, *found.zip} == {f.name for f in config.fields()} - {"seed"}
    assert found.fixed["traffic.kind"] == "bursts"
    assert found.fixed["nic.budget"] == config.field("nic.budget").default


def test_axes_hold_the_values_of_includes_too() -> None:
    assert sweep.parse(SWEEP, "x").axes() == {
        "pool.size": (64, 256, 0),
        "arch": ("broadwell-ep", "armada-8040", "armada-3720"),
        "nic.rx_ring": (512, 1024, 2048),
    }


@pytest.mark.parametrize("overrides", [[], ["traffic.packet_size=64,imix", "traffic.speed=2", "seeds=9"]])
def test_a_sweep_written_as_a_file_reads_the_same(overrides: list[str]) -> None:
    found = sweep.parse(SWEEP, "x", overrides)
    assert sweep.parse(found.to_toml(), "y") == found
    assert sweep.parse(found.to_toml(), "y").to_toml() == found.to_toml()


def test_text_of_any_kind_survives_the_file() -> None:
    found = sweep.parse('name = "s"\n[fixed]\ntraffic.capture = "a \\"b\\" \\\\ \\u007f \\t é"\n', "x")
    assert found.fixed["traffic.capture"] == 'a "b" \\ \x7f \t é'
    assert sweep.parse(found.to_toml(), "y") == found


def test_overrides_set_a_field_or_make_an_axis() -> None:
    found = sweep.parse(SWEEP, "x", ["pool.size=128", "nic.budget=32,64", "nic.rx_ring=256", "name=t"])
    assert found.name == "t"
    assert found.fixed["pool.size"] == 128
    assert dict(found.grid) == {"nic.budget": (32, 64)}
    assert found.fixed["nic.rx_ring"] == 256
    assert list(found.zip) == ["arch"]
    assert found.include == ({"arch": ("armada-3720",), "nic.budget": (32, 64)},)


def test_the_bundled_sweeps_are_valid() -> None:
    assert "quickstart" in sweep.bundled()
    for name in sweep.bundled():
        assert sweep.load(name).name == name


BAD = {
    "not TOML": ("name = ", "not TOML"),
    "no name": ("seeds = 1", "name = None"),
    "a name that is a path": ('name = "../x"', "not a path"),
    "a name that hides": ('name = ".x"', "not a path"),
    "no seeds": ('name = "s"\nseeds = 0', "seeds = 0"),
    "seeds that are a flag": ('name = "s"\nseeds = true', "seeds = True"),
    "an unknown table": ('name = "s"\n[gird]', "did you mean grid?"),
    "a field at the top": ('name = "s"\nduration_ms = 3', r"\[fixed\]"),
    "a misspelt field": ('name = "s"\n[fixed]\npool.siez = 3', "did you mean pool.size?"),
    "a misspelt axis": ('name = "s"\n[grid]\npool.siez = [3]', "did you mean pool.size?"),
    "a wrong type": ('name = "s"\n[fixed]\npool.size = "big"', "pool.size = 'big'"),
    "a flag for a number": ('name = "s"\n[fixed]\npool.size = true', "pool.size = True"),
    "a negative size": ('name = "s"\n[fixed]\npool.size = -1', "pool.size = -1"),
    "an absurd size": ('name = "s"\n[grid]\npool.size = [9999999999]', "pool.size = 9999999999"),
    "a date": ('name = "s"\n[fixed]\npool.size = 2020-01-01', "single value"),
    "an empty axis": ('name = "s"\n[grid]\npool.size = []', "at least one value"),
    "an axis that is no list": ('name = "s"\n[grid]\npool.size = 64', "use a list"),
    "a list where one value belongs": ('name = "s"\n[fixed]\npool.size = [64]', "single value"),
    "a value twice": ('name = "s"\n[grid]\npool.size = [64, 64]', "twice"),
    "a field in two places": ('name = "s"\n[fixed]\npool.size = 1\n[grid]\npool.size = [1]', "two of"),
    "a seed": ('name = "s"\n[fixed]\nseed = 1', "set seeds = N"),
    "an uneven zip": ('name = "s"\n[zip]\npool.size = [1]\nnic.budget = [1, 2]', "equally many"),
    "a zip that repeats": ('name = "s"\n[zip]\npool.size = [1, 1]\nnic.budget = [2, 2]', "twice"),
    "a table that is none": ('name = "s"\ngrid = 3', r"\[grid\]"),
    "an include without an axis": (
        'name = "s"\n[grid]\npool.size=[1]\n[[include]]\nnic.budget=1',
        "pool.size",
    ),
    "an empty exclude": ('name = "s"\n[[exclude]]', "empty"),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD.keys())
def test_a_bad_sweep_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises((SweepError, ConfigError), match=says) as refused:
        sweep.parse(text, "sweep.toml")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("pool.size", "key=value"),
        ("pool.siez=3", "did you mean pool.size?"),
        ("pool.size=big", "pool.size = 'big'"),
        ("pool.size=64,,", "pool.size = ''"),
        ("pool.size=64,64", "twice"),
        ("seed=3", "set seeds = N"),
        ("seeds=many", "seeds = 'many'"),
        ("name=a/b", "not a path"),
    ],
)
def test_a_bad_override_is_refused_in_one_line(override: str, says: str) -> None:
    with pytest.raises((FarmError, TrialError), match=says) as refused:
        sweep.parse(SWEEP, "x", [override])
    assert "\n" not in str(refused.value)
