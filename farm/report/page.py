"""A report's document as one HTML file that needs nothing else.

What comes from a run enters the page as JSON that the page's script reads, never as HTML. The page says
which scripts may run by their hashes, and that nothing may be fetched.
"""

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from farm.errors import FarmError

SCRIPTS = ("model.js", "tables.js", "charts.js", "sections.js", "main.js")
"""the page's own, in the order in which each uses those before"""


def render(document: Mapping[str, Any], *, refresh_seconds: int = 0) -> str:
    """The page of a document of :func:`farm.report.data.report`.

    Arguments:
        refresh_seconds: how often the page asks the server that it came from for a newer document; 0 never.
    """
    page, style, scripts, hashes = _parts()
    # a page that is served may ask its own server, a file nobody
    connect = "connect-src 'self'; " if refresh_seconds else ""
    policy = (
        f"default-src 'none'; {connect}script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return page.substitute(
        policy=html.escape(policy, quote=False),
        title=html.escape(f"{document['sweep']} {document['run']}"),
        refresh=refresh_seconds,
        style=style,
        data=script_json(document),
        scripts=scripts,
    )


def script_json(document: Mapping[str, Any]) -> str:
    """JSON that a script element can hold: nothing in it ends the element or starts a comment."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def write(path: Path, text: str) -> None:
    """Write a page, all of it or nothing.

    Raises:
        FarmError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a directory")
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        with suppress(OSError, ValueError):
            aside.unlink()
        raise FarmError(f"--output {str(path)!r}: {reason}; name a file that can be written") from None


@cache
def _parts() -> tuple[Template, str, str, str]:
    """The frame, the style, all script elements, and their hashes as a content security policy has them."""
    from plotly.offline import get_plotlyjs

    here = resources.files("farm.report")
    texts = [get_plotlyjs(), *((here / name).read_text(encoding="utf-8") for name in SCRIPTS)]
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return (
        Template((here / "page.html").read_text(encoding="utf-8")),
        (here / "page.css").read_text(encoding="utf-8"),
        "\n".join(f"<script>{text}</script>" for text in texts),
        " ".join(f"'sha256-{one}'" for one in hashes),
    )
