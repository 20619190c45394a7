"""What the data determined, what the prior made up, and whether to believe it."""

from numpyro_genprior.diagnostics.adequacy import Adequacy, adequacy
from numpyro_genprior.diagnostics.collapse import DecoderCollapse, decoder_collapse
from numpyro_genprior.diagnostics.contraction import Comparison, Contraction, contraction
from numpyro_genprior.diagnostics.coverage import Coverage, coverage
from numpyro_genprior.diagnostics.dimension import EffectiveDimension, effective_dimension
from numpyro_genprior.diagnostics.event_scale import EventScale, estimate_event_scale
from numpyro_genprior.diagnostics.lipschitz import Lipschitz, lipschitz
from numpyro_genprior.diagnostics.modes import ChainModes, modes
from numpyro_genprior.diagnostics.rates import Rate
from numpyro_genprior.diagnostics.sbc import SBC, sbc
from numpyro_genprior.diagnostics.sensitivity import Sensitivity, sensitivity
from numpyro_genprior.diagnostics.shrinkage import PosteriorCollapse, posterior_collapse
from numpyro_genprior.diagnostics.tarp import TARP, tarp

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
