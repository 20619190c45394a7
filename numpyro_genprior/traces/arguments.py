"""`Arguments`: a model's arguments, split into arguments and constants of compiled programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from numpyro_genprior.networks.static import Static
from numpyro_genprior.priors import Prior


class Traced(eqx.Module):
    """A pytree of arrays that is always an argument of compiled programs, like a prior."""

    value: PyTree


class Arguments:
    """The arguments of a model, split into arguments and constants of compiled programs.

    Parameters
    ----------
    args, kwargs
        Positional arguments and keywords of the model.
    traced
        Whether the model works with traced arguments, as it must under MCMC's ``jit_model_args``.
        If so, all arrays and floats are arguments of compiled programs. Priors always are. All
        other values are constants, as they are for NumPyro.

    Attributes
    ----------
    values
        The arguments of compiled programs.
    structure
        Everything else, in a form that `jax.jit` accepts as a static argument.
    traced
        As given.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, traced: bool) -> None:
        def is_unit(node: object) -> bool:
            return isinstance(node, (Prior, Traced))

        def is_argument(leaf: object) -> bool:
            return is_unit(leaf) or (traced and _is_number(leaf))

        leaves, treedef = jax.tree.flatten((args, dict(kwargs)), is_leaf=is_unit)
        marks = tuple(map(is_argument, leaves))
        pairs = list(zip(leaves, marks, strict=True))
        self.traced = traced
        self.values = [leaf for leaf, mark in pairs if mark]
        self.structure = Static((treedef, marks, tuple(leaf for leaf, mark in pairs if not mark)))


def rebuild(structure: Static, values: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional arguments and keywords, with `values` as the arguments of compiled programs."""
    treedef, marks, constants = structure.value
    values_, constants_ = iter(values), iter(constants)
    return jax.tree.unflatten(treedef, [next(values_ if mark else constants_) for mark in marks])


def _is_number(leaf: object) -> bool:
    return isinstance(leaf, float | complex | jax.Array | np.ndarray | np.generic)
