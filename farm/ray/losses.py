"""What becomes of a batch that did not come back.

Three classes. A worker or node that is lost says nothing about the trials it had: they are sent again. A
trial that raises is no loss, its error is its result, and it came back. A trial that takes its worker along
every time is found by splitting its batch until it is alone, and becomes a failure; the others go on.
"""

from dataclasses import dataclass, replace
from enum import Enum

from farm.execution.batch import Job, too_long
from farm.store.rows import Failure

MOST_DEATHS_ALONE = 4
"""workers that a trial may take along while it is alone in its batch: workers die of other causes too"""

MOST_NODES = 3
"""nodes that may be lost under a batch before it is suspected"""


class Loss(Enum):
    """How a batch was lost."""

    WORKER = "the worker process died"
    MEMORY = "Ray ended the worker because its node ran out of memory"
    NODE = "the node was lost"


@dataclass(frozen=True)
class Sent:
    """A batch on its way."""

    numbers: range
    retries: int = 0
    deaths_alone: int = 0
    nodes_lost: int = 0

    def after(self, loss: Loss) -> "list[Sent]":
        """What to send again; nothing if the one trial in it has taken enough workers along."""
        if loss is Loss.NODE and self.nodes_lost < MOST_NODES:
            return [replace(self, retries=self.retries + 1, nodes_lost=self.nodes_lost + 1)]
        if len(self.numbers) > 1:
            middle = len(self.numbers) // 2
            halves = (self.numbers[:middle], self.numbers[middle:])
            return [Sent(half, self.retries + 1) for half in halves]
        if self.deaths_alone + 1 >= MOST_DEATHS_ALONE:
            return []
        return [replace(self, retries=self.retries + 1, deaths_alone=self.deaths_alone + 1)]

    def without(self, number: int) -> "list[Sent]":
        """What to send again if it is known which trial took the worker along."""
        place = self.numbers.index(number)
        parts = (self.numbers[:place], self.numbers[place + 1 :])
        return [replace(self, numbers=part, retries=self.retries + 1) for part in parts if part]


def poisoned(loss: Loss) -> Failure:
    """The failure of a trial that takes its worker along every time."""
    times = f"{MOST_DEATHS_ALONE} times while this trial ran alone"
    if loss is Loss.MEMORY:
        return Failure("OutOfMemory", f"{loss.value}, {times}; run it on a node with more memory")
    return Failure("WorkerDied", f"{loss.value} {times}")


def killed(job: Job) -> Failure:
    """The failure of a trial whose worker ended itself since the trial could not be stopped."""
    return too_long(job, " and did not stop when asked to, so its worker was ended")
