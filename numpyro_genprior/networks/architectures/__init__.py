"""Small networks that the training loops and the pretrained priors use.

All are Equinox modules with a static configuration of JSON values, so that a file can name the
architecture and :func:`build` can rebuild it without a template. All are unbatched. Activations
are stored by name, because ``jax.nn`` functions cannot be pickled.
"""

from numpyro_genprior.networks.architectures.conv import ConvCritic, ConvDecoder, ConvEncoder
from numpyro_genprior.networks.architectures.layers import ACTIVATIONS
from numpyro_genprior.networks.architectures.mlp import MLPCritic, MLPDecoder, MLPEncoder
from numpyro_genprior.networks.architectures.registry import ARCHITECTURES, build, register

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "ConvCritic",
    "ConvDecoder",
    "ConvEncoder",
    "MLPCritic",
    "MLPDecoder",
    "MLPEncoder",
    "build",
    "register",
]
