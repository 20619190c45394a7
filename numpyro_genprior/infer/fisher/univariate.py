"""Fisher information of continuous laws on the line."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from numpyro_genprior.infer.fisher.constant_parameters import known
from numpyro_genprior.infer.fisher.registry import broadcast, register_elementwise, register_fisher
from numpyro_genprior.infer.fisher.special import (
    inverse,
    inverse_root,
    student_t_df,
    trigamma_excess,
)

MEAN_LOG = 1 - float(np.euler_gamma)  # E[u log u] for a standard exponential u
SD_LOG = math.pi / math.sqrt(6)  # standard deviation of log u


def _location_scale(location: float, scale: float) -> Any:
    """``diag(location, scale) / scale²``: a symmetric location-scale family."""
    roots = math.sqrt(location), math.sqrt(scale)

    def whiten(p: Any, d: Any) -> Any:
        return roots[0] * d.loc * inverse(p.scale), roots[1] * d.scale * inverse(p.scale)

    return whiten


for _law, _location, _scale in (
    (dist.Normal, 1, 2),
    (dist.Laplace, 1, 1),
    (dist.Cauchy, 1 / 2, 1 / 2),
    (dist.Logistic, 1 / 3, (3 + math.pi**2) / 9),
):
    register_elementwise(_law, ("loc", "scale"), _location_scale(_location, _scale))

register_elementwise(
    dist.HalfNormal, ("scale",), lambda p, d: math.sqrt(2) * d.scale * inverse(p.scale)
)
register_elementwise(
    dist.HalfCauchy, ("scale",), lambda p, d: math.sqrt(0.5) * d.scale * inverse(p.scale)
)
register_elementwise(dist.Exponential, ("rate",), lambda p, d: d.rate * inverse(p.rate))


def _student_t(p: Any, d: Any) -> Any:
    """Lange, Little, Taylor (1989), appendix B: the square completed in the scale."""
    inv, moved = inverse(p.scale), jnp.where(jnp.isfinite(p.df), d.df, 0)
    return (
        jnp.sqrt(1 - 2 / (p.df + 3)) * d.loc * inv,
        jnp.sqrt(2 / (1 + 3 * inverse(p.df)))
        * (d.scale * inv - moved * inverse(p.df * (p.df + 1))),
        jnp.sqrt(student_t_df(p.df)) * moved,
    )


register_elementwise(dist.StudentT, ("df", "loc", "scale"), _student_t)


def _gumbel(p: Any, d: Any) -> Any:
    inv = inverse(p.scale)
    return (d.loc - MEAN_LOG * d.scale) * inv, SD_LOG * d.scale * inv


register_elementwise(dist.Gumbel, ("loc", "scale"), _gumbel)


def _weibull(p: Any, d: Any) -> Any:
    """Minus the logarithm is Gumbel, with location -log scale and scale 1/concentration."""
    relative = d.concentration * inverse(p.concentration)
    return (
        p.concentration * d.scale * inverse(p.scale) - MEAN_LOG * relative,
        SD_LOG * relative,
    )


register_elementwise(dist.Weibull, ("scale", "concentration"), _weibull)


def _gamma(p: Any, d: Any) -> Any:
    """``[[ψ₁(a), -1/b], [-1/b, a/b²]]``, the square completed in the rate."""
    root = jnp.sqrt(p.concentration)
    return (
        root * d.rate * inverse(p.rate) - d.concentration * inverse_root(p.concentration),
        jnp.sqrt(trigamma_excess(p.concentration)) * d.concentration,
    )


register_elementwise(dist.Gamma, ("concentration", "rate"), _gamma)

register_fisher(
    dist.Uniform,
    parameters=lambda law: known(
        jnp.zeros((*law.batch_shape, 0)),
        (broadcast(law, law.low), broadcast(law, law.high)),
        "A Uniform law whose ends depend on latent variables has no Fisher information: its "
        "support moves with them. Observe with a law whose support is fixed.",
    ),
    whiten=lambda law, tangent: tangent,
)
