"""Minimisers of a posterior's energy."""
