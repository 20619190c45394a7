"""Layers and checks that the architectures share: activations, sizes, dense layers, conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

_MIN_SCALE = 1e-4  # keeps the logarithm of an encoder's scale, and so its KL divergence, finite


def identity(x: Array) -> Array:
    return x


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "identity": identity,
}
"""Activation functions by the names that configurations use."""


def positive_sizes(name: str, values: int | Sequence[int]) -> tuple[int, ...]:
    """Sizes as a tuple; raises a ValueError unless all are positive."""
    sizes = (values,) if isinstance(values, int) else tuple(int(v) for v in values)
    if any(v < 1 for v in sizes):
        raise ValueError(f"`{name}` must hold positive sizes, got {values}.")
    return sizes


def activation_name(name: str) -> str:
    """The name of a known activation; raises a ValueError for any other."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(
            f"Unknown activation {name!r}; expected a name among {', '.join(ACTIVATIONS)}. "
            "Pass a name: functions cannot be stored in a file."
        )
    return name


def image_shape(event_shape: Sequence[int], stages: int) -> tuple[int, int, int]:
    """Rows, columns and channels; raises a ValueError unless they can be halved `stages` times."""
    shape = positive_sizes("event_shape", event_shape)
    if len(shape) not in (2, 3):
        raise ValueError(
            f"`event_shape` must be (rows, cols) or (rows, cols, channels), got {shape}. "
            "For other events use the MLP architectures."
        )
    step = 2**stages
    if shape[0] % step or shape[1] % step:
        raise ValueError(
            f"Rows and columns must be divisible by {step} = 2 ** {stages} (one factor 2 for each "
            f"entry of `channels`), got {shape}. Use fewer channels entries or pad the events."
        )
    return shape[0], shape[1], shape[2] if len(shape) == 3 else 1


class Dense(eqx.Module):
    """Linear layers with an activation between them, none after the last."""

    layers: tuple[eqx.nn.Linear, ...]
    activation: str = eqx.field(static=True)

    def __init__(self, sizes: Sequence[int], activation: str, key: PRNGKeyArray) -> None:
        keys = jr.split(key, len(sizes) - 1)
        pairs = zip(sizes[:-1], sizes[1:], keys, strict=True)
        self.layers = tuple(eqx.nn.Linear(a, b, key=k) for a, b, k in pairs)
        self.activation = activation_name(activation)

    def __call__(self, x: Float[Array, " i"]) -> Float[Array, " o"]:
        for layer in self.layers[:-1]:
            x = ACTIVATIONS[self.activation](layer(x))
        return self.layers[-1](x)


def with_condition(z: Array, condition: Array | None, size: int | None) -> Array:
    """The latent with the condition appended; raises a ValueError if their sizes do not fit."""
    if (condition is None) != (size is None):
        got = "none was given" if condition is None else "one was given"
        raise ValueError(
            f"This network has condition_size={size} but {got}. "
            "Call it as net(z, condition) if and only if it was built with `condition_size`."
        )
    if condition is None or size is None:
        return z
    flat = jnp.atleast_1d(jnp.asarray(condition, z.dtype))
    if flat.shape != (size,):
        raise ValueError(
            f"The condition must have shape ({size},) (`condition_size`), got "
            f"{jnp.shape(condition)}. Pass one unbatched condition at each call."
        )
    return jnp.concatenate([z, flat])


def loc_and_scale(raw: Array) -> tuple[Array, Array]:
    """Split the output of an encoder into location and positive scale, each ``(latent_size,)``."""
    loc, scale = jnp.split(raw, 2)
    return loc, jax.nn.softplus(scale) + _MIN_SCALE
