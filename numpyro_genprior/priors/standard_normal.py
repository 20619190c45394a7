"""The standard normal latent: no parameters, any event shape."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample


class StandardNormal(Distribution):
    """Independent standard normals as one event: the usual latent distribution.

    It has no arrays, so a prior that uses it has exactly the weights of its network as leaves.

    Parameters
    ----------
    shape
        The event shape.

    Notes
    -----
    **Density** exact: ``log p(z) = sum(-z² / 2 - log(2 π) / 2)``.

    **Fails when**: no case is known. It is the reference distribution of this package.
    """

    arg_constraints = {}
    pytree_data_fields = ()

    def __init__(self, shape: int | tuple[int, ...], *, validate_args: bool | None = None) -> None:
        event_shape = (shape,) if isinstance(shape, int) else tuple(shape)
        super().__init__((), event_shape, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:
        return True

    @property
    def support(self) -> constraints.Constraint:
        if not self.event_shape:
            return constraints.real
        return constraints.independent(constraints.real, len(self.event_shape))

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        if key is None:
            raise ValueError("A random key is needed. Pass jax.random.key(0), or seed the model.")
        return jax.random.normal(key, sample_shape + self.event_shape)

    @validate_sample
    def log_prob(self, value: ArrayLike, intermediates: list | None = None) -> jax.Array:
        value = jnp.asarray(value)
        terms = -0.5 * value**2 - 0.5 * math.log(2 * math.pi)
        return jnp.sum(terms, axis=tuple(range(-len(self.event_shape), 0)))

    @property
    def mean(self) -> jax.Array:
        return jnp.zeros(self.event_shape)

    @property
    def variance(self) -> jax.Array:
        return jnp.ones(self.event_shape)

    @property
    def mode(self) -> jax.Array:
        return jnp.zeros(self.event_shape)

    def entropy(self) -> jax.Array:
        size = math.prod(self.event_shape)
        return jnp.asarray(0.5 * size * (1 + math.log(2 * math.pi)))
