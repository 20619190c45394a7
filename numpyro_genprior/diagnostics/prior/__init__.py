"""Is the prior fit for this? Before there are data."""
