"""The allocator does what a real kernel did, state for state."""

import copy
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pool_impl import conformance, recording
from pool_impl.errors import RecordingError

RECORDINGS = Path(__file__).parent / "recordings"
PATHS = recording.find([RECORDINGS])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.name.partition('.')[0]}")
def test_replays_a_recording_without_divergence(path: Path) -> None:
    result = conformance.replay(recording.read(path))
    assert result.first is None
    assert result.operations > 0


@pytest.mark.parametrize(
    ("release", "kinds"),
    [
        ("linux-6.1", {"page": 39, "dma": 5, "frag": 16, "skb": 45, "random": 36, "workload": 6}),
        (
            "linux-6.12",
            {"page": 43, "dma": 10, "frag": 26, "skb": 69, "napi": 26, "random": 32, "workload": 10},
        ),
    ],
)
def test_all_recordings_are_here(release: str, kinds: dict[str, int]) -> None:
    """As the recorder's table says: 147 and 216."""
    assert Counter(p.name.split("-")[0] for p in PATHS if p.parent.name == release) == kinds


def leaves(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Places of all numbers and booleans in a state."""
    if isinstance(value, dict):
        return [place for key in value for place in leaves(value[key], (*path, key))]
    if isinstance(value, list):
        return [place for index, item in enumerate(value) for place in leaves(item, (*path, index))]
    return [path] if isinstance(value, int) else []


def altered(source: recording.Recording, number: int, place: tuple[object, ...]) -> recording.Recording:
    """A copy in which one value of the state after an operation is one higher."""
    operations = list(source.operations)
    state = copy.deepcopy(operations[number - 1].state)
    holder: object = state
    for key in place[:-1]:
        holder = holder[key]  # type: ignore[index]
    value = holder[place[-1]]  # type: ignore[index]
    holder[place[-1]] = not value if isinstance(value, bool) else value + 1  # type: ignore[index]
    operations[number - 1] = operations[number - 1]._replace(state=state)
    return source._replace(operations=tuple(operations))


@pytest.mark.parametrize(
    "name",
    [
        "linux-6.1/dma-sync.jsonl.gz",
        "linux-6.1/frag-drain-elevated.jsonl.gz",
        "linux-6.1/page-nid-update.jsonl.gz",
        "linux-6.1/skb-trim-pull.jsonl.gz",
        "linux-6.1/skb-gro-head.jsonl.gz",
        "linux-6.12/skb-frag-list-clone.jsonl.gz",
        "linux-6.12/skb-share-coalesce-mixed.jsonl.gz",
        "linux-6.12/napi-destroy-user-count.jsonl.gz",
    ],
)
def test_one_altered_value_is_exactly_one_divergence_there(name: str) -> None:
    source = recording.read(RECORDINGS / name)
    places = [(op.number, place) for op in source.operations for place in leaves(op.state)]
    for number, place in random.Random(1).sample(places, 12):
        result = conformance.replay(altered(source, number, place))
        assert result.divergences == 1, (number, place)
        assert result.first is not None
        assert result.first.operation.number == number
        assert str(place[0]) in result.first.field


def test_each_field_of_an_skb_is_compared() -> None:
    source = recording.read(RECORDINGS / "linux-6.12" / "skb-frag-list.jsonl.gz")
    number = max(
        op.number for op in source.operations if any(s and s["frag_list"] for s in op.state["skbs"].values())
    )
    places = [place for place in leaves(source.operations[number - 1].state) if place[0] == "skbs"]
    found = set()
    for place in places:
        result = conformance.replay(altered(source, number, place))
        assert (result.divergences, result.first.operation.number) == (1, number), place  # type: ignore[union-attr]
        found.add(place[2])
    fields = "len data_len truesize headroom tailroom end head_frag head pp_recycle cloned nohdr pfmemalloc"
    assert found >= {*fields.split(), "dataref", "users", "frag_list"} - {"head"}


def short() -> recording.Recording:
    return recording.read(RECORDINGS / "linux-6.1" / "page-destroy-idle.jsonl.gz")


def test_an_unknown_operation_is_a_divergence() -> None:
    source = short()
    last = source.operations[-1]._replace(name="page_pool_frobnicate")
    result = conformance.replay(source._replace(operations=(*source.operations[:-1], last)))
    assert (result.divergences, result.first.field) == (1, "op")  # type: ignore[union-attr]


def test_an_unknown_field_of_the_state_is_a_divergence() -> None:
    source = short()
    last = source.operations[-1]
    last = last._replace(state={**last.state, "mood": 7})
    result = conformance.replay(source._replace(operations=(*source.operations[:-1], last)))
    assert (result.divergences, result.first.field) == (1, "mood")  # type: ignore[union-attr]


def test_an_unknown_field_of_a_pool_is_a_divergence() -> None:
    source = short()
    last = source.operations[-1]
    pools = [{**last.state["pools"][0], "mood": 7}]
    last = last._replace(state={**last.state, "pools": pools})
    result = conformance.replay(source._replace(operations=(*source.operations[:-1], last)))
    assert (result.divergences, result.first.field) == (1, "pools[0].mood")  # type: ignore[union-attr]


IN_PLAIN_PYTHON = (
    *("linux-6.1/frag-basic", "linux-6.1/page-bulk-overflow", "linux-6.1/page-order-1"),
    *("linux-6.1/dma-map-failures", "linux-6.1/page-nid-remote", "linux-6.1/skb-clone"),
    *("linux-6.1/skb-expand-head", "linux-6.1/skb-gro-list", "linux-6.1/skb-shift"),
    *("linux-6.1/skb-split", "linux-6.1/skb-trim-pull", "linux-6.12/dma-destroy-unmap"),
    *("linux-6.12/frag-any-tail", "linux-6.12/napi-local-bulk", "linux-6.12/skb-frag-list-clone"),
    *("linux-6.12/skb-pp-cow", "linux-6.12/skb-share-coalesce-mixed", "linux-6.12/skb-small-head"),
)


def test_plain_python_and_compiled_code_agree_on_recordings() -> None:
    script = (
        "import sys; from pathlib import Path; from pool_impl import conformance, recording\n"
        "print(sum(conformance.replay(recording.read(Path(p))).divergences for p in sys.argv[1:]))"
    )
    paths = [str(RECORDINGS / f"{name}.jsonl.gz") for name in IN_PLAIN_PYTHON]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *paths], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "1: empty"),
        (b"not json\n", "1: not JSON"),
        (b'{"name": "x"}\n', "1: header lacks"),
        (
            b'{"name":"x","kernel":"6.1.192","pools":1,"ops":2}\n{"op":"nop","ctx":"bh","state":{}}\n',
            "3: .*2 op",
        ),
        (b'{"name":"x","kernel":"6.1.192","pools":1,"ops":1}\n{"op":"nop","ct', "2: not JSON"),
        (b'{"name":"x","kernel":"6.1.192","pools":1,"ops":1}\n[1]\n', "2: not a JSON object"),
        (b'{"name":"x","kernel":"6.1.192","pools":1,"ops":1}\n{"op":"nop"}\n', "2: an operation needs"),
        (b'{"name":"x","kernel":"4.4.1","pools":0,"ops":0}\n', "1: kernel 4.4.1: no rules"),
    ],
)
def test_a_malformed_recording_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=f"trace.jsonl:{message}"):
        conformance.replay(recording.read(path))


def test_a_truncated_gzip_is_named(tmp_path: Path) -> None:
    whole = (RECORDINGS / "linux-6.1" / "page-leak.jsonl.gz").read_bytes()
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordingError, match=r"cut.jsonl.gz:\d+: "):
        recording.read(path)
