"""Fisher information of the multivariate Student's t and the matrix normal distributions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from numpyro_genprior.infer.fisher.registry import broadcast, register_fisher
from numpyro_genprior.infer.fisher.special import inverse, trigamma_excess

MAX_DF = 1e5  # beyond it the information about df is lost in rounding, and negligible


def _solve(chol: jax.Array, right: jax.Array) -> jax.Array:
    """``L⁻¹ right``."""
    return jax.lax.linalg.triangular_solve(chol, right, left_side=True, lower=True)


def _shape_and_size(chol: jax.Array, tangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The tangent of ``Σ = LLᵀ``, split into a change of shape and a change of size.

    With ``X = L⁻¹ dΣ L⁻ᵀ = Y + Yᵀ``, ``dτ = tr X / 2n`` is the relative change of size, and
    ``X₀ = X - 2 dτ I`` that of shape. Returns w with ``|w|² = ½ tr X₀²``, and dτ.
    """
    y = _solve(chol, tangent)
    diagonal = jnp.diagonal(y, axis1=-2, axis2=-1)
    size = jnp.mean(diagonal, -1)
    centred = math.sqrt(2) * (diagonal - size[..., None])
    below_diagonal = jnp.tril(y, -1).reshape(*y.shape[:-2], -1)
    return jnp.concatenate([below_diagonal, centred], -1), size


# ---- multivariate Student's t --------------------------------------------------------------------


def _multivariate_student_t(
    student: dist.MultivariateStudentT, d: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """As for ``StudentT``, in p dimensions (Lange, Little & Taylor 1989).

    ``b = s / (ν + s)``, where s is the squared distance, is Beta(p/2, ν/2) and independent of the
    direction. The square is completed in the size, whose regression coefficient on ν is
    ``-1/(ν(ν+p))``; the information that remains about ν is
    ``¼ [ε(ν/2) - ε((ν+p)/2)] - p / (ν(ν+p)²)`` with ``ε(a) = ψ₁(a) - 1/a``.
    """
    chol, df = broadcast(student, student.scale_tril, 2), broadcast(student, student.df)
    p = chol.shape[-1]
    loc = _solve(chol, d["loc"][..., None])[..., 0]
    shape, size = _shape_and_size(chol, d["scale_tril"])
    factor = jnp.sqrt(1 - 2 / (df + p + 2))[..., None]
    d_log_df = inverse(df) * jnp.where(jnp.isfinite(df), d["df"], 0)
    x = jnp.minimum(df, MAX_DF)
    excess = trigamma_excess(x / 2) - trigamma_excess((x + p) / 2)
    remainder = jnp.maximum(excess * x**2 / 4 - p * x / (x + p) ** 2, 0)
    return (
        factor * loc,
        factor * shape,
        jnp.sqrt(2 * p / (1 + (p + 2) * inverse(df))) * (size - d_log_df / (df + p)),
        jnp.sqrt(remainder) * d_log_df,
    )


register_fisher(
    dist.MultivariateStudentT,
    parameters=lambda student: {
        "df": broadcast(student, student.df),
        "loc": broadcast(student, student.loc, 1),
        "scale_tril": broadcast(student, jnp.tril(student.scale_tril), 2),
    },
    whiten=_multivariate_student_t,
)


# ---- matrix normal -------------------------------------------------------------------------------


def _matrix_normal(
    normal: dist.MatrixNormal, d: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """``½ tr X²`` for ``X = I ⊗ Xᵤ + Xᵥ ⊗ I``: the two shapes, and the sum of the two sizes."""
    rows = broadcast(normal, normal.scale_tril_row, 2)
    columns = broadcast(normal, normal.scale_tril_column, 2)
    n, p = rows.shape[-1], columns.shape[-1]
    half = jnp.swapaxes(_solve(rows, d["loc"]), -1, -2)
    row_shape, row_size = _shape_and_size(rows, d["scale_tril_row"])
    column_shape, column_size = _shape_and_size(columns, d["scale_tril_column"])
    return (
        _solve(columns, half),
        math.sqrt(p) * row_shape,
        math.sqrt(n) * column_shape,
        math.sqrt(2 * n * p) * (row_size + column_size),
    )


register_fisher(
    dist.MatrixNormal,
    parameters=lambda normal: {
        "loc": broadcast(normal, normal.loc, 2),
        "scale_tril_row": broadcast(normal, jnp.tril(normal.scale_tril_row), 2),
        "scale_tril_column": broadcast(normal, jnp.tril(normal.scale_tril_column), 2),
    },
    whiten=_matrix_normal,
)
