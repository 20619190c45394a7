"""Generative priors as NumPyro distributions."""

from numpyro_genprior import networks
from numpyro_genprior.priors import (
    FlowPrior,
    GANPrior,
    GaussianFieldPrior,
    GaussianPrior,
    Prior,
    VAEPrior,
)
from numpyro_genprior.sites import LatentReparam, latent, sample
from numpyro_genprior.training import param

__version__ = "0.1.0"

__all__ = [
    "FlowPrior",
    "GANPrior",
    "GaussianFieldPrior",
    "GaussianPrior",
    "LatentReparam",
    "Prior",
    "VAEPrior",
    "latent",
    "networks",
    "param",
    "sample",
]
