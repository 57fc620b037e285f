"""Answers that verbs keep in the store."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from farm.store.answers import Answer
    from farm.store.runs import Run

Keep = Annotated[
    bool, typer.Option("--keep", help="Keep the answer in the store: farm report and farm serve show it.")
]


def keep(answer: "Answer", store: str | None, runs: "Sequence[Run]" = ()) -> None:
    """Keep an answer, and say where: in the store that is named, else beside the last of these runs."""
    from farm.store import answers
    from farm.store.place import place_of
    from farm.store.runs import default_root
    from farm.terminal import say

    beside = runs[-1].place.parent.parent if runs and store is None else place_of(store or default_root())
    say(f"kept as {answers.keep(beside, answer)}")


def check(store: str | None) -> None:
    """Look into the store before what takes long.

    Raises:
        StoreError: no answer can be kept there.
    """
    from farm.store import answers
    from farm.store.place import place_of
    from farm.store.runs import default_root

    answers.names(place_of(store or default_root()), answers.KEEP_REMEDY)
