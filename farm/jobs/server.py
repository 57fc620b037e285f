"""The job server of a Ray cluster, over its HTTP API; errors are the farm's own, in one line.

Ray's client needs ``ray[default]`` on this side too, which the extra ``cluster`` brings. A token is read from
a file or ``$RAY_AUTH_TOKEN``, sent in a header, and never printed.
"""

import asyncio
import importlib.util
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from farm.errors import ExecutorError

TOKEN_VARIABLE = "RAY_AUTH_TOKEN"

PROBE_SECONDS = 5.0
"""an address that does not answer within this time is unreachable"""

ANSWER_SECONDS = 120.0
"""for one answer; a bundle of the largest size has to arrive in this time"""

_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""loggers of Ray that announce each upload and the end of each log"""

STOP = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "20"}
"""a job is stopped as by Ctrl-C, upon which a run stores what has come back; on the default, SIGTERM, Ray
ends the driver at once"""

_ENDED = ("SUCCEEDED", "STOPPED", "FAILED")


class Job(NamedTuple):
    """A job as its server knows it."""

    id: str
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED"""
    exit_code: int | None
    message: str
    metadata: Mapping[str, str]
    started_ms: int
    """since 1970; 0 before it started"""

    @property
    def ended(self) -> bool:
        """Whether it will do nothing more."""
        return self.status in _ENDED


class JobServer:
    """The job server at ``http://HEAD:8265``.

    Args:
        token_file: holds the token of a cluster that asks for one; default ``$RAY_AUTH_TOKEN``.

    Raises:
        ExecutorError: the address is malformed, nothing or something else answers there, or the token is
            refused.
    """

    def __init__(self, address: str, token_file: Path | None = None) -> None:
        self._address = _checked(address)
        headers = _headers(token_file)
        self._secret = headers.get("Authorization", "Bearer ").removeprefix("Bearer ")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # without ray[default] Ray's client is importable, and fails when it is used
        if importlib.util.find_spec("aiohttp") is None:
            raise ExecutorError("ray[default] is not installed here; pip install 'page-pool-farm[cluster]'")
        from ray.job_submission import JobSubmissionClient

        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)

        class Client(JobSubmissionClient):  # type: ignore[misc] # Ray ships no types
            def _do_request(self, *arguments: Any, **options: Any) -> Any:
                return super()._do_request(*arguments, timeout=ANSWER_SECONDS, **options)

        with self._answers(), _without_ray_address():
            self._client = Client(self._address, headers=headers)
        self.ray_version: str = self._client._server_ray_version or ""

    def jobs(self) -> list[Job]:
        """Every job that the server remembers, in the order of their start."""
        with self._answers():
            found = self._client.list_jobs()
        jobs = [_job(one) for one in found if one.submission_id]
        return sorted(jobs, key=lambda job: (job.started_ms, job.id))

    def job(self, job_id: str) -> Job:
        """One job as it is now."""
        with self._answers():
            return _job(self._client.get_job_info(job_id))

    def submit(
        self, job_id: str, command: str, metadata: Mapping[str, str], directory: Path | None = None
    ) -> None:
        """Start a job.

        Args:
            command: for a shell on the head.
            directory: travels with it, and is its working directory there.
        """
        env: dict[str, Any] = {"env_vars": STOP} | ({"working_dir": str(directory)} if directory else {})
        with self._answers():
            self._client.submit_job(
                entrypoint=command, submission_id=job_id, metadata=dict(metadata), runtime_env=env
            )

    def stop(self, job_id: str) -> None:
        """Ask a job to end."""
        with self._answers():
            self._client.stop_job(job_id)

    def forget(self, job_id: str) -> None:
        """Remove a job that has ended from the server's list."""
        with self._answers():
            self._client.delete_job(job_id)

    def log(self, job_id: str) -> str:
        """All that a job has printed."""
        with self._answers():
            text: str = self._client.get_job_logs(job_id)
        return text

    def follow(self, job_id: str) -> Iterator[str]:
        """What a job prints, piece by piece, until it ends."""
        pieces = self._client.tail_job_logs(job_id)
        with closing(asyncio.new_event_loop()) as loop, self._answers():
            while True:
                try:
                    yield loop.run_until_complete(anext(pieces))
                except StopAsyncIteration:
                    return

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Translate what Ray's client raises."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError:
            raise ExecutorError(
                f"head {self._address}: asks for a token, and none or another one was given; set "
                f"{TOKEN_VARIABLE}, or name a file that holds it with --token-file"
            ) from None
        except (ConnectionError, requests.exceptions.RequestException) as error:
            what = type(error).__name__
            raise ExecutorError(
                f"head {self._address}: no answer of a job server ({what}); {_REMEDY}"
            ) from None
        except (RuntimeError, ValueError, KeyError) as error:
            # the server's tracebacks end with what went wrong
            text = str(error)
            if self._secret:
                # should a server echo it
                text = text.replace(self._secret, "***")
            lines = [line for line in text.splitlines() if line.strip()]
            reason = " ".join(lines[-1].split())[:200] if lines else type(error).__name__
            raise ExecutorError(f"head {self._address}: refuses ({reason})") from None


def _job(details: Any) -> Job:
    return Job(
        details.submission_id,
        str(details.status),
        details.driver_exit_code,
        details.message or "",
        details.metadata or {},
        details.start_time or 0,
    )


_REMEDY = "name the head as http://HOST:8265, and see that its dashboard is reachable from here"


def _checked(address: str) -> str:
    """The address, if it is one and something listens there."""
    wrong = ExecutorError(f"address {address!r}: write http://HOST:8265, the head's dashboard and job server")
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise wrong
    try:
        with closing(socket.create_connection((parts.hostname, port), timeout=PROBE_SECONDS)):
            pass
    except (OSError, UnicodeError) as error:
        raise ExecutorError(f"head {address}: nothing answers ({error}); {_REMEDY}") from None
    return address.rstrip("/")


def _headers(token_file: Path | None) -> dict[str, str]:
    """With the token if there is one. Where Ray is told to use tokens itself, it finds its own."""
    source = f"token file {str(token_file)!r}" if token_file else TOKEN_VARIABLE
    try:
        text = token_file.read_text() if token_file else os.environ.get(TOKEN_VARIABLE, "")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise ExecutorError(f"{source}: {reason}; name a file that holds the token alone") from None
    token = text.strip()
    if not token:
        if token_file:
            raise ExecutorError(f"{source}: empty; name a file that holds the token alone")
        return {}
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ExecutorError(f"{source}: not a token, for it has blanks or other than ASCII characters in it")
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def _without_ray_address() -> Iterator[None]:
    """Ray's client prefers these variables to the address that it is given."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
