"""Fisher information of discrete laws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import sigmoid

from numpyro_genprior.infer.fisher.registry import register_elementwise
from numpyro_genprior.infer.fisher.special import (
    inverse,
    inverse_root,
    negative_binomial_concentration,
)

register_elementwise(dist.Poisson, ("rate",), lambda p, d: d.rate * inverse_root(p.rate))


# ---- two outcomes --------------------------------------------------------------------------------


def _finite(p: Any, d: Any) -> jax.Array:
    """A logit of minus infinity forbids an outcome and does not move."""
    return jnp.where(jnp.isfinite(p.logits), d.logits, 0)


def _probs(p: Any, d: Any) -> jax.Array:
    return d.probs * inverse_root(p.probs) * inverse_root(1 - p.probs)


def _logits(p: Any, d: Any) -> jax.Array:
    return _finite(p, d) * jnp.sqrt(sigmoid(p.logits)) * jnp.sqrt(sigmoid(-p.logits))


register_elementwise(dist.BernoulliProbs, ("probs",), _probs)
register_elementwise(dist.BernoulliLogits, ("logits",), _logits)
register_elementwise(
    dist.BinomialProbs,
    ("probs",),
    lambda p, d: jnp.sqrt(p.total_count) * _probs(p, d),
    known=("total_count",),
)
register_elementwise(
    dist.BinomialLogits,
    ("logits",),
    lambda p, d: jnp.sqrt(p.total_count) * _logits(p, d),
    known=("total_count",),
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


def _class_probs(p: Any, d: Any) -> jax.Array:
    return d.probs * inverse_root(p.probs)


def _class_logits(p: Any, d: Any) -> jax.Array:
    probs, moved = jax.nn.softmax(p.logits, -1), _finite(p, d)
    return jnp.sqrt(probs) * (moved - jnp.sum(probs * moved, -1, keepdims=True))


def _register_classes(DistributionClass: Any, name: str, whiten: Any, counted: bool) -> None:
    register_elementwise(
        DistributionClass,
        (name,),
        (lambda p, d: jnp.sqrt(p.total_count)[..., None] * whiten(p, d)) if counted else whiten,
        known=("total_count",) if counted else (),
        event=(name,),
    )


_register_classes(dist.CategoricalProbs, "probs", _class_probs, False)
_register_classes(dist.CategoricalLogits, "logits", _class_logits, False)
_register_classes(dist.MultinomialProbs, "probs", _class_probs, True)
_register_classes(dist.MultinomialLogits, "logits", _class_logits, True)


# ---- negative binomial ---------------------------------------------------------------------------


def _negative_binomial(r: Any, q: Any, p: Any, dr: Any, moved: Any) -> Any:
    """The mean, then the concentration; the two are orthogonal (Lawless 1987).

    `q` is μ/(r+μ), `p` is 1-q and `moved` is ``√q`` times the tangent of ``log(q/p)``.
    """
    return (
        jnp.sqrt(q) * dr * inverse_root(r) + jnp.sqrt(r) * moved,
        jnp.sqrt(negative_binomial_concentration(r, q, p)) * dr,
    )


def _by_rate(p: Any, d: Any) -> Any:
    q, rest = 1 / (1 + p.rate), 1 / (1 + inverse(p.rate))
    rest = jnp.where(p.rate > 0, rest, 0)
    moved = -jnp.sqrt(q) * d.rate * inverse(p.rate)
    return _negative_binomial(p.concentration, q, rest, d.concentration, moved)


def _by_probs(p: Any, d: Any) -> Any:
    moved = d.probs * inverse_root(p.probs) * inverse(1 - p.probs)
    return _negative_binomial(p.total_count, p.probs, 1 - p.probs, d.total_count, moved)


def _by_logits(p: Any, d: Any) -> Any:
    q = sigmoid(p.logits)
    moved = jnp.sqrt(q) * d.logits
    return _negative_binomial(p.total_count, q, sigmoid(-p.logits), d.total_count, moved)


register_elementwise(dist.GammaPoisson, ("concentration", "rate"), _by_rate)  # and 2
register_elementwise(dist.NegativeBinomialProbs, ("total_count", "probs"), _by_probs)
register_elementwise(dist.NegativeBinomialLogits, ("total_count", "logits"), _by_logits)
