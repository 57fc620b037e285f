"""Ending a trial from another thread. Nothing here looks at a clock: when is for others to say."""

from typing import Any


class Stopper:
    """Handed to :func:`workers.run_trial`; the event loop looks at it before each step.

    The compiled loop runs without the interpreter's lock, so another thread of the process can ask.
    """

    def __init__(self) -> None:
        self.asked = False
        self._machine: Any = None

    def ask(self) -> None:
        """End the trial; one that has not begun ends before its first step."""
        self.asked = True
        if self._machine is not None:
            self._machine.stopped = 1

    def watch(self, machine: Any) -> None:
        """A trial begins, whose :data:`workers.state.MACHINE` record this is."""
        self._machine = machine
        # whoever asks sets the one and looks at the other in the opposite order, so that none is missed
        if self.asked:
            machine.stopped = 1
