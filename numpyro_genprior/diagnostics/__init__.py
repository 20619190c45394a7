"""What a fit can be trusted with."""

from numpyro_genprior.diagnostics.modes import ChainModes, modes

__all__ = ["ChainModes", "modes"]
