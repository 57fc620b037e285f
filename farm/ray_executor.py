"""The executor on Ray: a private local Ray, or the cluster at an address.

A batch is one task. Ray does not retry it: when a worker dies, its batch is split and sent again, so
that a trial which kills its worker ends up alone, becomes a failure, and the others go on.
"""

import copy
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from farm.batch import Job, run_batch, worker_died
from farm.errors import ExecutorError, FarmError
from farm.rows import Outcome

if TYPE_CHECKING:
    from types import TracebackType

Work = Callable[[Job, range, str, int], Iterable[Outcome]]

WINDOW_PER_SLOT = 2
"""batches in flight per slot: one runs, one waits so that the slot never idles"""

MOST_DEATHS_ALONE = 2
"""workers that a trial may kill while it is alone in its batch"""

PROBE_SECONDS = 5.0
"""an address that does not answer within this time is unreachable"""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # matches every line: Ray prints other processes' deaths and logs to standard output otherwise
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    # a lost head is reported after seconds, not a minute
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}

_LOCAL = {
    # whether a token file exists on this machine must not decide whether a run works
    "RAY_AUTH_MODE": "disabled",
    # everything on 127.0.0.1
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


@dataclass(frozen=True)
class _Batch:
    numbers: range
    retries: int = 0
    deaths_alone: int = 0

    def after_death(self) -> "list[_Batch]":
        """What to send again; nothing if the one trial in it has killed enough workers."""
        if len(self.numbers) > 1:
            middle = len(self.numbers) // 2
            halves = (self.numbers[:middle], self.numbers[middle:])
            return [_Batch(half, self.retries + 1) for half in halves]
        if self.deaths_alone + 1 >= MOST_DEATHS_ALONE:
            return []
        return [_Batch(self.numbers, self.retries + 1, self.deaths_alone + 1)]


class RayExecutor:
    """Runs batches as Ray tasks; a context manager that ends what it started.

    Arguments:
        address: ``host:port`` of a cluster's head, or None for a Ray of its own on this machine,
            whatever else runs here.

    Raises:
        ExecutorError: nothing answers at the address, or Ray does not start.
    """

    name = "ray"

    def __init__(self, address: str | None = None) -> None:
        os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
        if address is None:
            os.environ.update({name: value for name, value in _LOCAL.items() if name not in os.environ})
            options = _local_options()
        else:
            options = _cluster_options(address)
        import ray
        import ray.util.scheduling_strategies

        try:
            ray.init(log_to_driver=False, logging_level="ERROR", **options)
        except (OSError, RuntimeError, ValueError) as error:
            where = f"address {address!r}" if address else "a local Ray"
            reason = " ".join(str(error).split())[:200]
            raise ExecutorError(f"{where}: Ray does not start ({reason}); {_REMEDY}") from None
        self._ray = ray
        self._work: Work = run_batch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self._ray.shutdown()

    def with_work(self, work: Work) -> "RayExecutor":
        """The same Ray, with something else that runs a batch in a worker."""
        twin = copy.copy(self)
        twin._work = work
        return twin

    def on_nodes(
        self,
        work: Callable[..., Any],
        arguments: tuple[Any, ...],
        nodes: Sequence[str] = (),
        alone: bool = False,
    ) -> dict[str, Any]:
        """Call a function once on each node, pinned to it.

        Args:
            work: importable on every node.
            nodes: ids of some nodes only.
            alone: whether it takes all CPUs of the node, so that no other task runs there meanwhile.

        Returns:
            What it returned, by the id of the node, in the order of ids.

        Raises:
            ExecutorError: a node was lost, or the function failed there.
        """
        pinned = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        alive = {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}
        called = {}
        for node in sorted(nodes or alive):
            cpus = alive.get(node, {}).get("CPU", 0) if alone else 0
            options = {"num_cpus": cpus, "max_retries": 0, "scheduling_strategy": pinned(node, soft=False)}
            called[node] = self._ray.remote(**options)(work).remote(*arguments)
        try:
            return {node: self._ray.get(result) for node, result in called.items()}
        except self._ray.exceptions.RayTaskError as error:
            raise _translated(error) from None
        except self._ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:200]
            raise ExecutorError(f"a Ray node was lost ({reason}); run again when it is back") from None

    @property
    def slots(self) -> int:
        """CPUs of the cluster as it is now."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def run(self, job: Job, batches: Iterator[range]) -> Iterator[Outcome]:
        """Run batches with a bounded number in flight; outcomes come in the order they finish."""
        work = self._work

        def batch_task(job: Job, numbers: range, retries: int) -> list[Outcome]:
            return list(work(job, numbers, RayExecutor.name, retries))

        task = self._ray.remote(num_cpus=1, max_retries=0)(batch_task)
        again: deque[_Batch] = deque()
        in_flight: dict[Any, _Batch] = {}
        while True:
            window = WINDOW_PER_SLOT * self.slots
            while len(in_flight) < window:
                batch = again.popleft() if again else _next(batches)
                if batch is None:
                    break
                in_flight[task.remote(job, batch.numbers, batch.retries)] = batch
            if not in_flight:
                return
            ready, _ = self._ray.wait(list(in_flight), num_returns=1)
            batch = in_flight.pop(ready[0])
            try:
                yield from self._ray.get(ready[0])
            except self._ray.exceptions.RayTaskError as error:
                raise _translated(error) from None
            except self._ray.exceptions.RayError:
                remaining = batch.after_death()
                again.extend(remaining)
                if not remaining:
                    yield worker_died(job, batch.numbers[0], self.name, batch.retries)


def _next(batches: Iterator[range]) -> _Batch | None:
    numbers = next(batches, None)
    return None if numbers is None else _Batch(numbers)


def _translated(error: Any) -> FarmError:
    """The error of a task: the farm's own as it was, anything else in one line."""
    cause = error.cause
    if isinstance(cause, FarmError):
        return cause
    reason = " ".join(str(cause).split())[:200]
    return ExecutorError(f"a Ray worker failed ({type(cause).__name__}: {reason}); {_NODE_REMEDY}")


_REMEDY = "run without --address for a local Ray, or with --executor serial"
_NODE_REMEDY = "install the same version of the farm on every node"


def _local_options() -> dict[str, Any]:
    return {
        "address": "local",
        "include_dashboard": False,
        # Ray complains about a taken port even when it starts no dashboard
        "dashboard_port": _free_port(),
        # trials send kilobytes; Ray would set aside a third of the memory
        "object_store_memory": 80 << 20,
    }


def _cluster_options(address: str) -> dict[str, Any]:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        raise ExecutorError(f"address {address!r}: use host:port of the cluster's head, such as head:6379")
    try:
        with closing(socket.create_connection((host, int(port)), timeout=PROBE_SECONDS)):
            pass
    except (OSError, OverflowError) as error:
        raise ExecutorError(f"address {address!r}: nothing answers ({error}); {_REMEDY}") from None
    if not _is_head(address):
        raise ExecutorError(f"address {address!r}: what answers is not the head of a Ray cluster; {_REMEDY}")
    options: dict[str, Any] = {"address": address}
    if host.startswith("127."):
        # a cluster on loopback addresses finds its driver only if that takes part under one of them
        options["_node_ip_address"] = host
    return options


def _is_head(address: str) -> bool:
    """Ask in a process of its own: Ray ends the process that connects to something else."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        found = subprocess.run(command, capture_output=True, timeout=2 * PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return found.returncode == 0


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
