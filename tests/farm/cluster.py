"""Ray clusters for tests: a head and nodes as processes of their own on loopback addresses."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from farm.ray.executor import TASK

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}

FAST = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 4,
}
"""a lost node is noticed after a second, not fifteen"""

START_SECONDS = 60.0
STARTS = 3


class Cluster:
    """A head without CPUs, at ``address``, and nodes by number. Kills only what it has started."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        # what an executor in this process has set is of its own Ray
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = {**inherited, **ENVIRONMENT, **(environment or {})}
        # short: unix sockets have limits
        self._directory = tempfile.mkdtemp(prefix="fr", dir="/tmp")
        self.ip = f"127.0.{os.getpid() % 200 + 1}.2"
        port, self.client_port = _free_ports(2)
        self.address = f"{self.ip}:{port}"
        self.nodes: dict[int, subprocess.Popen[bytes]] = {}
        self._ips: dict[int, str] = {}
        self._drivers: list[subprocess.Popen[str]] = []
        self._last = 0
        self.head = self._start(
            sys.executable,
            *("--head", f"--port={port}", f"--ray-client-server-port={self.client_port}"),
            *("--include-dashboard=false", "--num-cpus=0", f"--temp-dir={self._directory}"),
            f"--system-config={json.dumps(FAST)}",
            ip=self.ip,
        )
        try:
            self._wait(self.head)
        except RuntimeError:
            self.close()
            raise

    def add_node(
        self,
        *options: str,
        python: str = sys.executable,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Start a node, with one CPU unless options say otherwise; returns its number once it is part of the
        cluster."""
        for attempt in range(STARTS):
            self._last += 1
            ip = f"{self.ip.rpartition('.')[0]}.{self._last + 2}"
            where = (f"--address={self.address}", *(options or ("--num-cpus=1",)))
            self.nodes[self._last] = self._start(python, *where, ip=ip, cwd=cwd, environment=environment)
            try:
                self._wait(self.nodes[self._last])
                break
            except RuntimeError:
                # on a busy machine a raylet now and then does not come up
                self.kill_node(self._last)
                if attempt + 1 == STARTS:
                    raise
        return self._last

    def _start(
        self,
        python: str,
        *options: str,
        ip: str,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":
        agent, metrics, runtime = _free_ports(3)
        command = [
            *(python, "-m", "ray.scripts.scripts", "start", "--block", *options),
            *(f"--node-ip-address={ip}", "--object-store-memory=80000000", "--disable-usage-stats"),
            *("--min-worker-port=0", "--max-worker-port=0"),
            *(f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"),
            f"--runtime-env-agent-port={runtime}",
        ]
        with self._said(ip).open("wb") as said:
            process = subprocess.Popen(
                command,
                env={**self.environment, **(environment or {})},
                cwd=cwd,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._ips[process.pid] = ip
        return process

    def _said(self, ip: str) -> Path:
        return Path(self._directory) / f"{ip}.log"

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        until = time.monotonic() + START_SECONDS
        said = self._said(self._ips[process.pid])
        while "Ray runtime started" not in said.read_text():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"ray start: {said.read_text()}")
            time.sleep(0.05)

    def raylet(self, number: int) -> psutil.Process:
        """The raylet of a node."""
        return next(p for p in self._below(self.nodes[number]) if p.name() == "raylet")

    def workers(self, number: int) -> list[psutil.Process]:
        """Processes of a node that run a task now."""
        return [p for p in self._below(self.nodes[number]) if _title(p).startswith(f"ray::{TASK}")]

    def farm(self, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
        """The command line in a process of its own, as a user of this cluster has it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "farm.cli", *arguments],
            env=self.environment,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._drivers.append(process)
        return process

    def kill_node(self, number: int) -> None:
        """Kill a node as a power cut does."""
        self._kill(self.nodes.pop(number))

    def kill_head(self) -> None:
        """Kill the head likewise."""
        self._kill(self.head)

    def _kill(self, process: "subprocess.Popen[bytes]") -> None:
        for child in self._below(process):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.wait()

    def close(self) -> None:
        """End everything, also what a failed test or start left."""
        for driver in self._drivers:
            if driver.poll() is None:
                driver.kill()
                driver.communicate()
        for number in list(self.nodes):
            self.kill_node(number)
        self.kill_head()
        for process in psutil.process_iter():
            # Ray names the session's directory to all that it starts
            if self._directory in _title(process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    @staticmethod
    def _below(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(process.pid).children(recursive=True)
        return []


@contextlib.contextmanager
def cluster(nodes: int, environment: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """A cluster with so many nodes of one CPU; it ends with the block."""
    found = Cluster(environment)
    try:
        for _ in range(nodes):
            found.add_node()
        yield found
    finally:
        found.close()


def has_batch(process: psutil.Process) -> bool:
    """Whether it is a worker with a batch whose results are not on their way yet."""
    return _title(process).startswith(f"ray::{TASK}")


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return " ".join(process.cmdline())
    return ""


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_ones:
        probes = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
