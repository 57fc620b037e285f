"""What comes back from a batch: its trials' rows, and the few numbers of them that progress needs.

Between processes rows travel as columns, encoded where the trials ran: the driver of a large cluster never
looks at a row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from farm.store.rows import KINDS, Failure, Kind, Outcome, schema, table

if TYPE_CHECKING:
    import pyarrow

MOST_WAITING = 4_000
"""trials of a batch, and outcomes that wait for their part, are no more than this, which bounds memory"""


@dataclass(frozen=True)
class Results:
    """Trials that were run one after the other."""

    trials: int
    failed: int
    packets: int
    wall_seconds: float
    """the sum of all trials'"""
    cpu_seconds: float
    compile_seconds: float
    """the longest that one of them took to compile its event loop or load it"""
    outcomes: Sequence[Outcome] = ()
    """the trials, if they ran in this process"""
    encoded: Mapping[Kind, bytes] | None = None
    """the same from another process: an Arrow record batch of each kind that has rows, without its schema,
    which is :func:`farm.store.rows.schema` on both sides"""

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "Results":
        """Of at least one trial."""
        attempts = [outcome.attempt for outcome in outcomes]
        return cls(
            trials=len(outcomes),
            failed=sum(isinstance(outcome.result, Failure) for outcome in outcomes),
            packets=sum(attempt.packets for attempt in attempts),
            wall_seconds=sum(attempt.wall_seconds for attempt in attempts),
            cpu_seconds=sum(attempt.cpu_seconds for attempt in attempts),
            compile_seconds=max(attempt.compile_seconds for attempt in attempts),
            outcomes=outcomes,
        )

    def packed(self) -> "Results":
        """The same for the way to another process."""
        encoded = {}
        for kind in KINDS:
            for batch in table(kind, self.outcomes).to_batches():
                if batch.num_rows:
                    encoded[kind] = batch.serialize().to_pybytes()
        return replace(self, outcomes=(), encoded=encoded)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows as they travel."""
        return sum(map(len, (self.encoded or {}).values()))


def together(results: Iterable[Results]) -> "dict[Kind, pyarrow.Table]":
    """The rows of all of them by kind; kinds without a row are left out."""
    import pyarrow

    outcomes: list[Outcome] = []
    batches: dict[Kind, list[pyarrow.RecordBatch]] = {kind: [] for kind in KINDS}
    for one in results:
        outcomes.extend(one.outcomes)
        for kind, content in (one.encoded or {}).items():
            batches[kind].append(pyarrow.ipc.read_record_batch(pyarrow.py_buffer(content), schema(kind)))
    found = {}
    for kind in KINDS:
        if outcomes:
            batches[kind].extend(table(kind, outcomes).to_batches())
        rows = pyarrow.Table.from_batches(batches[kind], schema=schema(kind))
        if rows.num_rows:
            found[kind] = rows
    return found
