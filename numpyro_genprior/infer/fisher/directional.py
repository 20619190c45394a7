"""Fisher information of the von Mises distribution."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import i0e, i1e

from numpyro_genprior.infer.fisher.registry import register_elementwise
from numpyro_genprior.infer.fisher.special import inverse

MIN_ASYMPTOTIC_KAPPA = 15  # concentration above which asymptotic series are used


def _von_mises(p: SimpleNamespace, d: SimpleNamespace) -> tuple[jax.Array, jax.Array]:
    """``κA`` and ``A'`` with ``A = I₁/I₀`` (Mardia & Jupp, Directional statistics, 2000).

    ``A' = 1 - A/κ - A²`` cancels for large κ, for which asymptotic series are used instead.
    """
    kappa = p.concentration
    large = kappa > MIN_ASYMPTOTIC_KAPPA
    small = jnp.where(large, 1.0, kappa)
    ratio = i1e(small) / i0e(small)
    slope = 1 - jnp.where(small > 1e-6, ratio / jnp.maximum(small, 1e-6), 0.5) - ratio**2
    u = jnp.where(large, inverse(kappa), 0.0)
    slope_series = 1 + u * (1 / 2 + u * (3 / 4 + u * (25 / 16 + u * (65 / 16 + u * 3219 / 256))))
    ratio_series = 1 - u * (1 / 2 + u * (1 / 8 + u * (1 / 8 + u * (25 / 128 + u * 13 / 32))))
    return (
        jnp.sqrt(kappa * jnp.where(large, ratio_series, ratio)) * d.loc,
        jnp.where(large, u * jnp.sqrt(slope_series / 2), jnp.sqrt(slope)) * d.concentration,
    )


register_elementwise(dist.VonMises, ("loc", "concentration"), _von_mises)
