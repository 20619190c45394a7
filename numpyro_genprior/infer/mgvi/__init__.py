"""Metric Gaussian variational inference."""

from numpyro_genprior.infer.mgvi.mgvi import MGVI

__all__ = ["MGVI"]
