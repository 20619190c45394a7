"""Pictures, drawn by matplotlib: ``pip install numpyro_genprior[plots]``."""

from numpyro_genprior.plots.adequacy import adequacy
from numpyro_genprior.plots.calibration import coverage, sbc_ranks
from numpyro_genprior.plots.contraction import contraction
from numpyro_genprior.plots.directions import event_directions
from numpyro_genprior.plots.images import posterior_images
from numpyro_genprior.plots.mgvi import mgvi
from numpyro_genprior.plots.smc import smc
from numpyro_genprior.plots.spectrum import (
    decoder_collapse,
    jacobian_spectrum,
    latent_shrinkage,
    sensitivity_spectrum,
)
from numpyro_genprior.plots.tempering import tempering

__all__ = [
    "adequacy",
    "contraction",
    "coverage",
    "decoder_collapse",
    "event_directions",
    "jacobian_spectrum",
    "latent_shrinkage",
    "mgvi",
    "posterior_images",
    "sbc_ranks",
    "sensitivity_spectrum",
    "smc",
    "tempering",
]
