"""How a prior enters a model: `latent`, `sample`, `LatentReparam`, `param`, and the reader."""

from numpyro_genprior.sites.handler import latent, sample
from numpyro_genprior.sites.param import param
from numpyro_genprior.sites.reparam import LatentReparam

__all__ = ["LatentReparam", "latent", "param", "sample"]
