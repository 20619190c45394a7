"""Diagnostics of a prior, before there are data."""
