"""What the data determined, what the prior made up, and whether to believe it."""

from numpyro_genprior.diagnostics.collapse import DecoderCollapse, decoder_collapse
from numpyro_genprior.diagnostics.dimension import EffectiveDimension, effective_dimension
from numpyro_genprior.diagnostics.lipschitz import Lipschitz, lipschitz
from numpyro_genprior.diagnostics.modes import ChainModes, modes
from numpyro_genprior.diagnostics.sensitivity import Sensitivity, sensitivity
from numpyro_genprior.diagnostics.shrinkage import PosteriorCollapse, posterior_collapse

__all__ = [
    "ChainModes",
    "DecoderCollapse",
    "EffectiveDimension",
    "Lipschitz",
    "PosteriorCollapse",
    "Sensitivity",
    "decoder_collapse",
    "effective_dimension",
    "lipschitz",
    "modes",
    "posterior_collapse",
    "sensitivity",
]
