"""From an address to options for ``ray.init``: everything that can be wrong with a cluster is said before."""

import json
import os
import platform
import socket
import subprocess
import sys
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

from farm.errors import ExecutorError

PROBE_SECONDS = 5.0
"""an address that does not answer within this time is unreachable"""

CLIENT = "ray://"
"""how an address of a cluster's client server begins: there the driver's Ray runs on the head"""

REMEDY = "run without --address for a local Ray, or with --executor serial"

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # matches every line: Ray prints other processes' deaths and logs to standard output otherwise
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    # a lost head is reported after seconds, not a minute
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}

LOCAL = {
    # whether a token file exists on this machine must not decide whether a run works
    "RAY_AUTH_MODE": "disabled",
    # everything on 127.0.0.1
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


def options_of(address: str | None) -> dict[str, Any]:
    """Arguments of ``ray.init``. Sets what Ray reads from the environment, so it comes before its import.

    Arguments:
        address: ``host:port`` of a head, ``ray://host:port`` of a client server, ``auto`` for the cluster
            that this machine is part of, None for a Ray of its own.

    Raises:
        ExecutorError: nothing answers there, or it is not a cluster with the same Ray and Python, or it wants
            another token.
    """
    settings = QUIET | (LOCAL if address is None else {"RAY_AUTH_MODE": _auth_mode()})
    os.environ.update({name: value for name, value in settings.items() if name not in os.environ})
    if address is None:
        return {
            "address": "local",
            "include_dashboard": False,
            # Ray complains about a taken port even when it starts no dashboard
            "dashboard_port": _free_port(),
            # trials send kilobytes; Ray would set aside a third of the memory
            "object_store_memory": 80 << 20,
        }
    if address.startswith(CLIENT):
        _connect(address, address.removeprefix(CLIENT))
        return {"address": address}
    where = _own_cluster() if address == "auto" else address
    _connect(address, where)
    check_versions(address, _asked(address, where))
    options: dict[str, Any] = {"address": where}
    host = where.rpartition(":")[0]
    if host.startswith("127."):
        # a cluster on loopback addresses finds its driver only if that takes part under one of them
        options["_node_ip_address"] = host
    return options


def refused(address: str | None, error: Exception) -> ExecutorError:
    """What ``ray.init`` raised, in one line."""
    reason = " ".join(str(error).split())
    where = f"address {address!r}" if address else "a local Ray"
    if type(error).__name__ == "AuthenticationError" or "InvalidAuthToken" in reason:
        return _wrong_token(where)
    return ExecutorError(f"{where}: Ray does not start ({reason[:200]}); {REMEDY}")


def _auth_mode() -> str:
    """With a token if there is one, as ``ray start`` does."""
    token = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return "token" if token or (Path.home() / ".ray" / "auth_token").is_file() else "disabled"


def _own_cluster() -> str:
    """Of the machine that this is: what a job of the cluster is told, or what ``ray start`` left here."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = os.environ.get("RAY_ADDRESS") or canonicalize_bootstrap_address("auto")
    except (OSError, ValueError):
        found = None
    if not found:
        raise ExecutorError(
            "address 'auto': this machine is part of no Ray cluster; name its head, such as head:6379, "
            f"or {REMEDY}"
        )
    return found


def _connect(address: str, where: str) -> None:
    host, colon, port = where.rpartition(":")
    if not colon or not host or not port.isdecimal() or "/" in host:
        raise ExecutorError(
            f"address {address!r}: use host:port of the cluster's head such as head:6379, "
            "ray://host:port, or auto"
        )
    try:
        with closing(socket.create_connection((host, int(port)), timeout=PROBE_SECONDS)):
            pass
    except (OSError, OverflowError) as error:
        raise ExecutorError(f"address {address!r}: nothing answers ({error}); {REMEDY}") from None


def _asked(address: str, where: str) -> dict[str, str]:
    """Versions of the cluster."""
    command = [sys.executable, "-m", "farm.ray.probe", where]
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=2 * PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        found = None
    if found is not None and found.returncode == 0:
        versions: dict[str, str] = json.loads(found.stdout.splitlines()[-1])
        return versions
    if found is not None and "auth" in found.stderr and "token" in found.stderr:
        raise _wrong_token(f"address {address!r}")
    raise ExecutorError(f"address {address!r}: what answers is not the head of a Ray cluster; {REMEDY}")


def _wrong_token(where: str) -> ExecutorError:
    # what Ray says of it stays unsaid: no message may hold a token
    return ExecutorError(
        f"{where}: the cluster does not take this token, or wants one; set RAY_AUTH_MODE=token, and "
        "RAY_AUTH_TOKEN_PATH to a file with the cluster's token"
    )


def check_versions(address: str, cluster: dict[str, str]) -> None:
    """Raise :class:`ExecutorError` for a cluster whose Ray or Python is not the same as here."""
    here = {"Ray": metadata.version("ray"), "Python": platform.python_version()}
    for name, version in cluster.items():
        if version != here[name]:
            raise ExecutorError(
                f"address {address!r}: the cluster has {name} {version}, here is {name} {here[name]}; "
                "use the same on both sides"
            )


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
