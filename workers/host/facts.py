"""What the machine says about itself: CPU, caches, memory. Read from /proc and /sys, nothing measured."""

import os
import platform
import re
from pathlib import Path
from typing import NamedTuple

CPUS = Path("/sys/devices/system/cpu")
GROUP = Path("/sys/fs/cgroup")
"""of this container, if it is one"""

_ARM_IMPLEMENTERS = {"0x41": "Arm", "0x48": "HiSilicon", "0x43": "Cavium", "0xc0": "Ampere"}
_KIB = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Facts(NamedTuple):
    """One machine. Sizes are bytes; what it does not say is 0 or empty."""

    model: str
    """of the CPU, in the machine's own words"""
    vendor: str
    architecture: str
    """as ``uname -m``"""
    part: str
    """number of an Arm core's design, such as 0xd0c"""
    flags: frozenset[str]
    """features, on x86"""
    cpus: tuple[int, ...]
    """that this process may run on"""
    packages: tuple[int, ...]
    """socket of each of them"""
    line_bytes: int
    page_bytes: int
    l1_bytes: int
    l2_bytes: int
    llc_bytes: int
    """the largest cache beyond level 2"""
    available_bytes: int
    """memory that can be taken without swapping"""
    boot_id: str = ""
    """which machine this is, since it was started: containers on it have that in common"""

    @property
    def hypervisor(self) -> bool:
        """Whether it says that it is a virtual machine."""
        return "hypervisor" in self.flags

    @property
    def slug(self) -> str:
        """A file name for the kind of machine."""
        return re.sub(r"[^a-z0-9]+", "-", self.model.lower()).strip("-") or "machine"


def facts(root: Path = CPUS, proc: Path = Path("/proc"), group: Path = GROUP) -> Facts:
    """Ask this machine; the directories can be others in tests."""
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    described = _text(proc / "cpuinfo")
    caches = _caches(root / f"cpu{cpus[0]}" / "cache")
    return Facts(
        model=_model(described),
        vendor=_field(described, "vendor_id") or _arm_vendor(described),
        architecture=platform.machine(),
        part=_field(described, "CPU part"),
        flags=frozenset(_field(described, "flags").split()),
        cpus=cpus,
        packages=tuple(int(_text(root / f"cpu{cpu}/topology/physical_package_id") or 0) for cpu in cpus),
        line_bytes=max((cache.line_bytes for cache in caches), default=0),
        page_bytes=os.sysconf("SC_PAGESIZE"),
        l1_bytes=_size(caches, 1),
        l2_bytes=_size(caches, 2),
        llc_bytes=max((cache.size_bytes for cache in caches if cache.level > 2), default=0),
        available_bytes=_memory(_text(proc / "meminfo"), group),
        boot_id=_text(proc / "sys/kernel/random/boot_id"),
    )


class _Cache(NamedTuple):
    level: int
    size_bytes: int
    line_bytes: int


def _caches(directory: Path) -> list[_Cache]:
    """Those that hold data."""
    found = []
    for index in sorted(directory.glob("index*")):
        size = re.fullmatch(r"(\d+)([KMG]?)", _text(index / "size"))
        level, line = _text(index / "level"), _text(index / "coherency_line_size")
        if _text(index / "type") not in ("Data", "Unified") or not size or not level.isdecimal():
            continue
        size_bytes = int(size[1]) * _KIB.get(size[2], 1)
        found.append(_Cache(int(level), size_bytes, int(line) if line.isdecimal() else 0))
    return found


def _size(caches: list[_Cache], level: int) -> int:
    return max((cache.size_bytes for cache in caches if cache.level == level), default=0)


def _model(described: str) -> str:
    name = _field(described, "model name") or _field(described, "cpu model") or _field(described, "uarch")
    numbers = [_field(described, key) for key in ("cpu family", "model", "CPU part")]
    # a virtual machine's name often says less than its numbers
    return " ".join([name or platform.machine(), *(number for number in numbers if number)])


def _arm_vendor(described: str) -> str:
    implementer = _field(described, "CPU implementer")
    return _ARM_IMPLEMENTERS.get(implementer, implementer)


def _field(text: str, key: str) -> str:
    found = re.search(rf"^{key}\s*:\s*(.+?)\s*$", text, re.MULTILINE)
    return found[1] if found else ""


def _memory(text: str, group: Path) -> int:
    found = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
    available = int(found[1]) << 10 if found else 0
    limit, used = _text(group / "memory.max"), _text(group / "memory.current")
    if limit.isdecimal() and used.isdecimal():
        return max(0, min(available, int(limit) - int(used)))
    return available


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
