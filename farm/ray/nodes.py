"""The nodes of a cluster: whether they can run trials, what they hold, calls pinned to them."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

from farm.errors import ExecutorError, FarmError

ANSWER_SECONDS = 120.0
"""a node that does not start a worker and import the package within this time is not usable"""

NODE_REMEDY = "install the same version of the farm on every node"


class Need(NamedTuple):
    """What a slot takes of a node, by Ray's names of resources; memory is in bytes."""

    resources: Mapping[str, float]

    @property
    def options(self) -> dict[str, Any]:
        """For a Ray task."""
        named = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
        plain = {named[name]: amount for name, amount in self.resources.items() if name in named}
        return plain | {
            "resources": {name: amount for name, amount in self.resources.items() if name not in named}
        }

    def slots(self, nodes: Iterable[Mapping[str, Any]]) -> int:
        """How often alive nodes have that."""
        return sum(
            min(int(node["Resources"].get(name, 0) // amount) for name, amount in self.resources.items())
            for node in nodes
            if node["Alive"]
        )


ONE_CPU = Need({"CPU": 1.0})


def need_of(texts: Sequence[str]) -> Need:
    """From the command line: NAME=AMOUNT, or NAME for 1; one CPU unless CPU is named.

    Raises:
        ExecutorError: malformed.
    """
    found = dict(ONE_CPU.resources)
    for text in texts:
        name, equals, amount = text.partition("=")
        try:
            number = float(amount) if equals else 1.0
        except ValueError:
            number = 0.0
        # Ray takes whole numbers above 1, and counts memory in bytes
        if not name or not 0 < number < 1e18 or (number > 1 and number != int(number)):
            raise ExecutorError(
                f"--need {text!r}: write NAME=AMOUNT, such as memory=2000000000 or bench=1; "
                "above 1, amounts are whole numbers"
            )
        found[name] = number
    return Need(found)


def check_need(need: Need, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what no node has.

    Raises:
        ExecutorError: it names the resource of which even the largest node has too little.
    """
    if need.slots(nodes):
        return
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    for name, amount in need.resources.items():
        most = max((resources.get(name, 0) for resources in alive), default=0)
        if most < amount:
            raise ExecutorError(
                f"cluster of {len(alive)} nodes: a trial takes {name}={amount:g}, no node has more than "
                f"{most:g}; start a node with more, or ask for less with --need"
            )
    wanted = ", ".join(f"{name}={amount:g}" for name, amount in need.resources.items())
    raise ExecutorError(
        f"cluster of {len(alive)} nodes: no node has all of {wanted}; start one that has, or ask for less "
        "with --need"
    )


def here() -> dict[str, str]:
    """What has to be the same on all nodes."""
    import workers

    return {
        "page-pool-farm": metadata.version("page-pool-farm"),
        "numba": metadata.version("numba"),
        "model": workers.model_digest(),
    }


def differences(driver: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> str | None:
    """What is wrong with the first node that differs, in words.

    Args:
        nodes: by name, what :func:`here` gave there, or ``missing``.
    """
    for node, found in sorted(nodes.items()):
        if "missing" in found:
            return f"node {node}: the farm cannot be imported there ({found['missing']}); {NODE_REMEDY}"
        for name, version in driver.items():
            if found.get(name) != version:
                return f"node {node}: {name} {found.get(name)}, the driver has {version}; {NODE_REMEDY}"
    return None


def call_on_nodes(
    ray: Any,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    nodes: Mapping[str, float],
) -> dict[str, Any]:
    """Call a function once on each node, pinned to it.

    Args:
        nodes: CPUs that the call takes, by the id of the node.

    Returns:
        What it returned, by the id of the node, in the order of ids.

    Raises:
        ExecutorError: a node was lost, or the function failed there.
    """

    errors = ray.exceptions
    called = _called(ray, work, arguments, nodes)
    try:
        return {node: ray.get(result) for node, result in called.items()}
    except errors.RayTaskError as error:
        raise translated(error) from None
    except errors.RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise ExecutorError(f"a Ray node was lost ({reason}); run again when it is back") from None


def _called(
    ray: Any, work: Callable[..., Any], arguments: tuple[Any, ...], nodes: Mapping[str, float]
) -> dict[str, Any]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    called = {}
    for node, cpus in sorted(nodes.items()):
        pinned = NodeAffinitySchedulingStrategy(node, soft=False)
        options = {"num_cpus": cpus, "max_retries": 0, "scheduling_strategy": pinned}
        called[node] = ray.remote(**options)(work).remote(*arguments)
    return called


def check_nodes(ray: Any, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a cluster in which a node has another version of the package, or none.

    Raises:
        ExecutorError: it names the node and both versions.
    """

    # sent by value: it has to run where the package is missing
    def ask() -> dict[str, str]:
        try:
            from farm.ray.nodes import here
        except ImportError as error:
            return {"missing": " ".join(str(error).split())}
        return here()

    usable = {
        node["NodeID"]: str(node["NodeManagerAddress"])
        for node in nodes
        if node["Alive"] and node["Resources"].get("CPU", 0)
    }
    called = _called(ray, ask, (), dict.fromkeys(usable, 0.0))
    late = time.monotonic() + ANSWER_SECONDS
    answers = {}
    for node, result in called.items():
        try:
            answers[usable[node]] = ray.get(result, timeout=max(0.0, late - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            raise ExecutorError(
                f"node {usable[node]}: does not answer within {ANSWER_SECONDS:g} s; look at its logs, or "
                "take it out"
            ) from None
        except ray.exceptions.RayTaskError as error:
            raise translated(error) from None
        except ray.exceptions.RayError:
            # lost since it was listed; a node that comes later is checked by its batches
            continue
    wrong = differences(here(), answers)
    if wrong:
        raise ExecutorError(wrong)


def translated(error: Any) -> FarmError:
    """The error of a task: the farm's own as it was, anything else in one line."""
    cause = error.cause
    if isinstance(cause, FarmError):
        return cause
    reason = " ".join(str(cause).split())[:200]
    return ExecutorError(f"a Ray worker failed ({type(cause).__name__}: {reason}); {NODE_REMEDY}")
