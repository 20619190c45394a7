"""Fisher information of univariate continuous distributions."""

from __future__ import annotations

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from numpyro_genprior.infer.fisher.constant_parameters import require_constant
from numpyro_genprior.infer.fisher.registry import (
    Whiten,
    broadcast,
    register_elementwise,
    register_fisher,
)
from numpyro_genprior.infer.fisher.special import (
    inverse,
    inverse_root,
    student_t_df,
    trigamma_excess,
)

MEAN_LOG = 1 - float(np.euler_gamma)  # E[u log u] for a standard exponential u
SD_LOG = math.pi / math.sqrt(6)  # standard deviation of log u


def _location_scale(location: float, scale: float) -> Whiten:
    """A symmetric location-scale family, of information ``diag(location, scale) / s²``."""
    roots = math.sqrt(location), math.sqrt(scale)

    def whiten(p: SimpleNamespace, d: SimpleNamespace) -> tuple[jax.Array, jax.Array]:
        return roots[0] * d.loc * inverse(p.scale), roots[1] * d.scale * inverse(p.scale)

    return whiten


for _family, _location, _scale in (
    (dist.Normal, 1, 2),
    (dist.Laplace, 1, 1),
    (dist.Cauchy, 1 / 2, 1 / 2),
    (dist.Logistic, 1 / 3, (3 + math.pi**2) / 9),
):
    register_elementwise(_family, ("loc", "scale"), _location_scale(_location, _scale))

register_elementwise(
    dist.HalfNormal, ("scale",), lambda p, d: math.sqrt(2) * d.scale * inverse(p.scale)
)
register_elementwise(
    dist.HalfCauchy, ("scale",), lambda p, d: math.sqrt(0.5) * d.scale * inverse(p.scale)
)
register_elementwise(dist.Exponential, ("rate",), lambda p, d: d.rate * inverse(p.rate))


def _student_t(p: SimpleNamespace, d: SimpleNamespace) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Lange, Little & Taylor (1989), appendix B, with the square completed in the scale."""
    inv, d_df = inverse(p.scale), jnp.where(jnp.isfinite(p.df), d.df, 0)
    return (
        jnp.sqrt(1 - 2 / (p.df + 3)) * d.loc * inv,
        jnp.sqrt(2 / (1 + 3 * inverse(p.df))) * (d.scale * inv - d_df * inverse(p.df * (p.df + 1))),
        jnp.sqrt(student_t_df(p.df)) * d_df,
    )


register_elementwise(dist.StudentT, ("df", "loc", "scale"), _student_t)


def _gumbel(p: SimpleNamespace, d: SimpleNamespace) -> tuple[jax.Array, jax.Array]:
    inv = inverse(p.scale)
    return (d.loc - MEAN_LOG * d.scale) * inv, SD_LOG * d.scale * inv


register_elementwise(dist.Gumbel, ("loc", "scale"), _gumbel)


def _weibull(p: SimpleNamespace, d: SimpleNamespace) -> tuple[jax.Array, jax.Array]:
    """Minus its logarithm is Gumbel, with location ``-log scale``, scale ``1/concentration``."""
    relative = d.concentration * inverse(p.concentration)
    return (
        p.concentration * d.scale * inverse(p.scale) - MEAN_LOG * relative,
        SD_LOG * relative,
    )


register_elementwise(dist.Weibull, ("scale", "concentration"), _weibull)


def _gamma(p: SimpleNamespace, d: SimpleNamespace) -> tuple[jax.Array, jax.Array]:
    """``[[ψ₁(a), -1/b], [-1/b, a/b²]]``, with the square completed in the rate."""
    root = jnp.sqrt(p.concentration)
    return (
        root * d.rate * inverse(p.rate) - d.concentration * inverse_root(p.concentration),
        jnp.sqrt(trigamma_excess(p.concentration)) * d.concentration,
    )


register_elementwise(dist.Gamma, ("concentration", "rate"), _gamma)

register_fisher(
    dist.Uniform,
    parameters=lambda uniform: require_constant(
        jnp.zeros((*uniform.batch_shape, 0)),
        (broadcast(uniform, uniform.low), broadcast(uniform, uniform.high)),
        "A Uniform whose bounds depend on latent variables has no Fisher information: its "
        "support moves with them. Observe with a distribution whose support is fixed.",
    ),
    whiten=lambda uniform, tangent: tangent,
)
