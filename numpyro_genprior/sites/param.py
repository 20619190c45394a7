"""`param`: the weights of a prior as parameters of SVI."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import jax
import numpyro
import paramax
from jaxtyping import PyTree
from numpyro.distributions import constraints

from numpyro_genprior.errors import message
from numpyro_genprior.networks.frozen import Frozen
from numpyro_genprior.priors import Prior

P = TypeVar("P", bound=Prior)


def param(name: str, prior: P, *, scale: bool = False) -> P:
    """Train the weights of a prior under SVI.

    Parameters
    ----------
    name
        Name of the ``param`` site; its value is a dictionary of lists of arrays.
    prior
        The prior whose weights are the initial values.
    scale
        Train the positive scale, too (decoder noise, diagonal, spectrum), in the ``param`` site
        ``name + "_scale"``.

    Returns
    -------
    Prior
        A prior of the same kind with the current values of the parameters. The distribution of the
        latent, and leaves that FlowJAX marks ``NonTrainable``, are not trained.

    Raises
    ------
    TypeError
        If `prior` is not a prior.
    ValueError
        If there is nothing to train, or ``scale=True`` for a prior without a scale.

    Notes
    -----
    **Fails when** the model is run by MCMC, where parameters stay at their initial values.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> weights = jnp.ones((4, 2))
    >>> def model(prior):
    ...     prior = ngp.param("prior", prior)
    ...     return ngp.sample("x", prior)
    """
    if not isinstance(prior, Prior):
        raise TypeError(
            message(
                f"ngp.param({name!r}, ...)",
                expected="a generative prior",
                got=type(prior).__name__,
                remedy="pass the prior itself; for other networks use numpyro.param",
            )
        )
    fields = [f for f in prior.trainable_fields if jax.tree.leaves(getattr(prior, f))]
    initial: Any = {field.strip("_"): _trainable(getattr(prior, field)) for field in fields}
    if not any(initial.values()) and not scale:
        raise ValueError(
            message(
                f"ngp.param({name!r}, ...): {type(prior).__name__} has nothing to train",
                got="a network without weights that JAX can see",
                remedy="pass the network as an Equinox module, or with jax.tree_util.Partial",
            )
        )
    trained = copy.copy(prior)
    values: Any = numpyro.param(name, initial)
    for field in fields:
        setattr(trained, field, _replaced(getattr(prior, field), values[field.strip("_")]))
    if scale:
        _train_scale(name, trained)
    return trained


def _train_scale(name: str, prior: Prior) -> None:
    field = prior.scale_field
    value = None if field is None else getattr(prior, field)
    if field is None or value is None:
        raise ValueError(
            message(
                f"ngp.param({name!r}, ..., scale=True): {type(prior).__name__} has no scale",
                remedy="leave out scale=True",
            )
        )
    positive = constraints.positive
    setattr(prior, field, numpyro.param(f"{name}_scale", value, constraint=positive))


def _marks(tree: PyTree) -> list[bool]:
    """For each leaf of `tree`, whether it is trained."""
    if not isinstance(tree, Frozen):
        return [True for _ in jax.tree.leaves(tree)]
    return tree.select(lambda node: isinstance(node, paramax.NonTrainable))


def _trainable(tree: PyTree) -> list[jax.Array]:
    return [
        leaf for leaf, trained in zip(jax.tree.leaves(tree), _marks(tree), strict=True) if trained
    ]


def _replaced(tree: PyTree, values: list[jax.Array]) -> PyTree:
    leaves, treedef = jax.tree.flatten(tree)
    new = iter(values)
    marks = zip(leaves, _marks(tree), strict=True)
    return jax.tree.unflatten(treedef, [next(new) if mark else leaf for leaf, mark in marks])
