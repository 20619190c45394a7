"""Convolutions of a network at full speed inside loops on CPU."""

from numpyro_genprior.networks.convolution.context import call, channels_last

__all__ = ["call", "channels_last"]
