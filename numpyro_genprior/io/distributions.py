"""Distributions and supports that a file can name: fixed tables, nothing is imported by name."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import Distribution, constraints

__all__ = ["DISTRIBUTIONS", "describe_support", "distribution_name", "make_support", "parameters"]

DISTRIBUTIONS: dict[str, tuple[type, tuple[str, ...]]] = {
    "Beta": (dist.Beta, ("concentration1", "concentration0")),
    "Cauchy": (dist.Cauchy, ("loc", "scale")),
    "Exponential": (dist.Exponential, ("rate",)),
    "Gamma": (dist.Gamma, ("concentration", "rate")),
    "Gumbel": (dist.Gumbel, ("loc", "scale")),
    "HalfNormal": (dist.HalfNormal, ("scale",)),
    "Laplace": (dist.Laplace, ("loc", "scale")),
    "LogNormal": (dist.LogNormal, ("loc", "scale")),
    "Logistic": (dist.Logistic, ("loc", "scale")),
    "MultivariateNormal": (dist.MultivariateNormal, ("loc", "scale_tril")),
    "Normal": (dist.Normal, ("loc", "scale")),
    "StudentT": (dist.StudentT, ("df", "loc", "scale")),
    "Uniform": (dist.Uniform, ("low", "high")),
}
"""NumPyro distributions by name, with the arguments of their constructors."""


def distribution_name(distribution: Distribution) -> str | None:
    """The name of a distribution in `DISTRIBUTIONS`, or None; subclasses are not there."""
    cls = type(distribution)
    known, _ = DISTRIBUTIONS.get(cls.__name__, (None, ()))
    return cls.__name__ if known is cls else None


def parameters(distribution: Distribution) -> dict[str, jax.Array]:
    """The arguments that build a distribution of `DISTRIBUTIONS`, Python numbers as arrays."""
    return {
        name: jnp.asarray(value, None if hasattr(value, "dtype") else float)
        for name in DISTRIBUTIONS[type(distribution).__name__][1]
        for value in [getattr(distribution, name)]
    }


_PLAIN = {
    "nonnegative": constraints.nonnegative,
    "positive": constraints.positive,
    "real": constraints.real,
    "unit_interval": constraints.unit_interval,
}
_BOUNDED = {
    "greater_than": (constraints.greater_than, ("lower_bound",)),
    "interval": (constraints.interval, ("lower_bound", "upper_bound")),
    "less_than": (constraints.less_than, ("upper_bound",)),
}


def describe_support(support: constraints.Constraint) -> dict[str, Any] | None:
    """JSON for the constraint of one number of an event, None if it cannot be named."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    for name, plain in _PLAIN.items():
        if type(support) is type(plain):
            return {"name": name}
    for name, (constraint, bounds) in _BOUNDED.items():
        values = [getattr(support, bound, None) for bound in bounds]
        if type(support) is constraint and all(isinstance(v, int | float) for v in values):
            return {"name": name, "bounds": [float(v) for v in values if v is not None]}
    return None


def make_support(description: dict[str, Any]) -> constraints.Constraint:
    """The inverse of `describe_support`."""
    name = description["name"]
    return _PLAIN[name] if name in _PLAIN else _BOUNDED[name][0](*description["bounds"])
