"""Which conclusions hang on constants that nobody has measured.

Every constant whose certainty is ``recalled`` or ``estimate`` is set to each end of its range, one at a time,
on the architecture that it belongs to, and what the cases say is worked out again. A conclusion is the
verdict of a scored row, the sign of a comparison, or the value that is best in a choice.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import workers
from farm.validation import validate
from farm.validation.cases import NEUTRAL, CaseSet
from farm.validation.validate import Prediction, Record
from pool_impl.layout import PCP_CAPACITY
from workers.config import TrialConfig
from workers.profiles import arch
from workers.profiles.parameters import Parameter

UNCERTAIN = ("recalled", "estimate")
"""certainties of constants that are varied"""


MOST = {"pcp_high_pages": PCP_CAPACITY - 1}
"""beyond this the model has no room; a range that goes on is cut off here"""


class Effect(NamedTuple):
    """A conclusion that another value of one constant changes."""

    arch: str
    constant: Parameter
    at: float
    """the end of its range that does it"""
    conclusion: str
    """name of the case or choice, and what it is about: verdict, sign, or a field"""
    before: str
    after: str


class Sensitivity(NamedTuple):
    """What varying constants one at a time changed."""

    constants: int
    """that were varied, over all architectures"""
    conclusions: int
    """that could change"""
    trials: int
    effects: tuple[Effect, ...]


class _Task(NamedTuple):
    """One constant at one end of its range, and the trials that it may change."""

    arch: str
    parameter: str
    at: float
    trials: tuple[TrialConfig, ...]
    measures: frozenset[str]


def uncertain(name: str) -> list[Parameter]:
    """The constants of an architecture that are varied."""
    parameters = arch.load(name).parameters.values()
    return [p for p in parameters if p.certainty in UNCERTAIN and p.low < p.high]


def effects_of(known: CaseSet, processes: int | None = None) -> Sensitivity:
    """Vary the uncertain constants of all architectures that occur in cases and choices.

    Args:
        processes: that trials run in; by default one for each CPU.
    """
    trials = validate.trials(CaseSet(known.cases, (), ()))
    trials += [trial for choice in known.choices for trial in choice.trials]
    trials = list(dict.fromkeys(trials))
    measures = frozenset(
        [name for case in known.cases for name in (*case.measures, *case.table.share_of)]
        + [choice.table.measure for choice in known.choices]
    )
    tasks = list(_tasks(trials, measures))
    records = validate.run(trials)
    before = _conclusions(known, records)
    found = []
    # spawned: a forked process would inherit threads of compiled code and libraries in unknown states
    with ProcessPoolExecutor(processes or os.cpu_count(), get_context("spawn")) as pool:
        for task, varied in zip(tasks, pool.map(_run, tasks, chunksize=4), strict=True):
            after = _conclusions(known, {**records, **dict(zip(task.trials, varied, strict=True))})
            constant = arch.load(task.arch).parameters[task.parameter]
            found += [
                Effect(task.arch, constant, task.at, conclusion, before[conclusion], after[conclusion])
                for conclusion in before
                if before[conclusion] != after[conclusion]
            ]
    constants = {(task.arch, task.parameter) for task in tasks}
    return Sensitivity(len(constants), len(before), sum(len(task.trials) for task in tasks), tuple(found))


def _tasks(trials: Sequence[TrialConfig], measures: frozenset[str]) -> Iterable[_Task]:
    for name in dict.fromkeys(trial.arch for trial in trials):
        its = tuple(trial for trial in trials if trial.arch == name)
        for constant in uncertain(name):
            for at in (constant.low, min(constant.high, MOST.get(constant.name, constant.high))):
                if at != constant.value:
                    yield _Task(name, constant.name, at, its, measures)


def _run(task: _Task) -> list[Record]:
    """The trials of a task, their records cut down to what is asked for; in a process of its own."""
    found: list[Record] = []
    with arch.varied(task.arch, {task.parameter: task.at}) as name:
        for trial in task.trials:
            record = workers.run_trial(trial.model_copy(update={"arch": name}))
            found.append({measure: record[measure] for measure in task.measures})
    return found


def _conclusions(known: CaseSet, records: Mapping[TrialConfig, Record]) -> dict[str, str]:
    """Everything that is concluded, in words."""
    found: dict[str, str] = {}
    for prediction in validate.predictions(known.cases, records):
        if prediction.case.table.scored:
            found[f"{prediction.case.name} verdict"] = prediction.verdict
        if (sign := _sign(prediction)) is not None:
            found[f"{prediction.case.name} sign"] = sign
    for choice in known.choices:
        name = f"{choice.table.name}, {choice.arch}: {choice.table.axis}"
        found[name] = str(validate.best(choice, records))
    return found


def _sign(prediction: Prediction) -> str | None:
    neutral = NEUTRAL[prediction.case.table.compare]
    if neutral is None or prediction.predicted is None:
        return None
    if prediction.predicted == neutral:
        return "none"
    return "above" if prediction.predicted > neutral else "below"
