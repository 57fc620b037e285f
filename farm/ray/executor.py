"""The executor on Ray: a private local Ray, or the cluster at an address.

A batch is one task. Ray does not retry it; what is done about one that did not come back is in
:mod:`farm.ray.losses`.
"""

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from farm.errors import LostError
from farm.execution.batch import Job, lost
from farm.execution.batches import Batches
from farm.ray import nodes as cluster_nodes
from farm.ray.address import options_of, refused
from farm.ray.losses import Loss, Sent, killed, poisoned
from farm.ray.nodes import ONE_CPU, Need, translated
from farm.ray.work import NAMESPACE, Done, Work, note_key, run_here, work
from farm.store.results import Results
from farm.store.rows import Failure

if TYPE_CHECKING:
    from types import TracebackType

TASK = "farm-batch"
"""how Ray calls a batch, also in the title of the process that has it"""

WINDOW_PER_SLOT = 2
"""batches in flight per slot: one runs, one waits so that the slot never idles"""

MANY = 16
"""batches in flight, from which on those that are back are taken together"""

LOOK_SECONDS = 2.0
"""between two looks at which nodes there are"""

LOST_SECONDS = 120.0
"""how long a run waits for a node when none is left"""


class RayExecutor:
    """Runs batches as Ray tasks; a context manager that ends what it started.

    Arguments:
        address: see :func:`farm.ray.address.options_of`.
        need: what a slot takes.

    Raises:
        ExecutorError: nothing answers at the address, Ray does not start, a node has another version, or
            none has what a slot takes.
    """

    name = "ray"

    def __init__(self, address: str | None = None, need: Need = ONE_CPU) -> None:
        options = options_of(address)
        import ray

        try:
            ray.init(log_to_driver=False, logging_level="ERROR", **options)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise refused(address, error) from None
        self._ray = ray
        self._need = need
        self._work: Work = run_here
        self._slots = 0
        self._looked = 0.0
        try:
            cluster_nodes.check_need(need, ray.nodes())
            if address is not None:
                cluster_nodes.check_nodes(ray, ray.nodes())
        except BaseException:
            ray.shutdown()
            raise

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
        alive = {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}
        wanted = nodes or [node for node, resources in alive.items() if resources.get("CPU", 0)]
        cpus = {node: alive.get(node, {}).get("CPU", 0) if alone else 0 for node in wanted}
        return cluster_nodes.call_on_nodes(self._ray, work, arguments, cpus)

    @property
    def slots(self) -> int:
        """How many trials the cluster has room for, as it is now; looked up every few seconds."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._slots = self._need.slots(self._ray.nodes())
            self._looked = time.monotonic()
        return max(1, self._slots)

    def run(self, job: Job, batches: Batches) -> Iterator[Results]:
        """Run batches with a bounded number in flight; results come in the order they finish."""
        remote = self._ray.remote(max_retries=0, name=TASK, **self._need.options)
        run = self._work
        task = remote(lambda *arguments: work(run, *arguments))
        # what all batches have in common goes to each node once
        common = [self._ray.put(job), self._ray.put(_contents(job))]
        again: deque[Sent] = deque()
        in_flight: dict[Any, Sent] = {}
        last_seen = time.monotonic()
        while True:
            window = WINDOW_PER_SLOT * self.slots
            while len(in_flight) < window:
                sent = again.popleft() if again else _next(batches)
                if sent is None:
                    break
                in_flight[task.remote(*common, sent.numbers, self.name, sent.retries)] = sent
            if not in_flight:
                return
            ready, _ = self._ray.wait(list(in_flight), num_returns=1, timeout=LOOK_SECONDS)
            if not ready:
                if self._slots:
                    last_seen = time.monotonic()
                elif time.monotonic() - last_seen > LOST_SECONDS:
                    raise LostError(f"no node of the cluster has been left for {LOST_SECONDS:g} s")
                continue
            if len(in_flight) > MANY:
                # a look at each reference is not free: take all that is there
                ready, _ = self._ray.wait(list(in_flight), num_returns=len(in_flight), timeout=0)
            last_seen = time.monotonic()
            for reference in ready:
                yield from self._taken(job, batches, reference, in_flight.pop(reference), again)

    def _taken(
        self, job: Job, batches: Batches, reference: Any, sent: Sent, again: deque[Sent]
    ) -> Iterator[Results]:
        """The results of a batch, or what is done about it."""
        errors = self._ray.exceptions
        try:
            done: Done = self._ray.get(reference)
        except errors.RayTaskError as error:
            raise translated(error) from None
        except errors.RayError as error:
            number = self._note(job, sent)
            if number is not None:
                again.extend(sent.without(number))
                yield self._failed(job, number, sent, killed(job))
                return
            loss = _loss(errors, error)
            remaining = sent.after(loss)
            again.extend(remaining)
            if not remaining:
                yield self._failed(job, sent.numbers[0], sent, poisoned(loss))
            return
        batches.give_back(done.left)
        if done.results is not None:
            yield done.results

    def _failed(self, job: Job, number: int, sent: Sent, failure: Failure) -> Results:
        return Results.of([lost(job, number, self.name, sent.retries, failure)])

    def _note(self, job: Job, sent: Sent) -> int | None:
        """The trial for which a worker ended itself, if one did."""
        from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get

        key = note_key(job, sent.numbers, sent.retries)
        with suppress(Exception):
            found = _internal_kv_get(key, namespace=NAMESPACE)
            if found is not None:
                _internal_kv_del(key, namespace=NAMESPACE)
                return int(found)
        return None


def _next(batches: Batches) -> Sent | None:
    numbers = next(batches, None)
    return None if numbers is None else Sent(numbers)


def _loss(errors: Any, error: Exception) -> Loss:
    if isinstance(error, errors.OutOfMemoryError):
        return Loss.MEMORY
    lost_with_node = (errors.NodeDiedError, errors.LocalRayletDiedError, errors.ObjectLostError)
    return Loss.NODE if isinstance(error, lost_with_node) else Loss.WORKER


def _contents(job: Job) -> Mapping[str, bytes]:
    """Inputs of the run by SHA-256; those of a remote store are fetched by each node."""
    if "://" in job.inputs_directory:
        return {}
    directory = Path(job.inputs_directory)
    return {sha256: (directory / sha256).read_bytes() for sha256 in sorted(set(job.inputs.values()))}
