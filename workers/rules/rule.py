"""What a rule between fields is."""

from collections.abc import Callable
from typing import NamedTuple

from workers.fields.groups import TrialFields


class Rule(NamedTuple):
    """A rule between fields. It reads only the fields it names, so that a planner can check the
    product of just those axes."""

    fields: tuple[str, ...]
    check: Callable[[TrialFields], None]
