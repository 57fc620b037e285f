"""The NIC's receive side: descriptors, interrupts, aggregates."""
