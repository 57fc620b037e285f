"""A connection to a Grafana through grafana-api: token, addresses, retries, refusals as one line.

What grafana-api has no call for is sent through its own ``api``.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import requests
from grafana_api.grafana_api import GrafanaException
from grafana_api.grafana_face import GrafanaFace
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from dashboards.grafana import Json

TOKEN_VARIABLE = "GRAFANA_TOKEN"

RETRIES = 3
BACKOFF_SECONDS = 0.3

_ANSWER_SHOWN = 200
"""characters of a server's answer that an error message repeats"""

_REMEDIES = {
    401: "the token is not accepted; make a new one and set it again",
    403: "the token lacks the permission; give its service account the role Admin",
    404: "no Grafana answers there; check the address and its path",
    409: "something else has that name; rename or remove it on the server",
    412: "it was changed on the server meanwhile; push again",
}


class PublishError(Exception):
    """A Grafana cannot be reached or refuses: one line that says what to do, never the token."""


class AbsentError(PublishError):
    """404: nothing there, which is only an error when writing."""


class Token:
    """A service account token that does not show itself."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "Token(***)"

    def reveal(self) -> str:
        """The token itself, for the header of a request only."""
        return self._secret

    def hide_in(self, text: str) -> str:
        """The text without the token, should a server have echoed it."""
        return text.replace(self._secret, "***")


def read_token(environment: Mapping[str, str], file: Path | None = None) -> Token:
    """The token from a file if one is named, else from ``GRAFANA_TOKEN``.

    Raises:
        PublishError: there is none, or what is there cannot be a token.
    """
    source = f"token file {str(file)!r}" if file else TOKEN_VARIABLE
    try:
        text = file.read_text(encoding="utf-8") if file else environment.get(TOKEN_VARIABLE, "")
    except OSError as error:
        raise PublishError(f"{source}: {error.strerror}; name a readable file that holds the token") from None
    except UnicodeDecodeError:
        raise PublishError(f"{source}: not text; name a file that holds the token alone") from None
    secret = text.strip()
    if not secret:
        raise PublishError(
            f"{source}: empty; set {TOKEN_VARIABLE}, or name a file, with the token of a Grafana service "
            "account of role Admin"
        )
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise PublishError(f"{source}: not a token, for it has blanks or other than ASCII characters in it")
    return Token(secret)


class Connection:
    """A connection to one Grafana. A context manager, for it keeps a session.

    What cannot have reached the server is sent again, and so is what is safe to repeat if the server is
    overloaded or away.

    Arguments:
        url: address of the Grafana, with its path if it does not live at the root.
        token: of a service account that may do what is asked of it.
        timeout_seconds: how long each request may take.
        backoff_seconds: first pause before a request is sent again; the next ones double.

    Raises:
        PublishError: the address is not one; later, any refusal.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        timeout_seconds: float = 10.0,
        backoff_seconds: float = BACKOFF_SECONDS,
    ) -> None:
        host, prefix, protocol = _address(url)
        self.url = f"{protocol}://{host}/{prefix}"
        self._token = token
        self.grafana = GrafanaFace(
            auth=token.reveal(), host=host, url_path_prefix=prefix, protocol=protocol, timeout=timeout_seconds
        )
        session = self.grafana.api.s
        # a redirected POST arrives as a GET, which would look like success
        session.max_redirects = 0
        retry = Retry(
            total=RETRIES,
            read=False,
            backoff_factor=backoff_seconds,
            status_forcelist=(429, 502, 503, 504),
            allowed_methods=("GET", "PUT", "DELETE"),
            raise_on_status=False,
        )
        session.mount(f"{protocol}://", HTTPAdapter(max_retries=retry))

    def __repr__(self) -> str:
        return f"Connection({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the session."""
        self.grafana.api.s.close()

    def find(self, subject: str, call: Callable[[], object]) -> Json | None:
        """What a GET finds, or None if it is not there."""
        try:
            return self.call(subject, call)
        except AbsentError:
            return None

    def call(self, subject: str, call: Callable[[], object]) -> Json:
        """The object that a request is answered with; whatever goes wrong becomes one line.

        Raises:
            PublishError: any refusal.
        """
        answer = self.answer(subject, call)
        if not isinstance(answer, dict):
            raise self._not_a_grafana()
        return answer

    def list_of(self, subject: str, call: Callable[[], object]) -> list[Json]:
        """The list that a request is answered with.

        Raises:
            PublishError: any refusal.
        """
        answer = self.answer(subject, call)
        if not isinstance(answer, list):
            raise self._not_a_grafana()
        return answer

    def answer(self, subject: str, call: Callable[[], object]) -> Any:
        """What a request is answered with, None if it is no JSON."""
        try:
            return call()
        except GrafanaException as error:
            kind = AbsentError if error.status_code == 404 else PublishError
            raise kind(self._refusal(subject, error)) from None
        except requests.TooManyRedirects:
            raise PublishError(f"{self.url}: redirects; give the address that it redirects to") from None
        except requests.Timeout:
            raise PublishError(
                f"{self.url}: no answer in time; is the server busy or the address wrong?"
            ) from None
        except requests.exceptions.SSLError:
            raise PublishError(
                f"{self.url}: its certificate is not trusted; install its authority's or check the address"
            ) from None
        except requests.exceptions.InvalidJSONError:
            return None
        except requests.RequestException:
            raise PublishError(f"{self.url}: cannot be reached; check the address and that it runs") from None

    def _not_a_grafana(self) -> PublishError:
        return PublishError(f"{self.url}: what answers is not a Grafana; check the address and its path")

    def _refusal(self, subject: str, error: GrafanaException) -> str:
        status = error.status_code
        if status >= 500:
            remedy = "the server failed; look into its log, then publish again"
        else:
            remedy = _REMEDIES.get(status, "the server does not take it; its version may be too old")
        said = self._token.hide_in(" ".join(str(error).split()))[:_ANSWER_SHOWN]
        return f"{self.url}: {subject}: {status}: {remedy} (it said: {said})"


def _address(url: str) -> tuple[str, str, str]:
    """Host with port, path prefix, protocol."""
    try:
        parts = urlsplit(url)
        # reading the port checks it
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        # not repeated: whoever slips here may have pasted the token
        raise PublishError("Grafana url: not an address; write it as http://HOST:PORT/PATH")
    if parts.username is not None:
        raise PublishError(f"Grafana url: holds a user; leave it out and set {TOKEN_VARIABLE}")
    path = parts.path.strip("/")
    return parts.netloc, f"{path}/" if path else "", parts.scheme
