"""Normalizing flows that the training loops and the pretrained priors use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from flowjax.bijections import (
    AbstractBijection,
    Affine,
    Chain,
    Coupling,
    Permute,
    RationalQuadraticSpline,
    Reshape,
)
from flowjax.distributions import AbstractDistribution, AbstractTransformed, StandardNormal
from flowjax.flows import coupling_flow
from jaxtyping import Array, ArrayLike, PRNGKeyArray
from paramax import Parameterize, non_trainable

from numpyro_genprior.networks.architectures import register

__all__ = ["AffineCouplingFlow", "SplineCouplingFlow"]


def _flat_size(shape: tuple[int, ...]) -> int:
    size = math.prod(shape)
    if size < 2:
        raise ValueError(
            f"A coupling flow needs events of two elements or more, got event_shape={shape}. "
            "For a scalar use a FlowJAX RationalQuadraticSpline on a StandardNormal."
        )
    return size


def _standardised_events(
    bijection: AbstractBijection, shape: tuple[int, ...], loc: ArrayLike, scale: ArrayLike
) -> AbstractBijection:
    """A bijection of vectors, reshaped to events and followed by ``loc + scale * x``."""
    if shape != bijection.shape:
        bijection = Reshape(bijection, shape)
    standardise = Affine(
        jnp.broadcast_to(jnp.asarray(loc, float), shape),
        jnp.broadcast_to(jnp.asarray(scale, float), shape),
    )
    return Chain([bijection, non_trainable(standardise)])


@register
class SplineCouplingFlow(AbstractTransformed):
    """A FlowJAX distribution: rational-quadratic spline coupling layers over a standard normal.

    The spline transformer is that of Durkan et al. (2019), *Neural spline flows*. The event is
    ``loc + scale * T(z)``, with ``loc`` and ``scale`` fixed: they standardise the data.

    Parameters
    ----------
    event_shape
        Shape of an event, with two elements or more.
    cond_dim
        Number of elements of the condition vector, or None.
    layers
        Number of coupling layers.
    knots
        Number of knots of each spline.
    interval
        The splines act on ``(-interval, interval)`` and are the identity outside.
    width, depth
        Width and number of the hidden layers of each conditioner.
    loc, scale
        Location and scale of the data, of the event's shape or scalars; not trained.
    key
        Initialises the weights.

    Raises
    ------
    ValueError
        If the event has fewer than two elements.

    Notes
    -----
    **Density** exact, by change of variables. **Fails when** the distribution has well separated
    modes (a diffeomorphism leaves bridges between them) or lies on a surface of lower dimension.

    ``transform`` and ``inverse`` cost the same. Where most coordinates of a standardised event
    lie beyond ``interval``, the splines are the identity and the density decays as the normal's.
    """

    base_dist: AbstractDistribution
    bijection: AbstractBijection
    event_shape: tuple[int, ...] = eqx.field(static=True)
    layers: int = eqx.field(static=True)
    knots: int = eqx.field(static=True)
    interval: float = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)

    def __init__(
        self,
        event_shape: int | Sequence[int],
        *,
        cond_dim: int | None = None,
        layers: int = 6,
        knots: int = 8,
        interval: float = 4.0,
        width: int = 64,
        depth: int = 1,
        loc: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        key: PRNGKeyArray,
    ) -> None:
        shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
        size = _flat_size(shape)
        flow = coupling_flow(
            key,
            base_dist=StandardNormal((size,)),
            transformer=RationalQuadraticSpline(knots=knots, interval=interval),
            cond_dim=cond_dim,
            flow_layers=layers,
            nn_width=width,
            nn_depth=depth,
        )
        self.base_dist = StandardNormal(shape)
        self.bijection = _standardised_events(flow.bijection, shape, loc, scale)
        self.event_shape = shape
        self.layers = layers
        self.knots = knots
        self.interval = interval
        self.width = width
        self.depth = depth

    @property
    def config(self) -> dict[str, Any]:
        """JSON values from which :func:`build` makes the same structure."""
        return {
            "event_shape": list(self.event_shape),
            "cond_dim": None if self.cond_shape is None else self.cond_shape[0],
            "layers": self.layers,
            "knots": self.knots,
            "interval": self.interval,
            "width": self.width,
            "depth": self.depth,
        }


def _bounded_scale(raw: Array, bound: float) -> Array:
    return jnp.exp(bound * jnp.tanh(raw / bound))


@register
class AffineCouplingFlow(AbstractTransformed):
    """A FlowJAX distribution: affine coupling layers over a standard normal.

    Each layer shifts and scales one half of the coordinates by functions of the other half (Dinh
    et al. 2017, *Density estimation using Real NVP*). Conditioners are smooth (silu), and a layer's
    scales stay between ``exp(-bound)`` and ``exp(bound)``. The event is ``loc + scale * T(z)``,
    with ``loc`` and ``scale`` fixed: they standardise the data.

    Parameters
    ----------
    event_shape
        Shape of an event, with two elements or more.
    cond_dim
        Number of elements of the condition vector, or None.
    layers
        Number of coupling layers. The two halves are swapped between layers, and all coordinates
        are permuted at random after every second one.
    bound
        Largest absolute logarithm of a layer's scales, positive.
    width, depth
        Width and number of the hidden layers of each conditioner.
    loc, scale
        Location and scale of the data, of the event's shape or scalars; not trained.
    key
        Initialises the weights; ``T`` is then close to a permutation of the coordinates.

    Raises
    ------
    ValueError
        If the event has fewer than two elements or ``bound`` is not positive.

    Notes
    -----
    **Density** exact, by change of variables. **Fails when** the distribution has well separated
    modes (a diffeomorphism leaves bridges between them), lies on a surface of lower dimension, or
    has a density with jumps, which splines follow better.

    A posterior over the latent takes fewer and cheaper steps than with splines, whose second
    derivatives jump at the knots. Weight decay in training makes the flow smoother still.
    """

    base_dist: AbstractDistribution
    bijection: AbstractBijection
    event_shape: tuple[int, ...] = eqx.field(static=True)
    layers: int = eqx.field(static=True)
    bound: float = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)

    def __init__(
        self,
        event_shape: int | Sequence[int],
        *,
        cond_dim: int | None = None,
        layers: int = 4,
        bound: float = 0.5,
        width: int = 64,
        depth: int = 2,
        loc: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        key: PRNGKeyArray,
    ) -> None:
        shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
        size = _flat_size(shape)
        if not bound > 0.0:
            raise ValueError(f"`bound` must be positive, got {bound}. A usual value is 0.5.")
        transformer = eqx.tree_at(
            lambda affine: affine.scale,
            Affine(),
            Parameterize(_bounded_scale, jnp.zeros(()), float(bound)),
        )
        half = size // 2
        swap = jnp.concatenate([jnp.arange(half, size), jnp.arange(half)])
        parts: list[AbstractBijection] = []
        for i, layer_key in enumerate(jr.split(key, layers)):
            net_key, order_key = jr.split(layer_key)
            coupling = Coupling(
                net_key,
                transformer=transformer,
                untransformed_dim=half,
                dim=size,
                cond_dim=cond_dim,
                nn_width=width,
                nn_depth=depth,
                nn_activation=jax.nn.silu,
            )
            coupling = eqx.tree_at(
                lambda c: c.conditioner.layers[-1],
                coupling,
                replace_fn=lambda layer: jax.tree.map(lambda leaf: 0.01 * leaf, layer),
            )
            order = swap if i % 2 == 0 else jr.permutation(order_key, size)
            parts += [coupling, Permute(order)]
        self.base_dist = StandardNormal(shape)
        self.bijection = _standardised_events(Chain(parts), shape, loc, scale)
        self.event_shape = shape
        self.layers = layers
        self.bound = bound
        self.width = width
        self.depth = depth

    @property
    def config(self) -> dict[str, Any]:
        """JSON values from which :func:`build` makes the same structure."""
        return {
            "event_shape": list(self.event_shape),
            "cond_dim": None if self.cond_shape is None else self.cond_shape[0],
            "layers": self.layers,
            "bound": self.bound,
            "width": self.width,
            "depth": self.depth,
        }
