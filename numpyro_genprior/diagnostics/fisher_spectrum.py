"""Singular values and directions of ``M = F^(1/2) ∂θ/∂ξ``, at a point or averaged over several."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from numpyro_genprior.infer.linalg.limits import MAX_DENSE_SPECTRUM, MAX_JACOBIAN
from numpyro_genprior.infer.linalg.subspace_iteration import OVERSAMPLING, leading_subspace
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.infer.whitening import prior_affine


def jacobian_is_small(posterior: Posterior) -> bool:
    """Whether M is small enough to be formed."""
    xi = jax.ShapeDtypeStruct((posterior.size,), jnp.result_type(float))
    rows = jax.eval_shape(posterior.whitened, xi).shape[0]
    return posterior.size <= MAX_DENSE_SPECTRUM and posterior.size * rows <= MAX_JACOBIAN


def prior_coordinates(posterior: Posterior, xi: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The linear map from coordinates of unit prior precision to ξ: the identity for most."""
    if posterior.standard_normal.all():
        return lambda v: v
    return prior_affine(posterior.linearise(xi))


@eqx.filter_jit
def fisher_product(posterior: Posterior, points: jax.Array, v: jax.Array) -> jax.Array:
    """``MᵀM v``, averaged over points of shape ``(points, size)``."""
    return _products(posterior, points, v[None])[0]


@eqx.filter_jit
def directions_dense(posterior: Posterior, points: jax.Array) -> tuple[jax.Array, jax.Array]:
    """All singular values, and the directions as rows."""
    unit = jnp.eye(posterior.size, dtype=points.dtype)
    _, singular, rows = jnp.linalg.svd(_triangular(posterior, points, unit))
    return singular, rows


@eqx.filter_jit
def directions_low_rank(
    posterior: Posterior, points: jax.Array, rank: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The largest singular values, their directions, and the largest of the others."""
    size = posterior.size
    width = min(size, rank + OVERSAMPLING)
    probes = leading_subspace(
        lambda rows: _products(posterior, points, rows), size, width, points.dtype
    )
    _, singular, rows = jnp.linalg.svd(_triangular(posterior, points, probes))
    discarded = singular[rank] if width > rank else jnp.zeros((), singular.dtype)
    return singular[:rank], rows[:rank] @ probes, discarded


def _products(posterior: Posterior, points: jax.Array, vectors: jax.Array) -> jax.Array:
    scale = prior_coordinates(posterior, jnp.mean(points, axis=0))
    pull = jax.linear_transpose(scale, points[0])

    def add(total: jax.Array, point: jax.Array) -> tuple[jax.Array, None]:
        linear = posterior.linearise(point)
        return total + jax.vmap(lambda v: pull(linear.fisher(scale(v)))[0])(vectors), None

    return jax.lax.scan(add, jnp.zeros_like(vectors), points)[0] / points.shape[0]


def _triangular(posterior: Posterior, points: jax.Array, vectors: jax.Array) -> jax.Array:
    """R with ``RᵀR`` the mean over points of ``(M V)ᵀ (M V)``, V the vectors as columns."""
    scale = prior_coordinates(posterior, jnp.mean(points, axis=0))

    def stack(upper: jax.Array, point: jax.Array) -> tuple[jax.Array, None]:
        images = jax.vmap(posterior.linearise(point).matvec)(jax.vmap(scale)(vectors))
        return jnp.linalg.qr(jnp.concatenate([upper, images.T]), mode="r"), None

    first = jnp.zeros((vectors.shape[0], vectors.shape[0]), points.dtype)
    return jax.lax.scan(stack, first, points)[0] / jnp.sqrt(points.shape[0])
