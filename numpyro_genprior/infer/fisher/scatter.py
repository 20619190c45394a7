"""Fisher information of Student's t in several dimensions, normal matrices and directions."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import i0e, i1e

from numpyro_genprior.infer.fisher.registry import broadcast, register_elementwise, register_fisher
from numpyro_genprior.infer.fisher.special import inverse, trigamma_excess


def _solve(chol: jax.Array, right: jax.Array) -> jax.Array:
    """``L⁻¹ right``."""
    return jax.lax.linalg.triangular_solve(chol, right, left_side=True, lower=True)


def _shape(chol: jax.Array, tangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The motion of ``Σ = LLᵀ`` as one of shape and one of size.

    With ``X = L⁻¹ dΣ L⁻ᵀ = Y + Yᵀ`` and ``dτ = tr X / 2n`` the relative change of size, the rest
    is ``X₀ = X - 2 dτ I``. Gives w with ``|w|² = ½ tr X₀²``, and dτ.
    """
    y = _solve(chol, tangent)
    diagonal = jnp.diagonal(y, axis1=-2, axis2=-1)
    size = jnp.mean(diagonal, -1)
    rest = math.sqrt(2) * (diagonal - size[..., None])
    strict = jnp.tril(y, -1).reshape(*y.shape[:-2], -1)
    return jnp.concatenate([strict, rest], -1), size


# ---- multivariate Student's t --------------------------------------------------------------------


def _multivariate_student_t(law: Any, d: Any) -> Any:
    """As for ``StudentT``, in p dimensions (Lange, Little and Taylor 1989).

    ``b = s / (ν + s)``, s the squared distance, is Beta(p/2, ν/2) and independent of the direction.
    Size and ν have covariance ``-1/(ν(ν+p))`` of the information about the size; what remains of
    ν is ``¼ [ε(ν/2) - ε((ν+p)/2)] - p / (ν(ν+p)²)`` with ``ε(a) = ψ₁(a) - 1/a``.
    """
    chol, df = broadcast(law, law.scale_tril, 2), broadcast(law, law.df)
    p = chol.shape[-1]
    loc = _solve(chol, d["loc"][..., None])[..., 0]
    shape, size = _shape(chol, d["scale_tril"])
    outer = jnp.sqrt(1 - 2 / (df + p + 2))[..., None]
    moved = inverse(df) * jnp.where(jnp.isfinite(df), d["df"], 0)
    x = jnp.minimum(df, 1e5)  # beyond it is lost in rounding, and next to nothing
    lag = trigamma_excess(x / 2) - trigamma_excess((x + p) / 2)
    rest = jnp.maximum(lag * x**2 / 4 - p * x / (x + p) ** 2, 0)
    return (
        outer * loc,
        outer * shape,
        jnp.sqrt(2 * p / (1 + (p + 2) * inverse(df))) * (size - moved / (df + p)),
        jnp.sqrt(rest) * moved,
    )


register_fisher(
    dist.MultivariateStudentT,
    parameters=lambda law: {
        "df": broadcast(law, law.df),
        "loc": broadcast(law, law.loc, 1),
        "scale_tril": broadcast(law, jnp.tril(law.scale_tril), 2),
    },
    whiten=_multivariate_student_t,
)


# ---- normal matrices -----------------------------------------------------------------------------


def _matrix_normal(law: Any, d: Any) -> Any:
    """``½ tr X²`` for ``X = I ⊗ Xᵤ + Xᵥ ⊗ I``: the two shapes, and the sum of the two sizes."""
    rows = broadcast(law, law.scale_tril_row, 2)
    columns = broadcast(law, law.scale_tril_column, 2)
    n, p = rows.shape[-1], columns.shape[-1]
    half = jnp.swapaxes(_solve(rows, d["loc"]), -1, -2)
    row_shape, row_size = _shape(rows, d["scale_tril_row"])
    column_shape, column_size = _shape(columns, d["scale_tril_column"])
    return (
        _solve(columns, half),
        math.sqrt(p) * row_shape,
        math.sqrt(n) * column_shape,
        math.sqrt(2 * n * p) * (row_size + column_size),
    )


register_fisher(
    dist.MatrixNormal,
    parameters=lambda law: {
        "loc": broadcast(law, law.loc, 2),
        "scale_tril_row": broadcast(law, jnp.tril(law.scale_tril_row), 2),
        "scale_tril_column": broadcast(law, jnp.tril(law.scale_tril_column), 2),
    },
    whiten=_matrix_normal,
)


# ---- directions ----------------------------------------------------------------------------------


def _von_mises(p: Any, d: Any) -> Any:
    """``κA`` and ``A'`` with ``A = I₁/I₀`` (Mardia, Jupp, Directional statistics, 2000).

    ``A' = 1 - A/κ - A²`` cancels for large κ: from 15 on its asymptotic series takes over.
    """
    kappa = p.concentration
    large = kappa > 15
    low = jnp.where(large, 1.0, kappa)
    ratio = i1e(low) / i0e(low)
    slope = 1 - jnp.where(low > 1e-6, ratio / jnp.maximum(low, 1e-6), 0.5) - ratio**2
    u = jnp.where(large, inverse(kappa), 0.0)
    series = 1 + u * (1 / 2 + u * (3 / 4 + u * (25 / 16 + u * (65 / 16 + u * 3219 / 256))))
    far = 1 - u * (1 / 2 + u * (1 / 8 + u * (1 / 8 + u * (25 / 128 + u * 13 / 32))))
    return (
        jnp.sqrt(kappa * jnp.where(large, far, ratio)) * d.loc,
        jnp.where(large, u * jnp.sqrt(series / 2), jnp.sqrt(slope)) * d.concentration,
    )


register_elementwise(dist.VonMises, ("loc", "concentration"), _von_mises)
