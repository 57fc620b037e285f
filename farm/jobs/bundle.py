"""What travels with a submitted run: the sweep resolved, and each file that its trials read, by content.

    <directory>/bundle.json         sweep, names and digests of inputs, model digest, versions, name of run
                inputs/<sha256>     profiles with their parents resolved, captures, variants

A bundle is complete: nothing is read from the submitting machine later. It holds data and the variants of the
user's own, never the farm's code, which every node has installed.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm import sweep as sweeps
from farm.errors import FarmError, SweepError
from farm.execution.batch import versions
from farm.plan import Plan
from workers.errors import TrialError

if TYPE_CHECKING:
    from workers import Input

FORMAT = 1
"""version of the layout above"""

MOST_BYTES = 64 << 20
"""of all inputs: Ray's job server takes packages of at most 100 MiB, and keeps them in the head's memory"""

RUN_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,80}")
"""a run's directory, and never a path"""

_NAME = "bundle.json"


@dataclass(frozen=True)
class Head:
    """A bundle without the content of its inputs."""

    sweep_toml: str
    """the resolved sweep"""
    inputs: Mapping[str, str]
    """SHA-256 by the name that the sweep uses"""
    model_digest: str
    versions: str
    """JSON: Python and the packages of the submitting machine"""
    run: str
    """the name for the run if the store has none of the same content; empty for a name of its own"""

    @property
    def digest(self) -> str:
        """See :func:`content_digest`."""
        return content_digest(self.sweep_toml, self.inputs, self.model_digest)


def content_digest(sweep_toml: str, inputs: Mapping[str, str], model_digest: str) -> str:
    """12 hex digits that are the same where the same trials would run: sweep, content of the inputs and
    model. The name of a submitted run ends with the first of them, see :func:`tail`."""
    content = {"sweep": sweep_toml, "inputs": dict(inputs), "model": model_digest}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def tail(digest: str) -> str:
    """What the name of a run of this content ends with."""
    return digest[:4]


class Bundle:
    """A sweep with its inputs, ready to be run anywhere."""

    def __init__(self, head: Head, contents: Mapping[str, bytes]) -> None:
        self.head = head
        self._contents = contents

    @classmethod
    def of(cls, plan: Plan) -> "Bundle":
        """Bundle a plan with the files that it names.

        Raises:
            SweepError: the inputs are too large to travel.
            workers.errors.TrialError: an input is missing or malformed.
        """
        import workers

        found = plan.inputs()
        contents = {one.sha256: one.content() for one in found.values()}
        size = sum(map(len, contents.values()))
        if size > MOST_BYTES:
            largest = max(found.values(), key=lambda one: len(contents[one.sha256]))
            raise SweepError(
                f"sweep {plan.sweep.name!r}: its inputs are {size >> 20} MiB, more than the "
                f"{MOST_BYTES >> 20} that travel with a job, most of it {largest.name!r}; put that on a path "
                "that the nodes share and start the run there with farm drive"
            )
        digests = {name: one.sha256 for name, one in found.items()}
        head = Head(plan.sweep.to_toml(), digests, workers.model_digest(), versions(), "")
        return cls(head, contents)

    def for_run(self, name: str) -> "Bundle":
        """The same, for a run of this name."""
        return Bundle(replace(self.head, run=name), self._contents)

    def write(self, directory: Path) -> None:
        """Lay it out in an empty directory."""
        (directory / "inputs").mkdir()
        for sha256, content in self._contents.items():
            (directory / "inputs" / sha256).write_bytes(content)
        text = json.dumps({"format": FORMAT, **asdict(self.head)}, sort_keys=True, indent=1)
        (directory / _NAME).write_text(text)


class BundledPlan(Plan):
    """The plan of a bundle in a directory: its inputs are files there, whatever the sweep names.

    Raises:
        SweepError: what lies there is no bundle of this version, or damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.head = _head(directory)
        try:
            super().__init__(sweeps.parse(self.head.sweep_toml, _NAME))
        except (FarmError, TrialError) as error:
            raise SweepError(f"bundle {str(directory)!r}: {error}") from None

    def inputs(self) -> "dict[str, Input]":
        """The files of the bundle by the names that the sweep uses.

        Raises:
            SweepError: one is missing, or is not what its name says.
        """
        from workers import Input

        found = {}
        for name, sha256 in self.head.inputs.items():
            path = self.directory / "inputs" / sha256
            try:
                content = path.read_bytes()
            except OSError as error:
                raise SweepError(f"bundle: input {name!r}: {error.strerror}; submit again") from None
            if hashlib.sha256(content).hexdigest() != sha256:
                raise SweepError(f"bundle: input {name!r} is not what was submitted; submit again")
            found[name] = Input(name, sha256, path)
        return found


def _head(directory: Path) -> Head:
    path = directory / _NAME
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        if found.pop("format") != FORMAT:
            raise SweepError(f"{path}: of another version of the farm; install the same on both sides")
        head = Head(**found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SweepError(f"{path}: no bundle ({' '.join(str(error).split())}); submit again") from None
    if head.run and not RUN_NAME.fullmatch(head.run):
        raise SweepError(f"{path}: run = {head.run!r}: not the name of a run; submit again")
    return head
