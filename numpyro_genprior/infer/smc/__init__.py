"""Sequential Monte Carlo from the prior to the posterior."""

from numpyro_genprior.infer.smc.result import SMCResult
from numpyro_genprior.infer.smc.smc import SMC

__all__ = ["SMC", "SMCResult"]
