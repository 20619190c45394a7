"""Linear algebra of a covariance ``diag(d) + F Fᵀ`` of low rank plus diagonal, by Woodbury.

With the capacitance ``C = I + Fᵀ diag(d)⁻¹ F``, ``Σ⁻¹ = D⁻¹ - D⁻¹ F C⁻¹ Fᵀ D⁻¹`` and
``log|Σ| = log|C| + log|D|``; everything costs O(n rank²).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float


def capacitance_cholesky(
    factor: Float[Array, "n rank"], diagonal: Float[Array, " n"]
) -> Float[Array, "rank rank"]:
    """The lower Cholesky factor of ``C = I + Fᵀ D⁻¹ F``."""
    rank = factor.shape[-1]
    capacitance = jnp.eye(rank, dtype=factor.dtype) + factor.T @ (factor / diagonal[:, None])
    return jnp.linalg.cholesky(capacitance)


def minimum_norm_latent(
    factor: Float[Array, "n rank"], diagonal: Float[Array, " n"], residual: Float[Array, " n"]
) -> Float[Array, " latent"]:
    """The shortest z with ``F z₁ + √D z₂ = residual``: ``Bᵀ Σ⁻¹ residual`` for ``B = [F, √D]``."""
    weighted = residual / diagonal
    chol = capacitance_cholesky(factor, diagonal)
    first = cho_solve((chol, True), factor.T @ weighted)  # Fᵀ Σ⁻¹ r
    solved = weighted - (factor @ first) / diagonal  # Σ⁻¹ r
    return jnp.concatenate([first, jnp.sqrt(diagonal) * solved])


def inverse_root(
    factor: Float[Array, "*batch n rank"],
    diagonal: Float[Array, "*batch n"],
    d: Float[Array, "*batch n"],
) -> tuple[jax.Array, jax.Array]:
    """A root of ``(D + F Fᵀ)⁻¹`` applied to d, without the n × n matrix.

    With ``A = D^(-1/2) F`` and ``u = D^(-1/2) d``, ridge regression of u on A leaves
    ``|u - A y|² + |y|² = uᵀ (I + A Aᵀ)⁻¹ u`` at its minimum ``y = (I + AᵀA)⁻¹ Aᵀ u``: the root is
    the residual and y together, n + rank numbers, at O(n rank).
    """
    scale = jnp.sqrt(diagonal)
    a, u = factor / scale[..., None], (d / scale)[..., None]
    transposed = jnp.swapaxes(a, -1, -2)
    capacitance = transposed @ a + jnp.broadcast_to(
        jnp.eye(a.shape[-1], dtype=a.dtype), (*a.shape[:-2], a.shape[-1], a.shape[-1])
    )
    y = cho_solve((jnp.linalg.cholesky(capacitance), True), transposed @ u)
    return (u - a @ y)[..., 0], y[..., 0]
