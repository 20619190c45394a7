"""Latent laws and supports that a file can name: fixed tables, nothing is imported by name."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import Distribution, constraints

__all__ = ["LAWS", "describe_support", "law_name", "make_support", "parameters"]

LAWS: dict[str, tuple[type, tuple[str, ...]]] = {
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
"""NumPyro laws by name, with the parameters that make them again."""


def law_name(law: Distribution) -> str | None:
    """The name of `law` in `LAWS`, None if it is not there (a subclass is not)."""
    name = type(law).__name__
    return name if name in LAWS and LAWS[name][0] is type(law) else None


def parameters(law: Distribution) -> dict[str, Any]:
    """Parameters that make `law` again, numbers among them as arrays."""
    return {
        name: jnp.asarray(value, None if hasattr(value, "dtype") else float)
        for name in LAWS[type(law).__name__][1]
        for value in [getattr(law, name)]
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
