"""Diagnostics of priors and of posteriors, and calibration of inference."""

from numpyro_genprior.diagnostics.calibration.contraction import contraction
from numpyro_genprior.diagnostics.calibration.contraction_result import Comparison, Contraction
from numpyro_genprior.diagnostics.calibration.coverage import Coverage, coverage
from numpyro_genprior.diagnostics.calibration.power_law import Rate
from numpyro_genprior.diagnostics.calibration.sbc import SBC, sbc
from numpyro_genprior.diagnostics.calibration.tarp import TARP, tarp
from numpyro_genprior.diagnostics.posterior.adequacy import adequacy
from numpyro_genprior.diagnostics.posterior.adequacy_result import Adequacy
from numpyro_genprior.diagnostics.posterior.modes import ChainModes, modes
from numpyro_genprior.diagnostics.posterior.posterior_collapse import (
    PosteriorCollapse,
    posterior_collapse,
)
from numpyro_genprior.diagnostics.posterior.sensitivity import sensitivity
from numpyro_genprior.diagnostics.posterior.sensitivity_result import Sensitivity
from numpyro_genprior.diagnostics.prior.decoder_collapse import DecoderCollapse, decoder_collapse
from numpyro_genprior.diagnostics.prior.effective_dimension import (
    EffectiveDimension,
    effective_dimension,
)
from numpyro_genprior.diagnostics.prior.event_scale import EventScale, estimate_event_scale
from numpyro_genprior.diagnostics.prior.lipschitz import Lipschitz, lipschitz

__all__ = [
    "Adequacy",
    "ChainModes",
    "Comparison",
    "Contraction",
    "Coverage",
    "DecoderCollapse",
    "EffectiveDimension",
    "EventScale",
    "Lipschitz",
    "PosteriorCollapse",
    "Rate",
    "SBC",
    "Sensitivity",
    "TARP",
    "adequacy",
    "contraction",
    "coverage",
    "decoder_collapse",
    "effective_dimension",
    "estimate_event_scale",
    "lipschitz",
    "modes",
    "posterior_collapse",
    "sbc",
    "sensitivity",
    "tarp",
]
