"""What the seed decides of a trial that has not begun: keys of random numbers, and which flows send."""

from workers.arrivals import traffic, window
from workers.config import TrialConfig
from workers.state import Trial


def set_seed(trial: Trial, config: TrialConfig) -> None:
    """Let a trial be that of the configuration's seed. All else in it is the same for every seed, so this
    alone makes trials of a cell differ; it can be done again for another seed."""
    seed = config.seed
    traffic.set_keys(trial.arrivals, config)
    window.set_senders(trial.windows, config)
    trial.tap.key = traffic.tap_key(seed)
    trial.xdp.key = traffic.verdict_key(seed)
    for number in range(len(trial.readers)):
        trial.readers[number].key = traffic.work_key(seed, number)
    for number in range(len(trial.retained)):
        trial.retained[number].key = traffic.retention_key(seed, number)
