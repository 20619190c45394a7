"""What the data determined, what the prior made up, and whether to believe it."""

from numpyro_genprior.diagnostics.modes import ChainModes, modes
from numpyro_genprior.diagnostics.sensitivity import Sensitivity, sensitivity

__all__ = ["ChainModes", "Sensitivity", "modes", "sensitivity"]
