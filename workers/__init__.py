"""One trial: traffic, NIC, driver, stack and application on a simulated architecture.

``run_trial(config)`` is a plain function from a :class:`~workers.config.TrialConfig` to a record; what
distributes it is transport. The names below load the compiled model when first used, so that importing
``workers.config`` or ``workers.measures`` costs no compiler.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.model import model_digest
    from workers.record import Record
    from workers.trial import (
        Input,
        expected_packets,
        inputs,
        locate,
        prepare,
        run_trial,
        trial_id,
    )

__all__ = [
    "Input",
    "Record",
    "expected_packets",
    "inputs",
    "locate",
    "model_digest",
    "prepare",
    "run_trial",
    "trial_id",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'workers' has no attribute {name!r}")
    from workers import model, trial

    return getattr(model if name == "model_digest" else trial, name)
