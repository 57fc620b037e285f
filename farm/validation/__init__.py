"""Published measurements against what the model predicts."""
