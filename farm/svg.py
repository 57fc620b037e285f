"""Pictures as SVG: a figure of matplotlib that is the same bytes for the same content."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farm.errors import OutputError


def check(path: Path) -> None:
    """Refuse a file that :func:`drawn` could not write, before anything is computed.

    Raises:
        OutputError: not an SVG file, or no directory for it.
    """
    if path.suffix != ".svg":
        raise OutputError(f"--plot {path}: the picture is SVG; name a file that ends in .svg")
    if not path.parent.is_dir():
        raise OutputError(f"--plot {path}: no such directory; name one that exists")


@contextmanager
def drawn(path: Path, inches: tuple[float, float], panels: int = 1) -> Iterator[Any]:
    """The axes of so many panels side by side, to draw on; the picture is written afterwards.

    Raises:
        OutputError: it cannot be written.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "page-pool-farm", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = pyplot.subplots(1, panels, figsize=inches, layout="constrained")
        try:
            yield axes
            figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        except OSError as error:
            raise OutputError(f"--plot {path}: {error.strerror}; name a file that can be written") from None
        finally:
            pyplot.close(figure)
