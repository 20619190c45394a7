"""Fast convolutions inside loops on CPU, by a channels-last layout."""

from numpyro_genprior.networks.convolution.context import call, channels_last

__all__ = ["call", "channels_last"]
