"""Validate and freeze a user's network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from numpyro_genprior import validation
from numpyro_genprior.errors import message
from numpyro_genprior.networks.frozen import Frozen


def freeze(net: Callable[..., Any], what: str) -> Frozen:
    """A `Frozen` network; raises TypeError or ValueError for what cannot be one."""
    if not callable(net):
        raise TypeError(
            message(
                f"{what} is not callable",
                expected="a function of one latent, or a module",
                got=type(net).__name__,
                remedy="wrap Haiku with ngp.networks.from_haiku, Flax with from_flax or from_nnx",
            )
        )
    if isinstance(net, type):
        raise TypeError(
            message(
                f"{what} is a class",
                expected="a network with weights",
                got=net.__name__,
                remedy="pass an instance of it",
            )
        )
    _refuse_foreign(net, what)
    frozen = Frozen(net)
    validation.weights_finite(frozen, what)
    return frozen


def _refuse_foreign(net: object, what: str) -> None:
    kinds = {(cls.__module__, cls.__name__) for cls in type(net).__mro__}
    if any(module.startswith("torch.") and name == "Module" for module, name in kinds):
        raise TypeError(
            message(
                f"{what} is a PyTorch module",
                expected="a JAX network",
                remedy="copy its weights into an Equinox, Haiku or Flax network of the same layers",
            )
        )
    if ("flax.linen.module", "Module") in kinds:
        bound = getattr(net, "scope", None) is not None
        call = "from_flax(*module.unbind())" if bound else "from_flax(module, variables)"
        raise TypeError(
            message(
                f"{what} is a Flax Linen module" + ("" if bound else " without its variables"),
                expected="a function of one latent whose weights are data",
                remedy=f"pass ngp.networks.{call}",
            )
        )
    if any(module.startswith("flax.nnx") and name == "Module" for module, name in kinds):
        raise TypeError(
            message(
                f"{what} is a Flax NNX module, which may change when it is called",
                expected="a function of one latent whose weights are data",
                remedy="pass ngp.networks.from_nnx(module)",
            )
        )


def call(net: Frozen, z: jax.Array, condition: jax.Array | None) -> Any:
    """The network's output for one latent, and one condition if there is one."""
    return net(z) if condition is None else net(z, condition)
