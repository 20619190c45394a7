"""Diagnostics of a posterior: what the data determined, and whether the prior explains the data."""
