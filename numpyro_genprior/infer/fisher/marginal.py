"""Fisher information of `MarginalNormal`, by the spectrum of its operator."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_genprior.errors import message
from numpyro_genprior.infer.fisher.constant_parameters import require_constant
from numpyro_genprior.infer.fisher.registry import broadcast, register_fisher
from numpyro_genprior.infer.fisher.special import inverse
from numpyro_genprior.operators import MarginalNormal

REFUSAL = message(
    "The operator of an observed MarginalNormal depends on latent variables",
    expected="a fixed operator: only the information about its event and scales is implemented",
    remedy="build the operator outside the model, or give the class a rule with register_fisher",
)


def _parameters(marginal: MarginalNormal) -> dict[str, jax.Array]:
    loc = broadcast(marginal, marginal.event_loc, len(marginal.operator.event_shape))
    return {
        "event_loc": require_constant(loc, marginal.operator, REFUSAL),
        "event_scale": broadcast(marginal, marginal.event_scale),
        "noise_scale": broadcast(marginal, marginal.noise_scale),
    }


def _whiten(
    marginal: MarginalNormal, d: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``K^(-1/2) A dm``; and ``½ tr(K⁻¹dK K⁻¹dK) = 2 |u dσ + v dτ|²``, in two rows.

    With ``σ² + τ² λ`` the eigenvalues of K, ``u = σ / (σ² + τ² λ)`` and ``v = τ λ / (σ² + τ² λ)``;
    v is split into its parts along u and orthogonal to u.
    """
    noise = broadcast(marginal, marginal.noise_scale)
    event = broadcast(marginal, marginal.event_scale)

    def scale_rows(element: Any) -> jax.Array:
        u = element.noise_scale * inverse(element.variances)
        v = element.event_scale * element.gram.eigenvalues * inverse(element.variances)
        square = jnp.sum(u**2)
        along = jnp.sum(u * v) * inverse(square)
        orthogonal = jnp.sqrt(jnp.sum((v - along * u) ** 2))
        rows = jnp.stack([jnp.sqrt(square), along * jnp.sqrt(square), orthogonal])
        return math.sqrt(2) * rows

    rows = marginal.over_batch(scale_rows, [], 1)
    rows = jnp.broadcast_to(rows, (*marginal.batch_shape, 3)).astype(jnp.result_type(noise, event))
    return (
        marginal.whiten(marginal.operator(d["event_loc"])),
        rows[..., 0] * d["noise_scale"] + rows[..., 1] * d["event_scale"],
        rows[..., 2] * d["event_scale"],
    )


register_fisher(MarginalNormal, parameters=_parameters, whiten=_whiten)
