"""What a run is watched by while it is on: its own metrics, and annotations on a Grafana.

Ports and tokens are checked before anything is run; what fails later does not stop the run.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from farm.execution.progress import Progress
from farm.store.place import Root
from farm.store.runs import Run

Report = Callable[[Progress], None]


class Watch:
    """What is told of a run."""

    def __init__(self) -> None:
        self.beginning: list[Callable[[Run, Progress], None]] = []
        self.along: list[Report] = []

    def begin(self, run: Run, progress: Progress) -> None:
        """This run starts now."""
        for tell in self.beginning:
            tell(run, progress)

    def note(self, progress: Progress) -> None:
        """Results have come back."""
        for tell in self.along:
            tell(progress)


@contextmanager
def watched(
    root: Root, metrics_port: int | None, metrics_address: str, annotate: str | None
) -> Iterator[Watch]:
    """Watch the run that begins in the context.

    Arguments:
        root: the store that the run will be in.
        metrics_port: TCP port that serves the run's metrics, 0 for any; None: none.
        metrics_address: where to listen.
        annotate: address of a Grafana that gets an annotation from the run's start to its end; None: none.

    Raises:
        FarmError: the port is in use, the address is not one, or there is no token.
    """
    watch = Watch()
    with ExitStack() as stack:
        if metrics_port is not None:
            from farm.metrics.live import LiveCollector
            from farm.metrics.server import MetricsServer, address_of, warn

            collector = LiveCollector(root)
            server = stack.enter_context(
                MetricsServer(collector, metrics_port, metrics_address, "--metrics-port")
            )
            warn(f"this run's metrics are at {address_of(metrics_address, server.port)}")
            watch.beginning.append(collector.begin)
            watch.along.append(collector.note)
        if annotate is not None:
            from farm.annotate import annotated

            watch.beginning.append(stack.enter_context(annotated(annotate)))
        yield watch
