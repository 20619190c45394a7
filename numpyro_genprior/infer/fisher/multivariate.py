"""Fisher information of the Dirichlet, beta and multivariate normal distributions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from numpyro_genprior.infer.fisher.constant_parameters import require_constant
from numpyro_genprior.infer.fisher.registry import (
    broadcast,
    constant_parameters_refusal,
    register_elementwise,
    register_fisher,
)
from numpyro_genprior.infer.fisher.special import inverse, trigamma_excess
from numpyro_genprior.priors.low_rank import inverse_root

# ---- Dirichlet and Beta --------------------------------------------------------------------------


def _dirichlet(a: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``diag(ψ₁(aᵢ)) - ψ₁(Σa) 11ᵀ`` as a centred part and a positive remainder.

    With ``s = Σ 1/ψ₁(aᵢ)`` the remainder is ``(1/s - ψ₁(Σa)) (Σ dᵢ)²``, where
    ``1 - s ψ₁(Σa) = ψ₁(Σa) [Σ δ(aᵢ) - δ(Σa)]`` and ``δ(a) = a - 1/ψ₁(a)`` lies between 0 and ½.
    """
    psi, delta = _trigamma_and_delta(a)
    psi_total, delta_total = _trigamma_and_delta(jnp.sum(a, -1, keepdims=True))
    s = jnp.sum(inverse(psi), -1, keepdims=True)
    d_total = jnp.sum(d, -1, keepdims=True)
    remainder = psi_total * inverse(s) * (jnp.sum(delta, -1, keepdims=True) - delta_total)
    centred = jnp.sqrt(psi) * (d - d_total * inverse(s) * inverse(psi))
    return centred, jnp.sqrt(jnp.maximum(remainder, 0)) * d_total


def _trigamma_and_delta(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``ψ₁(a)`` and ``δ(a) = a - 1/ψ₁(a)``."""
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


def _multivariate_normal(
    normal: dist.MultivariateNormal, d: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """``L⁻¹ dm``; and with ``X = L⁻¹ dL`` ``½ |X + Xᵀ|² = |strictly lower|² + 2 |diag|²``."""
    chol = broadcast(normal, normal.scale_tril, 2)
    loc = jax.lax.linalg.triangular_solve(chol, d["loc"][..., None], left_side=True, lower=True)
    x = jax.lax.linalg.triangular_solve(chol, d["scale_tril"], left_side=True, lower=True)
    weight = jnp.tril(jnp.ones_like(x)) + (math.sqrt(2) - 1) * jnp.broadcast_to(
        jnp.eye(x.shape[-1], dtype=x.dtype), x.shape
    )
    return loc[..., 0], weight * x


register_fisher(
    dist.MultivariateNormal,
    parameters=lambda normal: {
        "loc": broadcast(normal, normal.loc, 1),
        "scale_tril": broadcast(normal, jnp.tril(normal.scale_tril), 2),
    },
    whiten=_multivariate_normal,
)


def _loc(normal: dist.LowRankMultivariateNormal) -> dict[str, jax.Array]:
    """The mean; the covariance is treated as constant."""
    refusal = constant_parameters_refusal(type(normal).__name__)
    covariance = (normal.cov_factor, normal.cov_diag)
    return {"loc": require_constant(broadcast(normal, normal.loc, 1), covariance, refusal)}


register_fisher(
    dist.LowRankMultivariateNormal,
    parameters=_loc,
    whiten=lambda normal, d: inverse_root(
        broadcast(normal, normal.cov_factor, 2), broadcast(normal, normal.cov_diag, 1), d["loc"]
    ),
)
