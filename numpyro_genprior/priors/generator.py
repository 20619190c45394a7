"""Trying a generator network once, in the abstract, and saying what is wrong with it."""

from __future__ import annotations

from typing import Any

import jax

from numpyro_genprior.errors import message
from numpyro_genprior.networks.frozen import Frozen
from numpyro_genprior.priors import checks


def freeze(net: Any, what: str) -> Frozen:
    """A `Frozen` network with finite weights."""
    if not callable(net):
        raise TypeError(
            message(
                f"{what} is not callable",
                expected="a function of one latent, or a module",
                got=type(net).__name__,
                remedy="wrap Haiku with ngp.networks.from_haiku, Flax with from_flax or from_nnx",
            )
        )
    _refuse_foreign(net, what)
    frozen = Frozen(net)
    checks.weights_finite(frozen, what)
    return frozen


def _refuse_foreign(net: Any, what: str) -> None:
    names = {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(net).__mro__}
    if "torch.Module" in names:
        raise TypeError(
            message(
                f"{what} is a PyTorch module",
                expected="a JAX network",
                remedy="copy its weights into an Equinox, Haiku or Flax network of the same layers",
            )
        )
    if "flax.Module" in names and hasattr(net, "scope"):
        raise TypeError(
            message(
                f"{what} is a Flax module without its variables",
                expected="a network with weights",
                remedy="pass ngp.networks.from_flax(module, variables)",
            )
        )


def call(net: Frozen, z: jax.Array, condition: jax.Array | None) -> Any:
    return net(z) if condition is None else net(z, condition)
