"""What becomes of segments whose senders stop at the receiver's window: they are read, or lost."""

from pool_impl.jit import compiled
from workers.arrivals import window
from workers.books import hold
from workers.state import Trial


@compiled()
def read(trial: Trial, skb: int) -> None:
    """The application reads an skb in the step that runs."""
    packets = hold.wire_packets(trial, skb)
    flow_hash = trial.packets[skb].flow_hash
    now_ps = trial.tally.integrated_to_ps
    window.read(trial.windows, trial.arrivals, trial.nic, flow_hash, packets, now_ps)


@compiled()
def missed(trial: Trial, flow_hash: int, at_ps: int) -> None:
    """The packet that arrives finds no descriptor."""
    if trial.nic.windows:
        window.lose(trial.windows, trial.arrivals, trial.nic, flow_hash, 1, at_ps, 1)


@compiled()
def lost(trial: Trial, flow_hash: int, packets: int) -> None:
    """Packets of a flow that had arrived are dropped, in the step or change that runs."""
    if trial.nic.windows:
        now_ps = trial.tally.integrated_to_ps
        window.lose(trial.windows, trial.arrivals, trial.nic, flow_hash, packets, now_ps, 0)


@compiled()
def dropped(trial: Trial, skb: int) -> int:
    """An skb is dropped in the stack; its packets that arrived after the warm-up."""
    lost(trial, trial.packets[skb].flow_hash, hold.wire_packets(trial, skb))
    return hold.counted(trial, skb)
