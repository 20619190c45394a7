"""Plots by matplotlib: ``pip install numpyro_genprior[plots]``."""

from numpyro_genprior.plots.adequacy import adequacy
from numpyro_genprior.plots.calibration import coverage, sbc_ranks
from numpyro_genprior.plots.chain_modes import chain_modes
from numpyro_genprior.plots.contraction import contraction
from numpyro_genprior.plots.directions import event_directions
from numpyro_genprior.plots.energies import start_energies
from numpyro_genprior.plots.event_scale import event_scale
from numpyro_genprior.plots.images import posterior_images
from numpyro_genprior.plots.lipschitz import lipschitz
from numpyro_genprior.plots.losses import losses
from numpyro_genprior.plots.mgvi import mgvi
from numpyro_genprior.plots.moments import event_moments
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
    "chain_modes",
    "contraction",
    "coverage",
    "decoder_collapse",
    "event_directions",
    "event_moments",
    "event_scale",
    "jacobian_spectrum",
    "latent_shrinkage",
    "mgvi",
    "lipschitz",
    "losses",
    "posterior_images",
    "sbc_ranks",
    "sensitivity_spectrum",
    "smc",
    "start_energies",
    "tempering",
]
