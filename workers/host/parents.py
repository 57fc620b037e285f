"""Which bundled profile is nearest to a machine: its vendor's, newest features first."""

from workers.errors import ProfileError
from workers.host.facts import Facts
from workers.profiles import arch

_INTEL = (
    ("amx_tile", "sapphire-rapids"),
    ("avx512_vbmi2", "ice-lake-sp"),
    ("avx512f", "skylake-sp"),
    ("", "broadwell-ep"),
)
_AMD = (("avx512f", "zen4"), ("", "zen3"))
"""feature that a part must have, and the profile; in order"""

_ARM_PARTS = {
    "0xd4f": "neoverse-v2",
    "0xd40": "neoverse-v2",
    "0xd49": "neoverse-v2",
    "0xd0c": "neoverse-n1",
    "0xd01": "kunpeng-920",
    "0xd08": "armada-8040",
    "0xd05": "rz-g2l",
    "0xd03": "armada-3720",
    "0xd04": "imx8qxp",
    "0xd06": "cortex-a65",
}
_BY_ARCHITECTURE = {
    "x86_64": ("broadwell-ep",),
    "aarch64": ("neoverse-n1", "armada-8040"),
    "riscv64": ("jh7110",),
    "ppc64le": ("power9",),
}


def nearest_parent(machine: Facts) -> str:
    """A bundled profile for what cannot be measured.

    Raises:
        ProfileError: none of this architecture is bundled.
    """
    wanted = [profile for flag, profile in _by_flags(machine) if not flag or flag in machine.flags]
    wanted += [_ARM_PARTS.get(machine.part, ""), *_BY_ARCHITECTURE.get(machine.architecture, ())]
    bundled = arch.names()
    for name in wanted:
        if name in bundled:
            return name
    raise ProfileError(
        f"parent: no bundled profile is of {machine.architecture}; name one with --parent: "
        f"{', '.join(bundled)}"
    )


def _by_flags(machine: Facts) -> tuple[tuple[str, str], ...]:
    if machine.vendor == "AuthenticAMD":
        return _AMD
    return _INTEL if machine.vendor == "GenuineIntel" else ()
