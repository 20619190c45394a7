"""Distrax bijectors."""

from __future__ import annotations

import sys
from typing import Any

import jax
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import sum_rightmost

from numpyro_genprior.flows.adapter import Adapter


class Distrax(Adapter):
    name = "distrax"

    @staticmethod
    def matches(flow: Any) -> bool:
        distrax = sys.modules.get("distrax")  # whoever holds a bijector has imported it
        return distrax is not None and isinstance(flow, distrax.Bijector)

    @staticmethod
    def latent(flow: Any) -> None:
        return None

    @staticmethod
    def condition_shape(flow: Any) -> None:
        return None

    @staticmethod
    def forward(flow: Any, z: jax.Array, condition: Any) -> tuple[jax.Array, jax.Array]:
        x, log_det = flow.forward_and_log_det(z)
        return x, sum_rightmost(log_det, log_det.ndim)

    @staticmethod
    def inverse(flow: Any, x: jax.Array, condition: Any) -> tuple[jax.Array, jax.Array]:
        z, log_det = flow.inverse_and_log_det(x)
        return z, sum_rightmost(log_det, log_det.ndim)

    @staticmethod
    def support(flow: Any, latent: Distribution) -> constraints.Constraint | None:
        if _outermost(flow) is None:
            return None
        return constraints.real if _outermost(flow) == "real" else None


def _outermost(flow: Any) -> str | None:
    """'real' when no layer of the flow is known to have a bounded image."""
    import distrax

    if isinstance(flow, distrax.Chain):
        kinds = {_outermost(part) for part in flow.bijectors}
        return "real" if kinds == {"real"} else None
    if isinstance(flow, (distrax.Block, distrax.Inverse)):
        inner = flow.bijector if hasattr(flow, "bijector") else flow._bijector
        return _outermost(inner)
    bounded = (distrax.Sigmoid, distrax.Tanh, distrax.GumbelCDF, distrax.Lambda)
    return None if isinstance(flow, bounded) else "real"
