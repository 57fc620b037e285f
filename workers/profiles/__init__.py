"""What a machine costs: its profile, where each number comes from, and the machine as a trial changes it."""
