"""The NIC: receive and transmit rings, interrupts, aggregates, and devices that frames are redirected to."""
