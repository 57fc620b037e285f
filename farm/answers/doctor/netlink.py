"""The pools of the host that this runs on, read over netlink: netdev's dumps, nothing is changed.

The family is published in the kernel's Documentation/netlink/specs/netdev.yaml; it needs no privilege.
"""

import errno
import sys
from typing import Any

from farm.answers.doctor.counters import Snapshot, of_dump
from farm.errors import CountersError
from workers.measures import COUNTERS

PAGE_POOL_GET, PAGE_POOL_STATS_GET = 5, 9
"""numbers of the operations"""

FIRST_STATISTIC = 8
"""attribute number of the first counter (spec 8.3)"""

HERE = "this host"


def snapshot() -> Snapshot:
    """All pools of this host's network namespace, now.

    Raises:
        CountersError: the kernel is too old (before 6.8), or counts nothing.
    """
    states = of_dump(HERE, _dump(PAGE_POOL_GET, _pool_message()))
    if not states.states:
        return states
    counts = of_dump(HERE, _dump(PAGE_POOL_STATS_GET, _statistics_message()))
    return Snapshot(HERE, counts.counts, states.states)


def _dump(operation: int, message: type[Any]) -> list[dict[str, Any]]:
    """One object for each pool, with attributes by the names of the family's specification."""
    from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.generic import GenericNetlinkSocket

    try:
        with GenericNetlinkSocket() as socket:
            socket.bind("netdev", message)
            request = message()
            request["cmd"], request["version"] = operation, 1
            answers = socket.nlm_request(request, msg_type=socket.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP)
            return [objects_of(answer) for answer in answers]
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            raise CountersError(
                "netlink: this kernel shows no pools; 6.8 and later do, use ethtool -S"
            ) from None
        if error.code == errno.EOPNOTSUPP:
            raise CountersError(
                "netlink: this kernel counts nothing of its pools; it was built without "
                "CONFIG_PAGE_POOL_STATS"
            ) from None
        raise CountersError(
            f"netlink: {errno.errorcode.get(error.code, error.code)}; use ethtool -S"
        ) from None
    except OSError as error:
        raise CountersError(f"netlink: {error.strerror}; use ethtool -S") from None


def objects_of(message: Any) -> dict[str, Any]:
    """Attributes of a message by name, nests as objects; those that it does not name are left out."""
    return {
        name: int.from_bytes(value, sys.byteorder) if isinstance(value, bytes) else objects_of(value)
        for name, value in message["attrs"]
        if name in _NAMES
    }


_NAMES = frozenset(
    ("id", "ifindex", "napi-id", "inflight", "inflight-mem", "detach-time", "info")
) | frozenset(name.replace("_", "-") for name in COUNTERS)

_NUMBER = "cdata"
"""as bytes: the family's ``uint`` has 4 or 8 of them"""


def _pool_message() -> type[Any]:
    from pyroute2.netlink import genlmsg

    class PoolMessage(genlmsg):  # type: ignore[misc]
        prefix = ""
        nla_map = (
            ("unspecified", "none"),
            *(
                (name, _NUMBER)
                for name in ("id", "ifindex", "napi-id", "inflight", "inflight-mem", "detach-time")
            ),
        )

    return PoolMessage


def _statistics_message() -> type[Any]:
    from pyroute2.netlink import genlmsg, nla

    class StatisticsMessage(genlmsg):  # type: ignore[misc]
        prefix = ""
        nla_map = (
            ("unspecified", "none"),
            ("info", "info"),
            *((f"unused-{number}", "none") for number in range(2, FIRST_STATISTIC)),
            *((name.replace("_", "-"), _NUMBER) for name in COUNTERS),
        )

        class info(nla):  # type: ignore[misc] # noqa: N801 - the attribute's name
            prefix = ""
            nla_map = (("unspecified", "none"), ("id", _NUMBER), ("ifindex", _NUMBER))

    return StatisticsMessage
