"""One trial from configuration to record."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pool_impl.jit import entry
from workers import audit, loop_trial, variants
from workers.arrivals import capture
from workers.arrivals.traffic import PS_PER_MS
from workers.assemble import captured
from workers.config import TrialConfig
from workers.errors import ConfigError, StoppedError
from workers.fields.derived import keeps_to_windows, most_packets_per_second
from workers.fields.groups import KERNEL_VARIANT, NIC_WORKLOAD, Value
from workers.loop import engine
from workers.loop.lifecycle import MEASURE, apply, changes
from workers.machine import checked_variant
from workers.model import MODEL_DIGEST
from workers.profiles import arch
from workers.record import Record, counts, record_of
from workers.state import Trial
from workers.stopper import Stopper
from workers.template import new_trial


class Input(NamedTuple):
    """A file that a trial reads, by content."""

    name: str
    """as the configuration names it"""
    sha256: str
    """of :meth:`content`"""
    path: Path

    def content(self) -> bytes:
        """What has to be kept to run the trial elsewhere: the bytes of a capture or variant, a profile with
        its parents resolved."""
        if self.path.suffix == ".toml":
            return arch.load(str(self.path)).canonical.encode()
        return self.path.read_bytes()


def inputs(config: TrialConfig) -> tuple[Input, ...]:
    """The files whose content decides a trial's record: the profile, the variant unless it is the
    kernel's, and the capture if one is replayed.

    Raises:
        ProfileError, ConfigError, CaptureError: a file is missing or unusable.
    """
    profile = arch.load(config.arch)
    found = [Input(config.arch, profile.digest, profile.path)]
    written = variants.source(config.pool.variant)
    if written is not None:
        checked_variant(config)
        found.append(Input(config.pool.variant, written.sha256, written.path))
    if config.traffic.kind == "capture":
        name = config.traffic.capture
        captured(config)
        path = capture.resolve(name)
        found.append(Input(name, capture.digest(path), path))
    return tuple(found)


def locate(config: TrialConfig, directory: Path, sha256: Mapping[str, str]) -> TrialConfig:
    """The same trial, reading its inputs from a directory that holds them by SHA-256.

    Args:
        directory: has a file for each input, named by its digest.
        sha256: digest by the name that the configuration uses.
    """
    fields = config.to_fields()
    for name in ("arch", "traffic.capture"):
        if fields[name] in sha256:
            fields[name] = str(directory / sha256[str(fields[name])])
    variant = config.pool.variant
    if variant in sha256:
        fields["pool.variant"] = variants.stored_name(variant, directory / sha256[variant])
    return TrialConfig.unchecked(fields)


def trial_id(config: TrialConfig) -> str:
    """Hash of all that decides the record: resolved fields, content of the inputs, model digest; 32 hex
    digits. File names are not part of it.

    Raises:
        ProfileError, ConfigError, CaptureError: a file is missing or unusable.
    """
    fields = config.to_fields()
    content = {entry.name: entry.sha256 for entry in inputs(config)}
    fields["arch"] = content[config.arch]
    fields["pool.variant"] = variants.load(config.pool.variant).identity
    if config.traffic.kind == "capture":
        fields["traffic.capture"] = content[config.traffic.capture]
    resolved = json.dumps({"model": MODEL_DIGEST, "fields": fields}, sort_keys=True)
    return hashlib.sha256(resolved.encode()).hexdigest()[:32]


def expected_packets(config: TrialConfig) -> int:
    """About how many packets a trial will simulate, for estimates."""
    if config.workload != NIC_WORKLOAD:
        return loop_trial.TURNS
    traffic = config.traffic
    if traffic.kind == "capture":
        arrivals = captured(config).arrival_ns
        until_ns = config.duration_ms * 10**6 * traffic.speed
        pass_ns = int(arrivals[-1]) * len(arrivals) / max(1, len(arrivals) - 1)
        passes = min(traffic.loops - 1, int(until_ns / pass_ns)) if pass_ns else 0
        return passes * len(arrivals) + int(np.searchsorted(arrivals, until_ns - passes * pass_ns))
    rate = 5_000_000 if traffic.kind == "saturation" else traffic.rate_pps
    if keeps_to_windows(config):
        rate = most_packets_per_second(config)
    if traffic.kind == "ramp":
        rate = (traffic.rate_pps + traffic.ramp_to_pps) // 2
    return rate * config.duration_ms // 1000


def run_trial(config: TrialConfig, stopper: Stopper | None = None, *, alone: bool = False) -> Record:
    """Simulate one trial.

    Args:
        config: checked, as :meth:`TrialConfig.from_fields` gives it.
        stopper: with which another thread can end it.
        alone: no other seed of its cell is to be run here; saves keeping what they would have in common. The
            record is the same.

    Returns:
        Every measure of the catalogue, in its order. The same configuration, inputs and model digest
        give the same record on any machine.

    Raises:
        TrialError: an input is unusable, or the books of the trial do not balance.
        StoppedError: the stopper was asked to end it.
    """
    if config.workload != NIC_WORKLOAD:
        return loop_trial.run(config)
    trial = new_trial(config, alone=alone)
    if stopper is not None:
        stopper.watch(trial.machine)
    end_ps = int(trial.nic.end_ps)
    warmup_ps = config.warmup_ms * PS_PER_MS
    if warmup_ps >= end_ps:
        raise ConfigError(
            "warmup_ms",
            config.warmup_ms,
            f"the capture ends after {end_ps / PS_PER_MS:.3g} ms at traffic.speed = "
            f"{config.traffic.speed:g}; lower one of them",
        )
    trial.tally.measure_from_ps = warmup_ps
    code = variants.load(config.pool.variant).code
    for change in changes(config):
        if change.at_ps >= end_ps:
            break
        _loop(code)(trial, change.at_ps)
        if change.code == MEASURE:
            before = counts(trial)
        else:
            _apply(code)(trial, change.code, change.at_ps)
    _loop(code)(trial, end_ps)
    if trial.machine.stopped:
        raise StoppedError("ended before its time")
    queued = audit.check(trial)
    return record_of(trial, before, end_ps - warmup_ps, queued)


def prepare(variant: str = KERNEL_VARIANT, nodes: int = 1, layers: bool = False) -> None:
    """Compile the loop for a variant, for one memory node or for several, or with an IOMMU or bounce buffers
    (:class:`workers.fields.derived.Loop`), or load it from the code cache.

    Raises:
        ConfigError: there is no such variant, or it is unusable.
    """
    fields: dict[str, Value] = {"pool.variant": variant, "numa.nodes": nodes, "machine.swiotlb": layers}
    trial = new_trial(TrialConfig.unchecked(fields))
    _loop(variants.load(variant).code)(trial, 0)


@cache
def _loop(code: str) -> Callable[[Trial, int], None]:
    """The compiled loop; that of a variant is cached in a place of its own, since whoever reads an index of
    cached code needs every class that is named in it."""
    return entry(_cached_under(code))(_steps)


@cache
def _apply(code: str) -> Callable[[Trial, int, int], None]:
    """The compiled changes of a device's life, likewise; most trials have none."""
    return entry(_cached_under(code))(apply)


def _cached_under(code: str) -> str:
    return f"{MODEL_DIGEST}-{code}" if code else MODEL_DIGEST


def _steps(trial: Trial, until_ps: int) -> None:
    engine.run(trial, until_ps)


_run = _loop("")
"""the loop for the kernel's own pool"""
