"""Rules of what happens to the device during a trial, of its nodes and of the time that it takes."""

from workers.errors import ConfigError
from workers.fields.derived import (
    moves_interrupts,
)
from workers.fields.groups import (
    TrialFields,
)
from workers.profiles import arch
from workers.rules.rule import Rule


def _what_happens_to_the_device_happens_in_the_trial(config: TrialFields) -> None:
    life = config.life
    if life.event == "none":
        return
    ends_ms = life.at_ms + (life.down_ms if life.event == "resize" else 0)
    if ends_ms >= config.duration_ms or life.at_ms < config.warmup_ms:
        raise ConfigError(
            "life.at_ms",
            life.at_ms,
            f"must leave the warm-up ({config.warmup_ms} ms) before it and be over by duration_ms = "
            f"{config.duration_ms}",
        )


def _only_a_device_that_comes_up_again_changes(config: TrialFields) -> None:
    life = config.life
    for name in ("rx_ring", "queues"):
        if getattr(life, name) and life.event != "resize":
            raise ConfigError(f"life.{name}", getattr(life, name), "needs life.event = resize")


def _a_node_needs_a_socket(config: TrialFields) -> None:
    if config.numa.nodes > 1:
        sockets = int(arch.load(config.arch)["sockets"])
        if config.numa.nodes > sockets:
            raise ConfigError(
                "numa.nodes",
                config.numa.nodes,
                f"arch = {config.arch} has at most {sockets} sockets; use {sockets}",
            )


def _nodes_exist(config: TrialFields) -> None:
    for leaf in ("nic", "queues", "readers", "steering"):
        node = getattr(config.numa, leaf)
        if node >= config.numa.nodes:
            raise ConfigError(
                f"numa.{leaf}", node, f"numa.nodes = {config.numa.nodes}; use a node below it, or more nodes"
            )


def _short_memory_is_on_one_node(config: TrialFields) -> None:
    if config.numa.nodes > 1 and config.memory.pages:
        raise ConfigError(
            "memory.pages",
            config.memory.pages,
            "a node without pages would take some of another; leave it 0, or use numa.nodes = 1",
        )


def _interrupts_move_to_another_node(config: TrialFields) -> None:
    if not moves_interrupts(config):
        return
    if config.numa.nodes == 1:
        raise ConfigError("life.event", config.life.event, "needs another node; use numa.nodes = 2")
    if config.nic.napi != "softirq":
        raise ConfigError(
            "life.event",
            config.life.event,
            f"polls stay where they are with nic.napi = {config.nic.napi}; use softirq",
        )


def _warmup_ends_before_the_trial(config: TrialFields) -> None:
    if config.warmup_ms >= config.duration_ms:
        raise ConfigError("warmup_ms", config.warmup_ms, f"must be below duration_ms = {config.duration_ms}")


RULES = (
    Rule(
        ("life.event", "life.at_ms", "life.down_ms", "duration_ms", "warmup_ms"),
        _what_happens_to_the_device_happens_in_the_trial,
    ),
    Rule(("life.event", "life.rx_ring", "life.queues"), _only_a_device_that_comes_up_again_changes),
    Rule(("arch", "numa.nodes"), _a_node_needs_a_socket),
    Rule(("numa.nodes", "numa.nic", "numa.queues", "numa.readers", "numa.steering"), _nodes_exist),
    Rule(("numa.nodes", "memory.pages"), _short_memory_is_on_one_node),
    Rule(("life.event", "numa.nodes", "nic.napi"), _interrupts_move_to_another_node),
    Rule(("warmup_ms", "duration_ms"), _warmup_ends_before_the_trial),
)
