"""The small networks that the training loops and the pretrained priors use.

All are Equinox modules with a static configuration of JSON values, so that a file can name the
architecture and :func:`build` can make it again without a skeleton. All are unbatched. Activations
are stored by name, because ``jax.nn`` functions cannot be pickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_genprior.networks.resampling import DownBlock, UpBlock

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


def _identity(x: Array) -> Array:
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
    "identity": _identity,
}
"""Activation functions by the names that configurations use."""

ARCHITECTURES: dict[str, type] = {}
"""Registered architectures by class name; :mod:`numpyro_genprior.flows` adds its own."""

_MIN_SCALE = 1e-4  # keeps an encoder's standard deviation, and so its KL divergence, finite

_T = TypeVar("_T", bound=type)


def register(cls: _T) -> _T:
    """Add an architecture to :data:`ARCHITECTURES` under its class name (a class decorator).

    Parameters
    ----------
    cls
        A class with a ``config`` property of JSON values, such that ``cls(**config, key=key)``
        makes a module of the same structure.

    Returns
    -------
    The class, unchanged.

    Raises
    ------
    ValueError
        If another class has taken the name.
    """
    taken = ARCHITECTURES.get(cls.__name__)
    if taken is not None and taken is not cls and taken.__module__ != cls.__module__:
        raise ValueError(
            f"An architecture named {cls.__name__!r} is registered already, by {taken.__module__}. "
            "Rename the new class."
        )
    ARCHITECTURES[cls.__name__] = cls
    return cls


def build(name: str, config: Mapping[str, Any], *, key: PRNGKeyArray | None = None) -> Any:
    """Make a registered architecture from its name and configuration.

    Parameters
    ----------
    name
        A key of :data:`ARCHITECTURES`.
    config
        The ``config`` of a module of that architecture; lists stand for tuples.
    key
        Initialises the weights. Without one a fixed key is taken, which suits a skeleton whose
        weights are replaced at once.

    Returns
    -------
    A new module.

    Raises
    ------
    ValueError
        If the name is not registered or the configuration does not fit the architecture.
    """
    if name not in ARCHITECTURES:
        raise ValueError(
            f"Unknown architecture {name!r}; expected one of {', '.join(sorted(ARCHITECTURES))}. "
            "Build the module yourself and pass it as `like=`."
        )
    if key is None:
        key = jr.key(0)
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    try:
        return ARCHITECTURES[name](**arguments, key=key)
    except TypeError as error:
        raise ValueError(
            f"The configuration {dict(config)} does not fit the architecture {name}: {error}. "
            "Pass the `config` of a module of that architecture."
        ) from error


def _sizes(name: str, values: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (values,) if isinstance(values, int) else tuple(int(v) for v in values)
    if any(v < 1 for v in sizes):
        raise ValueError(f"`{name}` must hold positive sizes, got {values}.")
    return sizes


def _activation(name: str) -> str:
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(
            f"Unknown activation {name!r}; expected a name among {', '.join(ACTIVATIONS)}. "
            "Functions are not taken, because they cannot be stored in a file."
        )
    return name


def _image_shape(event_shape: Sequence[int], stages: int) -> tuple[int, int, int]:
    shape = _sizes("event_shape", event_shape)
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


class _Dense(eqx.Module):
    """Linear layers with an activation between them, none after the last."""

    layers: tuple[eqx.nn.Linear, ...]
    activation: str = eqx.field(static=True)

    def __init__(self, sizes: Sequence[int], activation: str, key: PRNGKeyArray) -> None:
        keys = jr.split(key, len(sizes) - 1)
        pairs = zip(sizes[:-1], sizes[1:], keys, strict=True)
        self.layers = tuple(eqx.nn.Linear(a, b, key=k) for a, b, k in pairs)
        self.activation = _activation(activation)

    def __call__(self, x: Float[Array, " i"]) -> Float[Array, " o"]:
        for layer in self.layers[:-1]:
            x = ACTIVATIONS[self.activation](layer(x))
        return self.layers[-1](x)


def _with_condition(z: Array, condition: Array | None, size: int | None) -> Array:
    if (condition is None) != (size is None):
        got = "none was given" if condition is None else "one was given"
        raise ValueError(
            f"This network has condition_size={size} but {got}. "
            "Call it as net(z, condition) exactly when it was built with `condition_size`."
        )
    if condition is None or size is None:
        return z
    flat = jnp.ravel(jnp.asarray(condition, z.dtype))
    if flat.size != size:
        raise ValueError(
            f"The condition must have {size} elements (`condition_size`), got shape "
            f"{jnp.shape(condition)}. Give one unbatched condition a call."
        )
    return jnp.concatenate([z, flat])


def _loc_and_scale(raw: Array) -> tuple[Array, Array]:
    loc, scale = jnp.split(raw, 2)
    return loc, jax.nn.softplus(scale) + _MIN_SCALE


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
        For sizes that are not positive and for unknown activations; on call when the condition is
        missing, superfluous or of the wrong size.

    Notes
    -----
    **Fails when** events have long-range structure and data are few: nothing in it is local.
    """

    dense: _Dense
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
        (self.latent_size,) = _sizes("latent_size", latent_size)
        self.event_shape = _sizes("event_shape", event_shape)
        self.hidden = _sizes("hidden", hidden)
        self.activation = _activation(activation)
        self.output = _activation(output)
        self.condition_size = condition_size
        sizes = (latent_size + (condition_size or 0), *self.hidden, math.prod(self.event_shape))
        self.dense = _Dense(sizes, activation, key)

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
        raw = self.dense(_with_condition(z, condition, self.condition_size))
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
        For sizes that are not positive and for unknown activations.

    Notes
    -----
    The scale is a softplus and at least 1e-4. **Fails when** events lie far from the training
    data: the answer is then confident and wrong, so it serves as a proposal and not as a posterior.
    """

    dense: _Dense
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
        self.event_shape = _sizes("event_shape", event_shape)
        (self.latent_size,) = _sizes("latent_size", latent_size)
        self.hidden = _sizes("hidden", hidden)
        self.activation = _activation(activation)
        sizes = (math.prod(self.event_shape), *self.hidden, 2 * latent_size)
        self.dense = _Dense(sizes, activation, key)

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
        return _loc_and_scale(self.dense(jnp.ravel(x)))


@register
class MLPCritic(eqx.Module):
    """A multilayer perceptron from an event to a number, the adversary of :func:`fit_gan`.

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
        For sizes that are not positive and for unknown activations.
    """

    dense: _Dense
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
        self.event_shape = _sizes("event_shape", event_shape)
        self.hidden = _sizes("hidden", hidden)
        self.activation = _activation(activation)
        self.dense = _Dense((math.prod(self.event_shape), *self.hidden, 1), activation, key)

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


@register
class ConvDecoder(eqx.Module):
    """Dense layers and transposed convolutions from a latent vector to an image.

    Each entry of ``channels`` is followed by a transposed convolution (kernel 4, stride 2) that
    doubles rows and columns: ``channels=(64, 32)`` on 28×28 images goes 7×7×64, 14×14×32, 28×28.
    The layout follows DCGAN (Radford et al. 2016) without batch normalisation, which would tie the
    events of a batch together.

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
        For sizes that are not positive or do not divide and for unknown activations; on call when
        the condition is missing, superfluous or of the wrong size.

    Notes
    -----
    Runs at full speed inside NUTS on CPU, see :mod:`numpyro_genprior.networks.resampling`.
    """

    dense: _Dense
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
        (self.latent_size,) = _sizes("latent_size", latent_size)
        self.channels = _sizes("channels", channels)
        rows, cols, colours = _image_shape(event_shape, len(self.channels))
        self.event_shape = _sizes("event_shape", event_shape)
        self.hidden = _sizes("hidden", hidden)
        self.activation = _activation(activation)
        self.output = _activation(output)
        self.condition_size = condition_size
        dense_key, *keys = jr.split(key, 1 + len(self.channels))
        coarse = (rows >> len(self.channels)) * (cols >> len(self.channels)) * self.channels[0]
        sizes = (latent_size + (condition_size or 0), *self.hidden, coarse)
        self.dense = _Dense(sizes, activation, dense_key)
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
        x = self.dense(_with_condition(z, condition, self.condition_size))
        x = x.reshape(self.event_shape[0] >> stages, self.event_shape[1] >> stages, -1)
        for block in self.blocks:
            x = block(ACTIVATIONS[self.activation](x))
        return ACTIVATIONS[self.output](x).reshape(self.event_shape)


class _ConvStack(eqx.Module):
    """Strided convolutions, then dense layers: the mirror of :class:`ConvDecoder`."""

    blocks: tuple[DownBlock, ...]
    dense: _Dense
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
        rows, cols, colours = _image_shape(event_shape, len(channels))
        dense_key, *keys = jr.split(key, 1 + len(channels))
        ins = (colours, *channels[:-1])
        self.blocks = tuple(
            DownBlock(a, b, key=k) for a, b, k in zip(ins, channels, keys, strict=True)
        )
        coarse = (rows >> len(channels)) * (cols >> len(channels)) * channels[-1]
        self.dense = _Dense((coarse, *hidden, out_size), activation, dense_key)
        self.activation = _activation(activation)

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
        For sizes that are not positive or do not divide and for unknown activations.

    Notes
    -----
    The scale is a softplus and at least 1e-4. **Fails when** events lie far from the training
    data: the answer is then confident and wrong, so it serves as a proposal and not as a posterior.
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
        self.event_shape = _sizes("event_shape", event_shape)
        (self.latent_size,) = _sizes("latent_size", latent_size)
        self.channels = _sizes("channels", channels)
        self.hidden = _sizes("hidden", hidden)
        self.activation = _activation(activation)
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
        return _loc_and_scale(self.stack(x))


@register
class ConvCritic(eqx.Module):
    """Strided convolutions and dense layers from an image to a number, for :func:`fit_gan`.

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
        For sizes that are not positive or do not divide and for unknown activations.
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
        self.event_shape = _sizes("event_shape", event_shape)
        self.channels = _sizes("channels", channels)
        self.hidden = _sizes("hidden", hidden)
        self.activation = _activation(activation)
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
