"""Sweep files that reproduce a regime, so that its remedy can be tried here first."""

from farm.answers.doctor.regimes import Regime

_SLOW_READER = """\
traffic.kind = "bursts"
traffic.rate_pps = 200_000
app.reader = "slow"
app.socket_bytes = 4_194_304
"""

_BODIES: dict[Regime, tuple[str, str]] = {
    "direct": ('app.reader = "drop"\ntraffic.rate_pps = 400_000\n', "pool.size = [64, 256, 1024]"),
    "through the ring": (
        'app.reader = "fast"\napp.reader_cpu = "other"\ntraffic.rate_pps = 400_000\n',
        "pool.size = [64, 256, 1024]",
    ),
    "ring overflow": (_SLOW_READER, "pool.size = [64, 256, 1024, 4096]"),
    "node mismatch": (
        'numa.nodes = 2\nlife.event = "irq-moved"\nlife.at_ms = 20\ntraffic.rate_pps = 400_000\n'
        'app.reader = "drop"\n',
        'driver.pool_node = ["device", "local", "update"]',
    ),
    "other references": (
        'driver.model = "split"\nkernel = "6.1"\n' + _SLOW_READER,
        "pool.recycle = [false, true]",
    ),
    "not recycled": (
        'app.reader = "fast"\ntraffic.rate_pps = 400_000\n',
        "pool.recycle = [false, true]",
    ),
    "pages held": (
        'app.reader = "stalled"\napp.stall_ms = 40\napp.stall_every_ms = 100\n'
        "app.socket_bytes = 16_777_216\ntraffic.rate_pps = 200_000\n",
        "app.stall_ms = [10, 40, 80]",
    ),
    "long hold": (
        'life.event = "down"\nlife.at_ms = 50\n' + _SLOW_READER,
        "app.work_ns = [2_000, 8_000, 32_000]",
    ),
}
_BODIES["draining"] = _BODIES["leak or stall"] = _BODIES["shut down"] = _BODIES["long hold"]


def sweep_of(regime: Regime, arch: str) -> str:
    """A sweep file of a few short trials in which pools are in this regime, beside its remedy.

    Args:
        arch: a profile, bundled or a file.

    Returns:
        TOML; empty where there is nothing to reproduce.
    """
    if regime not in _BODIES:
        return ""
    fixed, axis = _BODIES[regime]
    name = axis.partition(" ")[0]
    kept = "".join(line + "\n" for line in fixed.splitlines() if not line.startswith(f"{name} "))
    return (
        f'# pools in the regime "{regime}", and what changes it\n'
        f'name = "reproduce-{regime.replace(" ", "-")}"\n'
        f"seeds = 2\n\n[fixed]\narch = {_quoted(arch)}\nduration_ms = 100\n{kept}\n[grid]\n{axis}\n"
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
