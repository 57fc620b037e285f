"""What arrives: drawn or captured packets, and the queue that each falls to."""
