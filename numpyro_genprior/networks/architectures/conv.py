"""Convolutional decoder, encoder and critic for images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_genprior.networks.architectures.layers import (
    ACTIVATIONS,
    Dense,
    activation_name,
    image_shape,
    loc_and_scale,
    positive_sizes,
    with_condition,
)
from numpyro_genprior.networks.architectures.registry import register
from numpyro_genprior.networks.architectures.resampling import DownBlock, UpBlock


@register
class ConvDecoder(eqx.Module):
    """Dense layers and transposed convolutions from a latent vector to an image.

    Each entry of ``channels`` is followed by a transposed convolution (kernel 4, stride 2) that
    doubles rows and columns: ``channels=(64, 32)`` on 28×28 images goes 7×7×64, 14×14×32, 28×28.
    The layout follows DCGAN (Radford et al. 2016) without batch normalisation, which would make the
    events of a batch depend on each other.

    Parameters
    ----------
    latent_size
        Number of latents.
    event_shape
        ``(rows, cols)`` or ``(rows, cols, channels)``; rows and cols divisible by
        ``2 ** len(channels)``.
    channels
        Numbers of channels from the coarsest image on.
    hidden
        Widths of dense layers between the latent and the coarsest image.
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
        If a size is not positive or does not divide, or an activation is unknown; on call, if the
        condition is missing, superfluous or of the wrong size.

    Notes
    -----
    Convolutions are computed as matrix products, which run at full speed inside NUTS on CPU; see
    :mod:`numpyro_genprior.networks.architectures.resampling`.
    """

    dense: Dense
    blocks: tuple[UpBlock, ...]
    latent_size: int = eqx.field(static=True)
    event_shape: tuple[int, ...] = eqx.field(static=True)
    channels: tuple[int, ...] = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    output: str = eqx.field(static=True)
    condition_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        latent_size: int,
        event_shape: Sequence[int],
        *,
        channels: Sequence[int] = (64, 32),
        hidden: Sequence[int] = (),
        activation: str = "relu",
        output: str = "sigmoid",
        condition_size: int | None = None,
        key: PRNGKeyArray,
    ) -> None:
        (self.latent_size,) = positive_sizes("latent_size", latent_size)
        self.channels = positive_sizes("channels", channels)
        rows, cols, colours = image_shape(event_shape, len(self.channels))
        self.event_shape = positive_sizes("event_shape", event_shape)
        self.hidden = positive_sizes("hidden", hidden)
        self.activation = activation_name(activation)
        self.output = activation_name(output)
        self.condition_size = condition_size
        dense_key, *keys = jr.split(key, 1 + len(self.channels))
        coarse = (rows >> len(self.channels)) * (cols >> len(self.channels)) * self.channels[0]
        sizes = (latent_size + (condition_size or 0), *self.hidden, coarse)
        self.dense = Dense(sizes, activation, dense_key)
        outs = (*self.channels[1:], colours)
        self.blocks = tuple(
            UpBlock(a, b, key=k) for a, b, k in zip(self.channels, outs, keys, strict=True)
        )

    @property
    def config(self) -> dict[str, Any]:
        """JSON values from which :func:`build` makes the same structure."""
        return {
            "latent_size": self.latent_size,
            "event_shape": list(self.event_shape),
            "channels": list(self.channels),
            "hidden": list(self.hidden),
            "activation": self.activation,
            "output": self.output,
            "condition_size": self.condition_size,
        }

    def __call__(self, z: Float[Array, " latent"], condition: Array | None = None) -> Array:
        """Map a latent of shape ``(latent_size,)`` to an event of shape ``event_shape``."""
        stages = len(self.channels)
        x = self.dense(with_condition(z, condition, self.condition_size))
        x = x.reshape(self.event_shape[0] >> stages, self.event_shape[1] >> stages, -1)
        for block in self.blocks:
            x = block(ACTIVATIONS[self.activation](x))
        return ACTIVATIONS[self.output](x).reshape(self.event_shape)


class _ConvStack(eqx.Module):
    """Strided convolutions, then dense layers: the reverse of :class:`ConvDecoder`."""

    blocks: tuple[DownBlock, ...]
    dense: Dense
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        event_shape: tuple[int, ...],
        channels: tuple[int, ...],
        hidden: tuple[int, ...],
        out_size: int,
        activation: str,
        key: PRNGKeyArray,
    ) -> None:
        rows, cols, colours = image_shape(event_shape, len(channels))
        dense_key, *keys = jr.split(key, 1 + len(channels))
        ins = (colours, *channels[:-1])
        self.blocks = tuple(
            DownBlock(a, b, key=k) for a, b, k in zip(ins, channels, keys, strict=True)
        )
        coarse = (rows >> len(channels)) * (cols >> len(channels)) * channels[-1]
        self.dense = Dense((coarse, *hidden, out_size), activation, dense_key)
        self.activation = activation_name(activation)

    def __call__(self, x: Array) -> Array:
        x = x.reshape(x.shape[0], x.shape[1], -1)
        for block in self.blocks:
            x = ACTIVATIONS[self.activation](block(x))
        return self.dense(jnp.ravel(x))


@register
class ConvEncoder(eqx.Module):
    """Strided convolutions and dense layers from an image to the location and scale of a latent.

    Parameters
    ----------
    event_shape
        ``(rows, cols)`` or ``(rows, cols, channels)``; rows and cols divisible by
        ``2 ** len(channels)``.
    latent_size
        Number of latents.
    channels
        Numbers of channels from the finest image on; each convolution (kernel 4, stride 2) halves
        rows and columns.
    hidden
        Widths of dense layers after the convolutions.
    activation
        Name of the hidden activation, a key of :data:`ACTIVATIONS`.
    key
        Initialises the weights.

    Raises
    ------
    ValueError
        If a size is not positive or does not divide, or an activation is unknown.

    Notes
    -----
    The scale is a softplus and at least 1e-4. **Fails when** events lie far from the training
    data: the output is then confident and wrong, so use it as a proposal and not as a posterior.
    """

    stack: _ConvStack
    event_shape: tuple[int, ...] = eqx.field(static=True)
    latent_size: int = eqx.field(static=True)
    channels: tuple[int, ...] = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_size: int,
        *,
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (),
        activation: str = "relu",
        key: PRNGKeyArray,
    ) -> None:
        self.event_shape = positive_sizes("event_shape", event_shape)
        (self.latent_size,) = positive_sizes("latent_size", latent_size)
        self.channels = positive_sizes("channels", channels)
        self.hidden = positive_sizes("hidden", hidden)
        self.activation = activation_name(activation)
        self.stack = _ConvStack(
            self.event_shape, self.channels, self.hidden, 2 * latent_size, activation, key
        )

    @property
    def config(self) -> dict[str, Any]:
        """JSON values from which :func:`build` makes the same structure."""
        return {
            "event_shape": list(self.event_shape),
            "latent_size": self.latent_size,
            "channels": list(self.channels),
            "hidden": list(self.hidden),
            "activation": self.activation,
        }

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map an event to ``(loc, scale)``, each of shape ``(latent_size,)``."""
        return loc_and_scale(self.stack(x))


@register
class ConvCritic(eqx.Module):
    """Strided convolutions and dense layers from an image to a number: a critic.

    Parameters
    ----------
    event_shape
        ``(rows, cols)`` or ``(rows, cols, channels)``; rows and cols divisible by
        ``2 ** len(channels)``.
    channels
        Numbers of channels from the finest image on.
    hidden
        Widths of dense layers after the convolutions.
    activation
        Name of the hidden activation, a key of :data:`ACTIVATIONS`.
    key
        Initialises the weights.

    Raises
    ------
    ValueError
        If a size is not positive or does not divide, or an activation is unknown.
    """

    stack: _ConvStack
    event_shape: tuple[int, ...] = eqx.field(static=True)
    channels: tuple[int, ...] = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (128,),
        activation: str = "silu",
        key: PRNGKeyArray,
    ) -> None:
        self.event_shape = positive_sizes("event_shape", event_shape)
        self.channels = positive_sizes("channels", channels)
        self.hidden = positive_sizes("hidden", hidden)
        self.activation = activation_name(activation)
        self.stack = _ConvStack(self.event_shape, self.channels, self.hidden, 1, activation, key)

    @property
    def config(self) -> dict[str, Any]:
        """JSON values from which :func:`build` makes the same structure."""
        return {
            "event_shape": list(self.event_shape),
            "channels": list(self.channels),
            "hidden": list(self.hidden),
            "activation": self.activation,
        }

    def __call__(self, x: Array) -> Array:
        """Map an event to a scalar of shape ``()``."""
        return self.stack(x)[0]
