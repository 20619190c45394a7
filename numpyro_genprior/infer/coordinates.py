"""Coordinates of one latent site: standard normal where that is possible, unconstrained elsewhere.

A rule maps a coordinate array ξ to the value of a site and back, given the site's distribution:

=======================================  ======================================  ==============
distribution                             value                                   prior of ξ
=======================================  ======================================  ==============
`StandardNormal`                         ξ                                       N(0, I)
``Normal``                               loc + scale · ξ                         N(0, I)
``MultivariateNormal``                   loc + L ξ                               N(0, I)
`Prior` with an exact density            decode(z), z from ξ by the rule of the  N(0, I)
                                         prior's latent
``TransformedDistribution``              transforms applied to the base's value  N(0, I)
distributions with a quantile function   F⁻¹(Φ(ξ)), by the smaller tail          N(0, I)
all others                               NumPyro's ``biject_to(support)(ξ)``     not N(0, I)
=======================================  ======================================  ==============

NumPyro needs TensorFlow Probability (which the extra ``distrax`` installs) for the quantile
functions of Beta and StudentT. Without it, these two use ``biject_to``.
"""

from __future__ import annotations

import functools
import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import ndtr, ndtri
from numpyro.distributions.transforms import biject_to

from numpyro_genprior.infer.gamma_quantile import gamma_coordinates, gamma_value
from numpyro_genprior.priors import Prior, StandardNormal
from numpyro_genprior.sites.wrappers import unwrap

SYMMETRIC_FAMILIES = (dist.Laplace, dist.Logistic, dist.Cauchy, dist.StudentT)
POSITIVE_FAMILIES = (dist.HalfNormal, dist.HalfCauchy, dist.Exponential)
FAMILIES_WITH_QUANTILES = (dist.Uniform, dist.Gumbel, dist.Beta, dist.Pareto)
NEEDS_TFP = (dist.Beta, dist.StudentT)

D = TypeVar("D", bound=dist.Distribution)


@dataclass(frozen=True)
class CoordinateRule(ABC, Generic[D]):
    """A map between coordinates and the values of one kind of distribution.

    `core` is the distribution inside ``expand``, ``to_event`` and ``mask``. Arrays have the leading
    dimensions of the whole site, against which the distribution broadcasts.
    """

    standard_normal: ClassVar[bool]
    """Whether the coordinates are standard normal under the prior."""

    @abstractmethod
    def shape(self, core: D, value_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the coordinates of a value of shape `value_shape`."""

    @abstractmethod
    def value(self, core: D, xi: jax.Array) -> jax.Array:
        """The site's value at coordinates `xi`."""

    @abstractmethod
    def coordinates(self, core: D, value: jax.Array) -> jax.Array:
        """Coordinates of a value: the inverse of `value`."""


class SameShape(CoordinateRule[D]):
    """Standard normal coordinates of the shape of the value."""

    standard_normal = True

    def shape(self, core: D, value_shape: tuple[int, ...]) -> tuple[int, ...]:
        return value_shape


class Identity(SameShape[StandardNormal]):
    """The coordinates are the value."""

    def value(self, core: StandardNormal, xi: jax.Array) -> jax.Array:
        return xi

    def coordinates(self, core: StandardNormal, value: jax.Array) -> jax.Array:
        return value


class LocationScale(SameShape[Any]):
    """``loc + scale · ξ``."""

    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        return core.loc + core.scale * xi

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        return (value - core.loc) / core.scale


class CholeskyFactor(SameShape[Any]):
    """``loc + L ξ`` with the Cholesky factor L of the covariance."""

    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        return core.loc + jnp.einsum("...ij,...j->...i", core.scale_tril, xi)

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        residual = value - core.loc
        tril = jnp.broadcast_to(core.scale_tril, (*residual.shape, residual.shape[-1]))
        return solve_triangular(tril, residual[..., None], lower=True)[..., 0]


class DecodedPrior(CoordinateRule[Prior]):
    """A prior with an exact density: x = T(z), and z by the rule of the latent."""

    standard_normal = True

    def shape(self, core: Prior, value_shape: tuple[int, ...]) -> tuple[int, ...]:
        batch_shape = value_shape[: len(value_shape) - core.event_dim]
        latent = (*batch_shape, *core.latent.event_shape)
        return rule_of(core.latent).shape(unwrap(core.latent), latent)

    def value(self, core: Prior, xi: jax.Array) -> jax.Array:
        return core.decode(rule_of(core.latent).value(unwrap(core.latent), xi))

    def coordinates(self, core: Prior, value: jax.Array) -> jax.Array:
        return rule_of(core.latent).coordinates(unwrap(core.latent), core.inverse(value))


class TransformedBase(CoordinateRule[Any]):
    """Invertible transforms of a base distribution that has a rule."""

    standard_normal = True

    def shape(self, core: Any, value_shape: tuple[int, ...]) -> tuple[int, ...]:
        for transform in reversed(core.transforms):
            value_shape = transform.inverse_shape(value_shape)
        return rule_of(core.base_dist).shape(unwrap(core.base_dist), value_shape)

    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        value = rule_of(core.base_dist).value(unwrap(core.base_dist), xi)
        for transform in core.transforms:
            value = transform(value)
        return value

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        for transform in reversed(core.transforms):
            value = transform.inv(value)
        return rule_of(core.base_dist).coordinates(unwrap(core.base_dist), value)


class SymmetricQuantile(SameShape[Any]):
    """The quantile function of the lower tail, mirrored above the median.

    Small probabilities keep their relative precision; those near 1 lose it.
    """

    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        tail, kind = ndtr(-jnp.abs(xi)), type(core)
        if kind is dist.Laplace:
            below = core.loc + core.scale * jnp.log(2 * _clip_probability(tail))
        else:  # these quantile functions compute 1 - 2q
            below = core.icdf(jnp.maximum(tail, jnp.finfo(tail.dtype).eps))
        return jnp.where(xi < 0, below, 2 * core.loc - below)

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        below = jnp.where(value < core.loc, value, 2 * core.loc - value)
        tail = ndtri(_clip_probability(core.cdf(below)))
        return jnp.where(value < core.loc, tail, -tail)


class SurvivalQuantile(SameShape[Any]):
    """Distributions on the positive numbers, by the inverse of the survival function P(X > x)."""

    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        survival, kind = _clip_probability(ndtr(-xi)), type(core)
        if kind is dist.Exponential:
            return -jnp.log(survival) / core.rate
        if kind is dist.HalfNormal:
            return -core.scale * ndtri(survival / 2)
        return core.scale / jnp.tan(jnp.pi / 2 * survival)

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        kind = type(core)
        if kind is dist.Exponential:
            survival = jnp.exp(-core.rate * value)
        elif kind is dist.HalfNormal:
            survival = 2 * ndtr(-value / core.scale)
        else:
            survival = 2 / jnp.pi * jnp.arctan2(core.scale, value)
        return -ndtri(_clip_probability(survival))


class Quantile(SameShape[Any]):
    """The quantile function ``F⁻¹(Φ(ξ))``."""

    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        return core.icdf(_clip_probability(ndtr(xi)))

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        return ndtri(_clip_probability(core.cdf(value)))


class GammaQuantile(SameShape[Any]):
    """The quantile function `gamma_value`; NumPyro's needs TensorFlow Probability."""

    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        return gamma_value(xi, self._concentration(core, xi)) / core.rate

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        value = jnp.asarray(value * core.rate)
        return gamma_coordinates(value, self._concentration(core, value))

    @staticmethod
    def _concentration(core: Any, like: jax.Array) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(core.concentration, like.dtype), like.shape)


@dataclass(frozen=True)
class Unconstrained(CoordinateRule[dist.Distribution]):
    """NumPyro's unconstrained coordinates, whose prior is not standard normal.

    Attributes
    ----------
    without_tfp
        Whether there would be another rule if TensorFlow Probability were installed.
    """

    standard_normal = False
    without_tfp: bool = False

    def shape(self, core: dist.Distribution, value_shape: tuple[int, ...]) -> tuple[int, ...]:
        return biject_to(core.support).inverse_shape(value_shape)

    def value(self, core: dist.Distribution, xi: jax.Array) -> jax.Array:
        return biject_to(core.support)(xi)

    def coordinates(self, core: dist.Distribution, value: jax.Array) -> jax.Array:
        return biject_to(core.support).inv(value)


@functools.cache
def has_tfp() -> bool:
    """Whether TensorFlow Probability is installed."""
    return importlib.util.find_spec("tensorflow_probability") is not None


def _clip_probability(probability: jax.Array) -> jax.Array:
    """Clip a probability away from 0 and 1, by less than its rounding error."""
    finfo = jnp.finfo(probability.dtype)
    return jnp.clip(probability, finfo.eps**2, 1 - finfo.epsneg)


def rule_of(fn: dist.Distribution, *, unconstrained: bool = False) -> CoordinateRule[Any]:
    """The rule for the distribution inside ``expand``, ``mask`` and ``to_event``.

    Parameters
    ----------
    fn
        A NumPyro distribution.
    unconstrained
        Use NumPyro's unconstrained coordinates for all but `StandardNormal`.
    """
    core = unwrap(fn)
    if isinstance(core, StandardNormal):
        return Identity()
    if unconstrained:
        return Unconstrained()
    if type(core) is dist.Normal:
        return LocationScale()
    if type(core) is dist.MultivariateNormal:
        return CholeskyFactor()
    if isinstance(core, Prior) and core.density == "exact" and rule_of(core.latent).standard_normal:
        return DecodedPrior()
    if isinstance(core, dist.TransformedDistribution) and _is_invertible(core):
        return TransformedBase()
    if type(core) is dist.Gamma:
        return GammaQuantile()
    if type(core) in NEEDS_TFP and not has_tfp():
        return Unconstrained(without_tfp=True)
    for kinds, rule in (
        (SYMMETRIC_FAMILIES, SymmetricQuantile),
        (POSITIVE_FAMILIES, SurvivalQuantile),
        (FAMILIES_WITH_QUANTILES, Quantile),
    ):
        if type(core) in kinds:
            return rule()
    return Unconstrained()


def _is_invertible(core: dist.TransformedDistribution) -> bool:
    """Whether all transforms have an inverse that is known to work, and the base has a rule."""
    known = (dist.transforms.AffineTransform, dist.transforms.ExpTransform)
    known += (dist.transforms.SigmoidTransform, dist.transforms.SoftplusTransform)
    known += (dist.transforms.PowerTransform, dist.transforms.LowerCholeskyAffine)
    invertible = all(isinstance(t, known) for t in core.transforms)
    return invertible and rule_of(core.base_dist).standard_normal
