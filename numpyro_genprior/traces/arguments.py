"""`Arguments`: what a model is called with, as arguments and constants of compiled programs."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from numpyro_genprior.networks.static import Static
from numpyro_genprior.priors import Prior


class Arguments:
    """The arguments of a run, those that may change without compiling again kept apart.

    Parameters
    ----------
    args, kwargs
        Positional arguments and keywords of the model.
    traced
        Whether the model works with traced arguments, as it must under MCMC's ``jit_model_args``.
        Then all arrays and floats are arguments of compiled programs; priors always are. What is
        left is constant, as it is for NumPyro.

    Attributes
    ----------
    values
        The arguments of compiled programs.
    structure
        Everything else, in a form that `jax.jit` takes as a static argument.
    traced
        As given.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, traced: bool) -> None:
        def is_argument(leaf: Any) -> bool:
            return isinstance(leaf, Prior) or (traced and _is_number(leaf))

        leaves, treedef = jax.tree.flatten((args, kwargs), is_leaf=lambda a: isinstance(a, Prior))
        marks = tuple(map(is_argument, leaves))
        pairs = list(zip(leaves, marks, strict=True))
        self.traced = traced
        self.values = [leaf for leaf, mark in pairs if mark]
        self.structure = Static((treedef, marks, tuple(leaf for leaf, mark in pairs if not mark)))


def rebuild(structure: Static, values: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional arguments and keywords, with present values."""
    treedef, marks, constants = structure.value
    values_, constants_ = iter(values), iter(constants)
    return jax.tree.unflatten(treedef, [next(values_ if mark else constants_) for mark in marks])


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, float | complex | jax.Array | np.ndarray | np.generic)
