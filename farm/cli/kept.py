"""Answers that verbs keep in the store."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from farm.store.answers import Answer

Keep = Annotated[
    bool, typer.Option("--keep", help="Keep the answer in the store: farm report and farm serve show it.")
]


def keep(answer: "Answer", store: str | None) -> None:
    """Keep an answer, and say where."""
    from farm.store import answers
    from farm.store.place import place_of
    from farm.store.runs import default_root
    from farm.terminal import say

    say(f"kept as {answers.keep(place_of(store or default_root()), answer)}")
