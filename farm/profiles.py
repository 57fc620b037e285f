"""Profiles side by side: how certain their numbers are, where two differ, and which are unusable."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from workers.errors import ProfileError
from workers.profiles import arch
from workers.profiles.parameters import CERTAINTIES, Parameter

MARKS = {"verified": "", "measured": "", "derived": "", "secondary": "~", "recalled": "?", "estimate": "??"}
"""in front of a certainty: what was not measured on this machine, nor follows from what was"""


class Difference(NamedTuple):
    """One parameter that two profiles have different values of."""

    first: Parameter
    second: Parameter

    @property
    def ratio(self) -> float | None:
        """Second to first; None where one of them is 0."""
        if self.first.value == 0 or self.second.value == 0:
            return None
        return self.second.value / self.first.value

    @property
    def size(self) -> float:
        """How far apart they are, whichever is larger: logarithm of the ratio; infinite against 0."""
        return math.inf if self.ratio is None else abs(math.log(self.ratio))


def counts(profile: arch.Profile) -> dict[str, int]:
    """Numbers of a profile by certainty, the best first."""
    found = Counter(parameter.certainty for parameter in profile.parameters.values())
    return {certainty: found[certainty] for certainty in CERTAINTIES}


def estimates(names: Iterable[str]) -> dict[str, int]:
    """Estimates among the numbers of each architecture; files that are gone are left out."""
    return {name: counts(arch.load(name))["estimate"] for name in names if not _problem(name)}


def differences(first: arch.Profile, second: arch.Profile) -> list[Difference]:
    """Parameters whose values differ, the largest ratio first; what is 0 on one side ahead of all."""
    pairs = [Difference(p, second.parameters[p.name]) for p in first.parameters.values()]
    # rounded, so that what differs alike stays in the order of the catalogue
    return sorted((p for p in pairs if p.first.value != p.second.value), key=lambda p: -round(p.size, 2))


def number(value: float) -> str:
    """A value for reading: sizes and counts with all their digits."""
    return f"{value:.0f}" if value == int(value) else f"{value:g}"


def problems(names: Iterable[str]) -> dict[str, str]:
    """What is wrong with each profile, in one line; empty if nothing is."""
    return {name: _problem(name) for name in names}


def _problem(name: str) -> str:
    try:
        arch.load(name)
    except ProfileError as error:
        return str(error)
    return ""
