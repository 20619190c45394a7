"""Fisher information of laws of vectors."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from numpyro_genprior.infer.fisher.constant_parameters import known
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


def _only_loc(law: dist.LowRankMultivariateNormal) -> dict[str, jax.Array]:
    refusal = constant_parameters_refusal(type(law).__name__)
    return {"loc": known(broadcast(law, law.loc, 1), (law.cov_factor, law.cov_diag), refusal)}


register_fisher(
    dist.LowRankMultivariateNormal,
    parameters=_only_loc,
    whiten=lambda law, d: inverse_root(
        broadcast(law, law.cov_factor, 2), broadcast(law, law.cov_diag, 1), d["loc"]
    ),
)
