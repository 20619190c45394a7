"""Is inference right? On data that the model simulates, and on held-out events."""
