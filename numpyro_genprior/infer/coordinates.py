"""Coordinates of one latent site: standard normal where that is possible, unconstrained elsewhere.

A rule maps a coordinate array ξ to the value of a site and back, given the site's law:

===================================  ==========================================  =================
law                                  value                                       prior of ξ
===================================  ==========================================  =================
`StandardNormal`                     ξ                                           N(0, I)
``Normal``                           loc + scale · ξ                             N(0, I)
``MultivariateNormal``               loc + L ξ                                   N(0, I)
`Prior` with an exact density        decode(z), z from ξ by the latent's rule    N(0, I)
``TransformedDistribution``          transforms applied to the base's value      N(0, I)
laws with a quantile function        F⁻¹(Φ(ξ)), by the nearer tail               N(0, I)
all others                           NumPyro's ``biject_to(support)(ξ)``         the law's own
===================================  ==========================================  =================

NumPyro takes the quantiles of Beta and StudentT from TensorFlow Probability (the extra ``distrax``
has it). Where that is not installed, they are among the others.
"""

from __future__ import annotations

import functools
import importlib.util
from abc import ABC, abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import ndtr, ndtri
from numpyro.distributions.transforms import biject_to

from numpyro_genprior.infer.gamma_quantile import gamma_coordinates, gamma_value
from numpyro_genprior.priors import Prior, StandardNormal
from numpyro_genprior.sites.wrappers import unwrap

SYMMETRIC = (dist.Laplace, dist.Logistic, dist.Cauchy, dist.StudentT)
POSITIVE = (dist.HalfNormal, dist.HalfCauchy, dist.Exponential)
QUANTILES = (dist.Uniform, dist.Gumbel, dist.Beta, dist.Pareto)
BY_TFP = (dist.Beta, dist.StudentT)  # NumPyro takes their quantiles from TensorFlow Probability


class CoordinateRule(ABC):
    """How one kind of law is reached. `core` is the law inside expand, to_event and mask.

    Arrays have the leading dimensions of the whole site; the law broadcasts against them.
    """

    standard_normal: bool = True

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return type(self).__name__

    def shape(self, core: Any, value_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the coordinates of a value of shape `value_shape`."""
        return value_shape

    @abstractmethod
    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        """The site's value at coordinates `xi`."""

    @abstractmethod
    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        """Coordinates of a value."""


class Itself(CoordinateRule):
    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        return xi

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        return value


class Affine(CoordinateRule):
    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        return core.loc + core.scale * xi

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        return (value - core.loc) / core.scale


class Triangular(CoordinateRule):
    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        return core.loc + jnp.einsum("...ij,...j->...i", core.scale_tril, xi)

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        residual = value - core.loc
        tril = jnp.broadcast_to(core.scale_tril, (*residual.shape, residual.shape[-1]))
        return solve_triangular(tril, residual[..., None], lower=True)[..., 0]


class Decoded(CoordinateRule):
    """A prior with an exact density: x = T(z), and z by its own rule."""

    def shape(self, core: Any, value_shape: tuple[int, ...]) -> tuple[int, ...]:
        lead = value_shape[: len(value_shape) - core.event_dim]
        latent = (*lead, *core.latent.event_shape)
        return rule_of(core.latent).shape(unwrap(core.latent), latent)

    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        return core.decode(rule_of(core.latent).value(unwrap(core.latent), xi))

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        return rule_of(core.latent).coordinates(unwrap(core.latent), core.inverse(value))


class Transformed(CoordinateRule):
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


class Symmetric(CoordinateRule):
    """By the lower tail on either side, where probabilities keep their digits."""

    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        tail, law = ndtr(-jnp.abs(xi)), type(core)
        if law is dist.Laplace:
            below = core.loc + core.scale * jnp.log(2 * _inner(tail))
        else:  # these quantile functions compute 1 - 2q
            below = core.icdf(jnp.maximum(tail, jnp.finfo(tail.dtype).eps))
        return jnp.where(xi < 0, below, 2 * core.loc - below)

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        below = jnp.where(value < core.loc, value, 2 * core.loc - value)
        tail = ndtri(_inner(core.cdf(below)))
        return jnp.where(value < core.loc, tail, -tail)


class Positive(CoordinateRule):
    """Laws on the positive numbers with a heavy mass at zero, by their survival function."""

    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        upper, law = _inner(ndtr(-xi)), type(core)  # survival probability
        if law is dist.Exponential:
            return -jnp.log(upper) / core.rate
        if law is dist.HalfNormal:
            return -core.scale * ndtri(upper / 2)
        return core.scale / jnp.tan(jnp.pi / 2 * upper)

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        law = type(core)
        if law is dist.Exponential:
            upper = jnp.exp(-core.rate * value)
        elif law is dist.HalfNormal:
            upper = 2 * ndtr(-value / core.scale)
        else:
            upper = 2 / jnp.pi * jnp.arctan2(core.scale, value)
        return -ndtri(_inner(upper))


class Quantile(CoordinateRule):
    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        return core.icdf(_inner(ndtr(xi)))

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        return ndtri(_inner(core.cdf(value)))


class Gamma(CoordinateRule):
    """By a quantile function of ours: NumPyro's needs TensorFlow Probability."""

    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        return gamma_value(xi, self._concentration(core, xi)) / core.rate

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        value = jnp.asarray(value * core.rate)
        return gamma_coordinates(value, self._concentration(core, value))

    @staticmethod
    def _concentration(core: Any, like: jax.Array) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(core.concentration, like.dtype), like.shape)


class Unconstrained(CoordinateRule):
    """NumPyro's own unconstrained coordinates: the prior of ξ is whatever it is."""

    standard_normal = False

    def shape(self, core: Any, value_shape: tuple[int, ...]) -> tuple[int, ...]:
        return biject_to(core.support).inverse_shape(value_shape)

    def value(self, core: Any, xi: jax.Array) -> jax.Array:
        return biject_to(core.support)(xi)

    def coordinates(self, core: Any, value: jax.Array) -> jax.Array:
        return biject_to(core.support).inv(value)


class Uninstalled(Unconstrained):
    """A law of `BY_TFP` where TensorFlow Probability is not installed."""


@functools.cache
def has_tfp() -> bool:
    """Whether TensorFlow Probability is installed."""
    return importlib.util.find_spec("tensorflow_probability") is not None


def _inner(probability: jax.Array) -> jax.Array:
    """Keep a probability off 0 and 1, by less than it can tell from them."""
    finfo = jnp.finfo(probability.dtype)
    return jnp.clip(probability, finfo.eps**2, 1 - finfo.epsneg)


def rule_of(law: Any, *, unconstrained: bool = False) -> CoordinateRule:
    """The rule for a law (wrappers are looked through).

    Parameters
    ----------
    law
        A NumPyro distribution.
    unconstrained
        Use NumPyro's unconstrained coordinates for every law that is not a `StandardNormal`.
    """
    core = unwrap(law)
    if isinstance(core, StandardNormal):
        return Itself()
    if unconstrained:
        return Unconstrained()
    if type(core) is dist.Normal:
        return Affine()
    if type(core) is dist.MultivariateNormal:
        return Triangular()
    if isinstance(core, Prior) and core.density == "exact" and rule_of(core.latent).standard_normal:
        return Decoded()
    if isinstance(core, dist.TransformedDistribution) and _invertible(core):
        return Transformed()
    if type(core) is dist.Gamma:
        return Gamma()
    if type(core) in BY_TFP and not has_tfp():
        return Uninstalled()
    for kinds, rule in ((SYMMETRIC, Symmetric), (POSITIVE, Positive), (QUANTILES, Quantile)):
        if type(core) in kinds:
            return rule()
    return Unconstrained()


def _invertible(core: Any) -> bool:
    known = (dist.transforms.AffineTransform, dist.transforms.ExpTransform)
    known += (dist.transforms.SigmoidTransform, dist.transforms.SoftplusTransform)
    known += (dist.transforms.PowerTransform, dist.transforms.LowerCholeskyAffine)
    plain = all(isinstance(t, known) for t in core.transforms)
    return plain and rule_of(core.base_dist).standard_normal
