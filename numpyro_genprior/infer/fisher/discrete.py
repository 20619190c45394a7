"""Fisher information of discrete distributions."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import sigmoid

from numpyro_genprior.infer.fisher.registry import Whiten, register_elementwise
from numpyro_genprior.infer.fisher.special import (
    inverse,
    inverse_root,
    negative_binomial_concentration,
)

register_elementwise(dist.Poisson, ("rate",), lambda p, d: d.rate * inverse_root(p.rate))


# ---- two outcomes --------------------------------------------------------------------------------


def _finite_tangent(p: SimpleNamespace, d: SimpleNamespace) -> jax.Array:
    """The tangent of logits, 0 for those at ±∞, which is the edge of their range."""
    return jnp.where(jnp.isfinite(p.logits), d.logits, 0)


def _probs(p: SimpleNamespace, d: SimpleNamespace) -> jax.Array:
    return d.probs * inverse_root(p.probs) * inverse_root(1 - p.probs)


def _logits(p: SimpleNamespace, d: SimpleNamespace) -> jax.Array:
    return _finite_tangent(p, d) * jnp.sqrt(sigmoid(p.logits)) * jnp.sqrt(sigmoid(-p.logits))


register_elementwise(dist.BernoulliProbs, ("probs",), _probs)
register_elementwise(dist.BernoulliLogits, ("logits",), _logits)
register_elementwise(
    dist.BinomialProbs,
    ("probs",),
    lambda p, d: jnp.sqrt(p.total_count) * _probs(p, d),
    constant=("total_count",),
)
register_elementwise(
    dist.BinomialLogits,
    ("logits",),
    lambda p, d: jnp.sqrt(p.total_count) * _logits(p, d),
    constant=("total_count",),
)
register_elementwise(
    dist.GeometricProbs,
    ("probs",),
    lambda p, d: d.probs * inverse(p.probs) * inverse_root(1 - p.probs),
)
register_elementwise(
    dist.GeometricLogits, ("logits",), lambda p, d: d.logits * jnp.sqrt(sigmoid(-p.logits))
)


# ---- several outcomes ----------------------------------------------------------------------------


def _class_probs(p: SimpleNamespace, d: SimpleNamespace) -> jax.Array:
    return d.probs * inverse_root(p.probs)


def _class_logits(p: SimpleNamespace, d: SimpleNamespace) -> jax.Array:
    probs, tangent = jax.nn.softmax(p.logits, -1), _finite_tangent(p, d)
    return jnp.sqrt(probs) * (tangent - jnp.sum(probs * tangent, -1, keepdims=True))


def _register_classes(
    DistributionClass: type[dist.Distribution], name: str, whiten: Whiten, counted: bool
) -> None:
    """`counted`: whether an observation is the counts of several trials."""
    register_elementwise(
        DistributionClass,
        (name,),
        (lambda p, d: jnp.sqrt(p.total_count)[..., None] * whiten(p, d)) if counted else whiten,
        constant=("total_count",) if counted else (),
        event=(name,),
    )


_register_classes(dist.CategoricalProbs, "probs", _class_probs, False)
_register_classes(dist.CategoricalLogits, "logits", _class_logits, False)
_register_classes(dist.MultinomialProbs, "probs", _class_probs, True)
_register_classes(dist.MultinomialLogits, "logits", _class_logits, True)


# ---- negative binomial ---------------------------------------------------------------------------


def _negative_binomial(
    r: jax.Array, q: jax.Array, p: jax.Array, dr: jax.Array, scaled_logit_tangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The mean, then the concentration r; the two are orthogonal (Lawless 1987).

    `q` is μ/(r+μ), `p` is 1-q and `scaled_logit_tangent` is ``√q`` times the tangent of
    ``log(q/p)``.
    """
    return (
        jnp.sqrt(q) * dr * inverse_root(r) + jnp.sqrt(r) * scaled_logit_tangent,
        jnp.sqrt(negative_binomial_concentration(r, q, p)) * dr,
    )


def _by_rate(p: SimpleNamespace, d: SimpleNamespace) -> tuple[jax.Array, jax.Array]:
    q, one_minus_q = 1 / (1 + p.rate), 1 / (1 + inverse(p.rate))
    one_minus_q = jnp.where(p.rate > 0, one_minus_q, 0)
    tangent = -jnp.sqrt(q) * d.rate * inverse(p.rate)
    return _negative_binomial(p.concentration, q, one_minus_q, d.concentration, tangent)


def _by_probs(p: SimpleNamespace, d: SimpleNamespace) -> tuple[jax.Array, jax.Array]:
    tangent = d.probs * inverse_root(p.probs) * inverse(1 - p.probs)
    return _negative_binomial(p.total_count, p.probs, 1 - p.probs, d.total_count, tangent)


def _by_logits(p: SimpleNamespace, d: SimpleNamespace) -> tuple[jax.Array, jax.Array]:
    q = sigmoid(p.logits)
    tangent = jnp.sqrt(q) * d.logits
    return _negative_binomial(p.total_count, q, sigmoid(-p.logits), d.total_count, tangent)


# NegativeBinomial2 is a subclass of GammaPoisson.
register_elementwise(dist.GammaPoisson, ("concentration", "rate"), _by_rate)
register_elementwise(dist.NegativeBinomialProbs, ("total_count", "probs"), _by_probs)
register_elementwise(dist.NegativeBinomialLogits, ("total_count", "logits"), _by_logits)
