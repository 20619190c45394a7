"""Priors in models: `latent`, `sample`, `LatentReparam` and `param`; reading a model's sites."""

from numpyro_genprior.sites.handler import latent, sample
from numpyro_genprior.sites.param import param
from numpyro_genprior.sites.reparam import LatentReparam

__all__ = ["LatentReparam", "latent", "param", "sample"]
