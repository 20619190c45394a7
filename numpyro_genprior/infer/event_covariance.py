"""`EventCovariance`: covariance of an event, linearised in its Gaussian coordinates."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions.transforms import Transform


class EventCovariance:
    """J_g C J_gᵀ, the covariance of ``x = g(u)`` to first order for u ~ N(û, C): an operator.

    Parameters
    ----------
    event
        g, a function of the flat coordinates.
    loc
        û.
    transform
        The affine map from standard normals to u, whose image has covariance C.

    Attributes
    ----------
    mean
        g(û), of the event's shape.

    Notes
    -----
    **Fails when** g is not nearly linear within one posterior standard deviation: compare with the
    draws of `AutoFisherLaplace.sample_posterior`, which are images under g itself.
    """

    def __init__(
        self,
        event: Callable[[jax.Array], jax.Array],
        loc: Float[Array, " latent"],
        transform: Transform,
    ) -> None:
        self._size, self._dtype = loc.shape[0], loc.dtype
        origin = jnp.zeros_like(loc)
        self.mean, self._push = jax.linearize(lambda z: event(jnp.asarray(transform(z))), origin)
        self._pull = jax.linear_transpose(self._push, origin)

    def matvec(self, v: jax.Array) -> jax.Array:
        """The covariance times an event-shaped array."""
        return self._push(self._pull(v)[0])

    def diagonal(self, *, batch_size: int = 64) -> jax.Array:
        """Variances, of the event's shape, from one forward pass for each coordinate."""

        def square(total: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
            units = jax.nn.one_hot(index, self._size, dtype=self._dtype)  # zero beyond the end
            return total + jnp.sum(jax.vmap(self._push)(units) ** 2, 0), None

        batch = min(batch_size, self._size)
        steps = -(-self._size // batch)
        index = jnp.arange(steps * batch).reshape(steps, batch)
        return jax.lax.scan(square, jnp.zeros_like(self.mean), index)[0]

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws of the linearised event, of shape ``sample_shape + event_shape``."""
        white = jax.random.normal(key, (*sample_shape, self._size), self._dtype)
        push = self._push
        for _ in sample_shape:
            push = jax.vmap(push)
        deviation = push(white)
        return jnp.broadcast_to(self.mean, deviation.shape) + deviation

    def dense(self) -> jax.Array:
        """The matrix, of shape ``(size, size)`` over the flattened event: for small events."""
        rows = jax.vmap(self._push)(jnp.eye(self._size, dtype=self._dtype))
        rows = rows.reshape(self._size, -1)
        return rows.T @ rows
