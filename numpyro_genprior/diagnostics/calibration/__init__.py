"""Calibration of inference, on data that the model simulates and on held-out events."""
