"""Coordinates in which the particles of SMC have about unit covariance."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from numpyro_genprior.infer.linalg.limits import MAX_DENSE_PARTICLE_COVARIANCE
from numpyro_genprior.infer.smc.state import Settings

SHRINKAGE = 1e-3  # of the correlations towards 0, so that the Cholesky factor exists


class Whitening(NamedTuple):
    """Square roots of two covariances, one for each half of the particles.

    Attributes
    ----------
    roots
        Cholesky factors ``(2, size, size)``, or standard deviations ``(2, size)``.
    """

    roots: jax.Array

    def to_xi(self, half: jax.Array, white: jax.Array) -> jax.Array:
        """Coordinates ξ of one particle; `half` (0 or 1) chooses the root."""
        first, second = (root * white if root.ndim == 1 else root @ white for root in self.roots)
        return jnp.where(half == 0, first, second)

    def from_xi(self, half: jax.Array, xi: jax.Array) -> jax.Array:
        """The inverse of `to_xi`."""
        if self.roots.ndim == 2:
            return xi / self.roots[half]
        first, second = (solve_triangular(root, xi, lower=True) for root in self.roots)
        return jnp.where(half == 0, first, second)


def covariance_root(xi: jax.Array, weights: jax.Array, settings: Settings) -> jax.Array:
    """Cholesky factor of the covariance of weighted particles, or their standard deviations.

    The latter if there are too few particles, or too many coordinates, for a dense covariance.
    """
    size = xi.shape[1]
    weights = weights / jnp.maximum(jnp.sum(weights), jnp.finfo(xi.dtype).tiny)
    centred = xi - (weights @ xi)[None, :]
    variance = weights @ centred**2
    variance = jnp.where(variance > 0, variance, 1.0)
    if (
        size > MAX_DENSE_PARTICLE_COVARIANCE
        or settings.num_particles * settings.target_ess < 10 * size
    ):
        return jnp.sqrt(variance)
    covariance = (centred * weights[:, None]).T @ centred
    return jnp.linalg.cholesky((1 - SHRINKAGE) * covariance + SHRINKAGE * jnp.diag(variance))
