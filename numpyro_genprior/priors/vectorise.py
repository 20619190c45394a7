"""Map an unbatched function over broadcast leading dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from numpyro_genprior import validation
from numpyro_genprior.priors.condition import Condition


def vectorise(
    function: Callable[..., Any],
    arguments: Sequence[tuple[jax.Array, int]],
    outputs: Sequence[int],
) -> Any:
    """Call `function`, written for single elements, on arrays with leading dimensions.

    Leading dimensions broadcast as in NumPy, and an argument without them is not repeated. Without
    leading dimensions the function is called directly, and the program has no batching.

    Parameters
    ----------
    function
        Function of one element for each argument.
    arguments
        Pairs (array, number of dimensions of one element).
    outputs
        Number of dimensions of one element of each output.
    """
    leading = max(jnp.ndim(array) - ndim for array, ndim in arguments)
    if leading == 0:
        return function(*(array for array, _ in arguments))
    aligned = (
        jnp.reshape(array, (1,) * (leading + ndim - jnp.ndim(array)) + jnp.shape(array))
        for array, ndim in arguments
    )
    inputs = ",".join(_signature_of(f"a{i}_", ndim) for i, (_, ndim) in enumerate(arguments))
    results = ",".join(_signature_of(f"r{i}_", ndim) for i, ndim in enumerate(outputs))
    mapped = jnp.vectorize(function, signature=f"{inputs}->{results}")
    return mapped(*aligned)


def over_conditions(
    function: Callable[..., Any],
    arguments: Sequence[tuple[jax.Array, int]],
    outputs: Sequence[int],
    condition: Condition | None,
) -> Any:
    """`vectorise` an unbatched ``function(*arguments, condition)``, over the conditions too."""
    if condition is None:
        return vectorise(lambda *args: function(*args, None), arguments, outputs)
    validation.batches_fit([a.shape[: a.ndim - n] for a, n in arguments], condition.batch_shape)
    return vectorise(function, [*arguments, (condition.array, condition.ndim)], outputs)


def for_each_condition(
    function: Callable[..., PyTree],
    trees: Sequence[PyTree],
    batch_shape: tuple[int, ...],
    condition: Condition | None,
) -> PyTree:
    """Call an unbatched ``function(*trees, condition)`` for each element of a batch.

    Arrays of `trees` have `batch_shape` leading, and so have those of the result.
    """
    array = None if condition is None else condition.array
    if not batch_shape:
        return function(*trees, array)
    number = math.prod(batch_shape)
    if array is not None and condition is not None:
        array = jnp.broadcast_to(array, batch_shape + condition.shape)
        array = array.reshape(number, *condition.shape)
    flat = jax.tree.map(lambda a: a.reshape(number, *a.shape[len(batch_shape) :]), tuple(trees))
    axes = (*(0 for _ in flat), None if array is None else 0)
    mapped = jax.vmap(function, in_axes=axes, axis_size=number)(*flat, array)
    return jax.tree.map(lambda a: a.reshape(*batch_shape, *a.shape[1:]), mapped)


def _signature_of(prefix: str, ndim: int) -> str:
    return "(" + ",".join(f"{prefix}{i}" for i in range(ndim)) + ")"
