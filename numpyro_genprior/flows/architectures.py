"""The normalizing flow that the training loops and the pretrained priors use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from flowjax.bijections import (
    AbstractBijection,
    Affine,
    Chain,
    RationalQuadraticSpline,
    Reshape,
)
from flowjax.distributions import AbstractDistribution, AbstractTransformed, StandardNormal
from flowjax.flows import coupling_flow
from jaxtyping import ArrayLike, PRNGKeyArray
from paramax import non_trainable

from numpyro_genprior.networks.architectures import register

__all__ = ["SplineCouplingFlow"]


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
    **Density** exact, by change of variables. **Fails when** the law has well separated modes
    (a diffeomorphism leaves bridges between them) or sits on a surface of lower dimension.

    ``transform`` and ``inverse`` cost the same. A standardised event beyond ``interval`` in most
    coordinates is outside the splines, where the density decays as the normal's.
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
        size = math.prod(shape)
        if size < 2:
            raise ValueError(
                f"A coupling flow needs events of two elements or more, got event_shape={shape}. "
                "For a scalar use a FlowJAX RationalQuadraticSpline on a StandardNormal."
            )
        flow = coupling_flow(
            key,
            base_dist=StandardNormal((size,)),
            transformer=RationalQuadraticSpline(knots=knots, interval=interval),
            cond_dim=cond_dim,
            flow_layers=layers,
            nn_width=width,
            nn_depth=depth,
        )
        bijection = flow.bijection
        if shape != (size,):
            bijection = Reshape(bijection, shape)
        standardise = Affine(
            jnp.broadcast_to(jnp.asarray(loc, float), shape),
            jnp.broadcast_to(jnp.asarray(scale, float), shape),
        )
        self.base_dist = StandardNormal(shape)
        self.bijection = Chain([bijection, non_trainable(standardise)])
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
