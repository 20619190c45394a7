"""Fully connected decoder, encoder and critic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_genprior.networks.architectures.layers import (
    ACTIVATIONS,
    Dense,
    activation_name,
    loc_and_scale,
    positive_sizes,
    with_condition,
)
from numpyro_genprior.networks.architectures.registry import register


@register
class MLPDecoder(eqx.Module):
    """A multilayer perceptron from a latent vector to an event.

    With ``hidden=(500, 500)`` and 20 latents this is the MNIST generator of Bora et al. (2017),
    *Compressed sensing using generative models*.

    Parameters
    ----------
    latent_size
        Number of latents.
    event_shape
        Shape of an event; ``()`` for a scalar.
    hidden
        Widths of the hidden layers.
    activation, output
        Names of the hidden and of the output activation, keys of :data:`ACTIVATIONS`.
    condition_size
        Number of elements of the condition, which is flattened and appended to the latent; None
        for a network without one.
    key
        Initialises the weights.

    Raises
    ------
    ValueError
        If a size is not positive or an activation is unknown; on call, if the condition is missing,
        superfluous or of the wrong size.

    Notes
    -----
    **Fails when** training data are few and events are large images: it has no notion of locality.
    """

    dense: Dense
    latent_size: int = eqx.field(static=True)
    event_shape: tuple[int, ...] = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    output: str = eqx.field(static=True)
    condition_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        latent_size: int,
        event_shape: int | Sequence[int],
        *,
        hidden: Sequence[int] = (500, 500),
        activation: str = "relu",
        output: str = "sigmoid",
        condition_size: int | None = None,
        key: PRNGKeyArray,
    ) -> None:
        (self.latent_size,) = positive_sizes("latent_size", latent_size)
        self.event_shape = positive_sizes("event_shape", event_shape)
        self.hidden = positive_sizes("hidden", hidden)
        self.activation = activation_name(activation)
        self.output = activation_name(output)
        self.condition_size = condition_size
        sizes = (latent_size + (condition_size or 0), *self.hidden, math.prod(self.event_shape))
        self.dense = Dense(sizes, activation, key)

    @property
    def config(self) -> dict[str, Any]:
        """JSON values from which :func:`build` makes the same structure."""
        return {
            "latent_size": self.latent_size,
            "event_shape": list(self.event_shape),
            "hidden": list(self.hidden),
            "activation": self.activation,
            "output": self.output,
            "condition_size": self.condition_size,
        }

    def __call__(self, z: Float[Array, " latent"], condition: Array | None = None) -> Array:
        """Map a latent of shape ``(latent_size,)`` to an event of shape ``event_shape``."""
        raw = self.dense(with_condition(z, condition, self.condition_size))
        return ACTIVATIONS[self.output](raw).reshape(self.event_shape)


@register
class MLPEncoder(eqx.Module):
    """A multilayer perceptron from an event to the location and scale of a latent.

    Parameters
    ----------
    event_shape
        Shape of an event; ``()`` for a scalar.
    latent_size
        Number of latents.
    hidden
        Widths of the hidden layers.
    activation
        Name of the hidden activation, a key of :data:`ACTIVATIONS`.
    key
        Initialises the weights.

    Raises
    ------
    ValueError
        If a size is not positive or an activation is unknown.

    Notes
    -----
    The scale is a softplus and at least 1e-4. **Fails when** events lie far from the training
    data: the output is then confident and wrong, so use it as a proposal and not as a posterior.
    """

    dense: Dense
    event_shape: tuple[int, ...] = eqx.field(static=True)
    latent_size: int = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        event_shape: int | Sequence[int],
        latent_size: int,
        *,
        hidden: Sequence[int] = (500, 500),
        activation: str = "relu",
        key: PRNGKeyArray,
    ) -> None:
        self.event_shape = positive_sizes("event_shape", event_shape)
        (self.latent_size,) = positive_sizes("latent_size", latent_size)
        self.hidden = positive_sizes("hidden", hidden)
        self.activation = activation_name(activation)
        sizes = (math.prod(self.event_shape), *self.hidden, 2 * latent_size)
        self.dense = Dense(sizes, activation, key)

    @property
    def config(self) -> dict[str, Any]:
        """JSON values from which :func:`build` makes the same structure."""
        return {
            "event_shape": list(self.event_shape),
            "latent_size": self.latent_size,
            "hidden": list(self.hidden),
            "activation": self.activation,
        }

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map an event to ``(loc, scale)``, each of shape ``(latent_size,)``."""
        return loc_and_scale(self.dense(jnp.ravel(x)))


@register
class MLPCritic(eqx.Module):
    """A multilayer perceptron from an event to a number: a critic.

    Parameters
    ----------
    event_shape
        Shape of an event; ``()`` for a scalar.
    hidden
        Widths of the hidden layers.
    activation
        Name of the hidden activation, a key of :data:`ACTIVATIONS`.
    key
        Initialises the weights.

    Raises
    ------
    ValueError
        If a size is not positive or an activation is unknown.
    """

    dense: Dense
    event_shape: tuple[int, ...] = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        event_shape: int | Sequence[int],
        *,
        hidden: Sequence[int] = (500, 500),
        activation: str = "silu",
        key: PRNGKeyArray,
    ) -> None:
        self.event_shape = positive_sizes("event_shape", event_shape)
        self.hidden = positive_sizes("hidden", hidden)
        self.activation = activation_name(activation)
        self.dense = Dense((math.prod(self.event_shape), *self.hidden, 1), activation, key)

    @property
    def config(self) -> dict[str, Any]:
        """JSON values from which :func:`build` makes the same structure."""
        return {
            "event_shape": list(self.event_shape),
            "hidden": list(self.hidden),
            "activation": self.activation,
        }

    def __call__(self, x: Array) -> Array:
        """Map an event to a scalar of shape ``()``."""
        return self.dense(jnp.ravel(x))[0]
