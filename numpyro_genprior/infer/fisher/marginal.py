"""Fisher information of `MarginalNormal`, by the spectrum of its operator."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_genprior.errors import message
from numpyro_genprior.infer.fisher.constant_parameters import known
from numpyro_genprior.infer.fisher.registry import broadcast, register_fisher
from numpyro_genprior.infer.fisher.special import inverse
from numpyro_genprior.operators import MarginalNormal

REFUSAL = message(
    "The operator of an observed MarginalNormal depends on latent variables",
    expected="a fixed operator: only the information about its event and scales is known",
    remedy="build the operator outside the model, or give the class a rule with register_fisher",
)


def _parameters(law: MarginalNormal) -> dict[str, jax.Array]:
    loc = broadcast(law, law.event_loc, len(law.operator.event_shape))
    return {
        "event_loc": known(loc, law.operator, REFUSAL),
        "event_scale": broadcast(law, law.event_scale),
        "noise_scale": broadcast(law, law.noise_scale),
    }


def _whiten(law: MarginalNormal, d: Any) -> Any:
    """``K^(-1/2) A dm``; and ``½ tr(K⁻¹dK K⁻¹dK) = 2 |u dσ + v dτ|²``, in two rows.

    With d = σ² + τ² λ the eigenvalues of K, ``u = σ/d`` and ``v = τ λ/d``; v is split along u and
    across it.
    """
    noise, event = broadcast(law, law.noise_scale), broadcast(law, law.event_scale)

    def scales(core: Any) -> jax.Array:
        u = core.noise_scale * inverse(core.variances)
        v = core.event_scale * core.gram.eigenvalues * inverse(core.variances)
        square = jnp.sum(u**2)
        along = jnp.sum(u * v) * inverse(square)
        across = jnp.sqrt(jnp.sum((v - along * u) ** 2))
        return math.sqrt(2) * jnp.stack([jnp.sqrt(square), along * jnp.sqrt(square), across])

    rows = law.over_batch(scales, [], 1)
    rows = jnp.broadcast_to(rows, (*law.batch_shape, 3)).astype(jnp.result_type(noise, event))
    return (
        law.whiten(law.operator(d["event_loc"])),
        rows[..., 0] * d["noise_scale"] + rows[..., 1] * d["event_scale"],
        rows[..., 2] * d["event_scale"],
    )


register_fisher(MarginalNormal, parameters=_parameters, whiten=_whiten)
