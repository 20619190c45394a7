"""Diagnostics of a posterior: what the data determined, and whether the prior can explain them."""
