"""A prior as JSON: its class, its networks by architecture, its latent, support and condition."""

from __future__ import annotations

import json
from typing import Any

import jax.numpy as jnp
from numpyro.distributions import Distribution, ExpandedDistribution, Independent

from numpyro_genprior.errors import message
from numpyro_genprior.io.distributions import describe_support, law_name
from numpyro_genprior.io.errors import FamilyError, PriorFileError, StructureError
from numpyro_genprior.networks.architectures import ARCHITECTURES
from numpyro_genprior.networks.frozen import Frozen
from numpyro_genprior.priors.prior import Prior
from numpyro_genprior.priors.standard_normal import StandardNormal

__all__ = ["describe", "same_description"]


def describe(prior: Prior) -> dict[str, Any]:
    """Describe everything about a prior but its arrays, in JSON values."""
    fields = sorted(type(prior).gather_pytree_data_fields())
    values = {field.lstrip("_"): prior.__dict__.get(field) for field in fields}
    networks = {k: _describe_network(v) for k, v in values.items() if isinstance(v, Frozen)}
    description = {
        "family": type(prior).__name__,
        "event_shape": list(prior.event_shape),
        "support": describe_support(prior.support),
        "latent": _describe_law(prior.latent),
        "condition": _describe_condition(prior),
        "networks": networks,
        "validate_args": prior.__dict__.get("_validate_args"),
    }
    try:
        return json.loads(json.dumps(description, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise PriorFileError(
            message(
                f"The description of the prior is not JSON ({error})",
                remedy="let the `config` of the architecture hold strings, numbers, booleans, "
                "None and lists of them",
            )
        ) from error


def _describe_network(frozen: Frozen) -> dict[str, Any]:
    net = frozen.net
    name = type(net).__name__
    if ARCHITECTURES.get(name) is type(net):
        return {"architecture": name, "config": net.config}
    return {"architecture": None, "type": name}


def _describe_law(law: Distribution) -> dict[str, Any]:
    if isinstance(law, Prior):
        return {"law": "prior", "prior": describe(law)}
    if isinstance(law, StandardNormal):
        return {"law": "StandardNormal", "shape": list(law.event_shape)}
    if type(law) is Independent:
        base = _describe_law(law.base_dist)
        return {"law": "Independent", "ndims": law.reinterpreted_batch_ndims, "base": base}
    if type(law) is ExpandedDistribution:
        base = _describe_law(law.base_dist)
        return {"law": "Expanded", "batch_shape": list(law.batch_shape), "base": base}
    shapes = {"batch_shape": list(law.batch_shape), "event_shape": list(law.event_shape)}
    return {"law": law_name(law), "type": type(law).__name__, **shapes}


def _describe_condition(prior: Prior) -> dict[str, Any] | None:
    condition = prior._condition
    if condition is None:
        return None
    inexact = jnp.issubdtype(condition.dtype, jnp.inexact)
    return {
        "shape": list(condition.shape),
        "batch_shape": list(condition.batch_shape),
        "kind": "real" if inexact else "integer",
    }


def same_description(file: Any, like: Any, path: str = "prior") -> None:
    """Refuse a description that differs from what ``like=`` says.

    Raises
    ------
    FamilyError
        If the class of a prior differs.
    StructureError
        If anything else does; the message says where.
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
