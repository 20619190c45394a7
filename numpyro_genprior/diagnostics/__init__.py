"""What the data determined, what the prior made up, and whether to believe it."""

from numpyro_genprior.diagnostics.collapse import DecoderCollapse, decoder_collapse
from numpyro_genprior.diagnostics.modes import ChainModes, modes
from numpyro_genprior.diagnostics.sensitivity import Sensitivity, sensitivity
from numpyro_genprior.diagnostics.shrinkage import PosteriorCollapse, posterior_collapse

__all__ = [
    "ChainModes",
    "DecoderCollapse",
    "PosteriorCollapse",
    "Sensitivity",
    "decoder_collapse",
    "modes",
    "posterior_collapse",
    "sensitivity",
]
