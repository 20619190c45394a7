"""Metric Gaussian variational inference."""

from numpyro_genprior.infer.mgvi.mgvi import MGVI
from numpyro_genprior.infer.mgvi.result import MGVIResult

__all__ = ["MGVI", "MGVIResult"]
