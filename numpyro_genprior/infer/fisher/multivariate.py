"""Fisher information of laws of vectors."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve

from numpyro_genprior.errors import message
from numpyro_genprior.infer.fisher.constant_parameters import known
from numpyro_genprior.infer.fisher.registry import broadcast, register_elementwise, register_fisher
from numpyro_genprior.infer.fisher.special import inverse, trigamma_excess
from numpyro_genprior.priors import GaussianFieldPrior, GaussianPrior

# ---- Dirichlet and Beta --------------------------------------------------------------------------


def _dirichlet(a: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``diag(ψ₁(aᵢ)) - ψ₁(Σa) 11ᵀ`` as a centred part and a positive rest.

    With ``s = Σ 1/ψ₁(aᵢ)`` the rest is ``(1/s - ψ₁(Σa)) (Σ dᵢ)²``, where
    ``1 - s ψ₁(Σa) = ψ₁(Σa) [Σ δ(aᵢ) - δ(Σa)]`` and ``δ(a) = a - 1/ψ₁(a)`` lies between 0 and ½.
    """
    total = jnp.sum(a, -1, keepdims=True)
    psi, left = _trigamma_and_lag(a)
    psi_total, left_total = _trigamma_and_lag(total)
    s = jnp.sum(inverse(psi), -1, keepdims=True)
    moved = jnp.sum(d, -1, keepdims=True)
    rest = psi_total * inverse(s) * (jnp.sum(left, -1, keepdims=True) - left_total)
    centred = jnp.sqrt(psi) * (d - moved * inverse(s) * inverse(psi))
    return centred, jnp.sqrt(jnp.maximum(rest, 0)) * moved


def _trigamma_and_lag(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    excess = trigamma_excess(a)
    return inverse(a) + excess, a**2 * excess / (1 + a * excess)


register_elementwise(
    dist.Dirichlet,
    ("concentration",),
    lambda p, d: _dirichlet(p.concentration, d.concentration),
    event=("concentration",),
)
register_elementwise(
    dist.Beta,
    ("concentration0", "concentration1"),
    lambda p, d: _dirichlet(
        jnp.stack([p.concentration0, p.concentration1], -1),
        jnp.stack([d.concentration0, d.concentration1], -1),
    ),
)


# ---- Gaussians -----------------------------------------------------------------------------------


def _mvn(law: Any, d: Any) -> Any:
    """``L⁻¹ dm``; and with ``X = L⁻¹ dL`` ``½ |X + Xᵀ|² = |strictly lower|² + 2 |diag|²``."""
    chol = broadcast(law, law.scale_tril, 2)
    loc = jax.lax.linalg.triangular_solve(chol, d["loc"][..., None], left_side=True, lower=True)
    x = jax.lax.linalg.triangular_solve(chol, d["scale_tril"], left_side=True, lower=True)
    weight = jnp.tril(jnp.ones_like(x)) + (math.sqrt(2) - 1) * jnp.broadcast_to(
        jnp.eye(x.shape[-1], dtype=x.dtype), x.shape
    )
    return loc[..., 0], weight * x


register_fisher(
    dist.MultivariateNormal,
    parameters=lambda law: {
        "loc": broadcast(law, law.loc, 1),
        "scale_tril": broadcast(law, jnp.tril(law.scale_tril), 2),
    },
    whiten=_mvn,
)


def low_rank(factor: jax.Array, diagonal: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A root of ``(D + W Wᵀ)⁻¹`` without the n × n matrix.

    With ``A = D^(-1/2) W`` and ``u = D^(-1/2) d``, ridge regression of u on A leaves
    ``|u - A y|² + |y|² = uᵀ (I + A Aᵀ)⁻¹ u`` at its minimum ``y = (I + AᵀA)⁻¹ Aᵀ u``: the root is
    the residual and y together, n + rank numbers, at O(n rank).

    Shapes ``(..., n, rank)``, ``(..., n)``, ``(..., n)``.
    """
    scale = jnp.sqrt(diagonal)
    a, u = factor / scale[..., None], (d / scale)[..., None]
    transposed = jnp.swapaxes(a, -1, -2)
    capacitance = transposed @ a + jnp.broadcast_to(
        jnp.eye(a.shape[-1], dtype=a.dtype), (*a.shape[:-2], a.shape[-1], a.shape[-1])
    )
    y = cho_solve((jnp.linalg.cholesky(capacitance), True), transposed @ u)
    return (u - a @ y)[..., 0], y[..., 0]


def _only_loc(law: Any, loc: jax.Array, covariance: Any) -> dict[str, jax.Array]:
    name = type(law).__name__
    refusal = message(
        f"The covariance of an observed {name} depends on latent variables",
        expected="a fixed covariance: for this law only the information about the mean is known",
        remedy="observe with dist.MultivariateNormal, which has the information about its "
        "covariance, or give this class a rule with register_fisher",
    )
    return {"loc": known(loc, covariance, refusal)}


register_fisher(
    dist.LowRankMultivariateNormal,
    parameters=lambda law: _only_loc(
        law, broadcast(law, law.loc, 1), (law.cov_factor, law.cov_diag)
    ),
    whiten=lambda law, d: low_rank(
        broadcast(law, law.cov_factor, 2), broadcast(law, law.cov_diag, 1), d["loc"]
    ),
)


def _gaussian_prior(law: Any, d: Any) -> Any:
    rank = law.factor.shape[-1]
    flat = d["loc"].reshape(-1)
    return low_rank(law.factor.reshape(flat.size, rank), law.diagonal.reshape(-1), flat)


register_fisher(
    GaussianPrior,
    parameters=lambda law: _only_loc(law, law.loc, (law.factor, law.diagonal)),
    whiten=_gaussian_prior,
)


def _field(law: Any, d: Any) -> Any:
    """``C^(-1/2) dm`` by FFT; a frequency that stands m times in the grid has ½ m (dλ/λ)²."""
    weight = jnp.sqrt(jnp.asarray(law._multiplicity()) / 2)
    return law._filter(d["loc"], jax.lax.rsqrt(law.spectrum)), weight * d["spectrum"] / law.spectrum


register_fisher(
    GaussianFieldPrior,
    parameters=lambda law: {"loc": law.loc, "spectrum": law.spectrum},
    whiten=_field,
)
