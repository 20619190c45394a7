"""Parallel tempering between the prior, which is sampled exactly, and the posterior."""

from numpyro_genprior.infer.tempering.kernel import ParallelTempering, TemperingState
from numpyro_genprior.infer.tempering.report import TemperingReport

__all__ = ["ParallelTempering", "TemperingReport", "TemperingState"]
