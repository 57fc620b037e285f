"""Which kinds of machines a cluster has. What is measured on one kind says nothing about another: results are
never mixed, and one machine of each kind is measured, nothing else running on its node meanwhile.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from farm.ray.executor import RayExecutor
    from workers.host.facts import Facts


class Kind(NamedTuple):
    """Machines with the same CPU."""

    facts: "Facts"
    """of the one that stands for them"""
    node: str
    """id of its Ray node"""
    machines: int
    """several nodes may be on one machine"""


def kinds(executor: "RayExecutor") -> list[Kind]:
    """The kinds of machines of a cluster, in the order of their names.

    Raises:
        ExecutorError: a node was lost.
    """
    from workers.host.facts import facts

    found = executor.on_nodes(facts, ())
    by_slug: dict[str, list[str]] = {}
    for node, its_facts in found.items():
        by_slug.setdefault(its_facts.slug, []).append(node)
    return [
        Kind(found[nodes[0]], nodes[0], len({found[node].boot_id or node for node in nodes}))
        for _, nodes in sorted(by_slug.items())
    ]


def measure(executor: "RayExecutor", kind: Kind, work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that measures on the machine that stands for a kind, on all CPUs of its node.

    Raises:
        ExecutorError: the node was lost, or the function failed there.
    """
    [found] = executor.on_nodes(work, arguments, [kind.node], alone=True).values()
    return found
