"""Answers that were kept in a store, as samples."""

from collections.abc import Callable

from dashboards.answers import ANSWER_METRICS
from farm.errors import StoreError
from farm.metrics.health import Rows
from farm.metrics.results import label_value
from farm.store import answers
from farm.store.answers import Answer
from farm.store.place import Place, Root, place_of

MOST_FIGURES = 5_000
"""series of answers at most: who keeps each answer of a year has to clear up some day"""

_METRICS = {metric.name: metric for metric in ANSWER_METRICS}


class KeptAnswers:
    """The answers of a store, read again only when there are others.

    Arguments:
        warn: told of answers that are left out.
    """

    def __init__(self, root: Root, warn: Callable[[str], None]) -> None:
        self._root = root
        self._warn = warn
        self._files: tuple[str, ...] = ()
        self._rows: Rows = {}

    def rows(self) -> Rows:
        """Samples of all answers that can be read: runs are exposed without them too."""
        store = place_of(self._root)
        try:
            files = answers.names(store)
        except StoreError as error:
            self._warn(str(error))
            files = ()
        if files != self._files:
            self._rows = {}
            self._files = files if self._read(store, files) else ()
        return self._rows

    def _read(self, store: Place, files: tuple[str, ...]) -> bool:
        """Whether all could be read; what could not may be there at the next scrape."""
        figures = 0
        readable = True
        for file in files:
            try:
                [(name, answer)] = answers.read(store, [file]).items()
            except StoreError as error:
                self._warn(str(error))
                readable = False
                continue
            figures += len(answer.figures)
            if figures > MOST_FIGURES:
                self._warn(f"answer {name}: one of more than {MOST_FIGURES} figures; remove old answers")
                break
            self._add(label_value(name), answer)
        return readable

    def _add(self, name: str, answer: Answer) -> None:
        for figure in answer.figures:
            metric = _METRICS.get(figure.metric)
            if metric is None or figure.labels.keys() != set(metric.labels[1:]):
                self._warn(f"answer {name}: metric {figure.metric} is unknown here; a newer farm kept it")
                continue
            # a file has them in the order of the alphabet
            labels = (name, *(label_value(figure.labels[label]) for label in metric.labels[1:]))
            self._rows.setdefault(metric, []).append((labels, figure.value))
