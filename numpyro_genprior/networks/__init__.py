"""Networks of any library as frozen, unbatched, callable pytrees."""

from numpyro_genprior.networks.convolution import channels_last
from numpyro_genprior.networks.flax import from_flax, from_nnx
from numpyro_genprior.networks.frozen import Frozen
from numpyro_genprior.networks.haiku import from_haiku

__all__ = ["Frozen", "channels_last", "from_flax", "from_haiku", "from_nnx"]
