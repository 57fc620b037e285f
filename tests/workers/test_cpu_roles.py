"""What CPUs are called, against who takes steps on them in the trial's tables."""

import pytest

from workers.assemble import new_trial
from workers.config import TrialConfig
from workers.fields.derived import cpu_roles
from workers.fields.groups import Value
from workers.state import BACKLOG_POLL, POLL, READER, TARGET_TURN

KIND = {"queue": POLL, "reader": READER, "tap": READER, "rps": BACKLOG_POLL, "target": TARGET_TURN}

EVERYBODY: dict[str, Value] = {
    "nic.queues": 2,
    "traffic.flows": 4,
    "app.reader": "fast",
    "app.readers": 3,
    "stack.rps": 2,
    "stack.capture_percent": 10,
    "xdp.pass_percent": 50,
    "xdp.redirect_percent": 50,
    "xdp.redirect_to": "cpumap",
    "xdp.redirect_cpus": 2,
}


@pytest.mark.parametrize(
    "fields",
    [
        EVERYBODY,
        {**EVERYBODY, "app.reader_cpu": "same"},
        {"life.event": "resize", "life.queues": 4, "app.reader": "fast"},
        {"numa.nodes": 2, "life.event": "irq-moved", "nic.queues": 2},
    ],
)
def test_a_cpu_is_called_after_who_takes_steps_on_it(fields: dict[str, Value]) -> None:
    config = TrialConfig.from_fields(fields)
    trial = new_trial(config)
    roles = cpu_roles(config)
    assert len(roles) == len(trial.cpus) == len(set(roles))
    for cpu, role in enumerate(roles):
        actors = trial.actors[trial.cpus[cpu].first_actor :][: trial.cpus[cpu].actors]
        name = role.rpartition(" ")[0]
        if name == "new irq":
            assert len(actors) == 0, "polls move there later"
        else:
            assert KIND[name] in actors.kind
