"""Describe a prior in JSON: class, architectures, latent, support, condition, static fields."""

from __future__ import annotations

import json
from typing import Any

import jax.numpy as jnp
from jaxtyping import PyTree
from numpyro.distributions import Distribution, ExpandedDistribution, Independent

from numpyro_genprior.errors import message
from numpyro_genprior.io.distributions import describe_support, distribution_name
from numpyro_genprior.io.errors import FamilyError, StructureError
from numpyro_genprior.io.file_format import to_json
from numpyro_genprior.networks.architectures import ARCHITECTURES
from numpyro_genprior.networks.frozen import Frozen
from numpyro_genprior.priors.prior import Prior
from numpyro_genprior.priors.standard_normal import StandardNormal

__all__ = ["NOT_JSON", "describe", "same_description"]

NOT_JSON = "not JSON"
"""The key of the type of a static value that JSON cannot represent."""


def describe(prior: Prior) -> dict[str, Any]:
    """Describe everything about a prior but its arrays, in JSON values."""
    fields = sorted(type(prior).gather_pytree_data_fields())
    values = {field.lstrip("_"): prior.__dict__.get(field) for field in fields}
    networks = {k: _describe_network(v) for k, v in values.items() if isinstance(v, Frozen)}
    static = sorted(
        set(type(prior).gather_pytree_aux_fields()) - set(Prior.gather_pytree_aux_fields())
    )
    description = {
        "family": type(prior).__name__,
        "event_shape": list(prior.event_shape),
        "support": describe_support(prior.support),
        "latent": _describe_distribution(prior.latent),
        "condition": _describe_condition(prior),
        "networks": networks,
        "static": {f.lstrip("_"): _describe_static(prior.__dict__.get(f)) for f in static},
        "validate_args": prior.__dict__.get("_validate_args"),
    }
    return json.loads(to_json(description))


def _describe_network(frozen: Frozen) -> dict[str, Any]:
    net = frozen.net
    name = type(net).__name__
    if ARCHITECTURES.get(name) is type(net):
        return {"architecture": name, "config": net.config}
    return {"architecture": None, "type": name}


def _describe_static(value: object) -> Any:
    """A value after a round trip through JSON, or its type if JSON cannot represent it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return {NOT_JSON: type(value).__name__}


def _describe_distribution(d: Distribution) -> dict[str, Any]:
    if isinstance(d, Prior):
        return {"distribution": "prior", "prior": describe(d)}
    if isinstance(d, StandardNormal):
        return {"distribution": "StandardNormal", "shape": list(d.event_shape)}
    if type(d) is Independent:
        base = _describe_distribution(d.base_dist)
        return {"distribution": "Independent", "ndims": d.reinterpreted_batch_ndims, "base": base}
    if type(d) is ExpandedDistribution:
        base = _describe_distribution(d.base_dist)
        return {"distribution": "Expanded", "batch_shape": list(d.batch_shape), "base": base}
    shapes = {"batch_shape": list(d.batch_shape), "event_shape": list(d.event_shape)}
    return {"distribution": distribution_name(d), "type": type(d).__name__, **shapes}


def _describe_condition(prior: Prior) -> dict[str, Any] | None:
    condition, shape = prior.condition, prior.condition_shape
    if condition is None or shape is None:
        return None
    inexact = jnp.issubdtype(condition.dtype, jnp.inexact)
    return {
        "shape": list(shape),
        "batch_shape": list(condition.shape[: condition.ndim - len(shape)]),
        "kind": "real" if inexact else "integer",
    }


def same_description(file: PyTree, like: PyTree, path: str = "prior") -> None:
    """Raise an error if a file's description differs from that of ``like=``.

    Raises
    ------
    FamilyError
        If the class of a prior differs.
    StructureError
        If anything else differs; the message names it.
    """
    if isinstance(file, dict) and isinstance(like, dict):
        for key in sorted(file.keys() | like.keys()):
            same_description(file.get(key), like.get(key), f"{path}.{key}")
        return
    if file == like:
        return
    family = path.endswith("family")
    raise (FamilyError if family else StructureError)(
        message(
            f"The file holds a prior of another {'class' if family else 'structure'} than like= "
            f"({path})",
            expected=like,
            got=file,
            remedy=f"pass like= a {file}, or call ngp.load without like="
            if family
            else "pass as like= a prior of the same structure as the one that was saved",
        )
    )
