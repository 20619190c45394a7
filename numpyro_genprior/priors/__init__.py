"""Priors: generative models as NumPyro distributions."""

from numpyro_genprior.priors.field import GaussianFieldPrior
from numpyro_genprior.priors.flow import FlowPrior
from numpyro_genprior.priors.gan import GANPrior
from numpyro_genprior.priors.gaussian import GaussianPrior
from numpyro_genprior.priors.prior import Prior
from numpyro_genprior.priors.standard_normal import StandardNormal
from numpyro_genprior.priors.vae import VAEPrior

__all__ = [
    "FlowPrior",
    "GANPrior",
    "GaussianFieldPrior",
    "GaussianPrior",
    "Prior",
    "StandardNormal",
    "VAEPrior",
]
