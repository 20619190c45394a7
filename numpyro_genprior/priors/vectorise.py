"""Map an unbatched function over broadcast leading dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def vectorise(
    function: Callable[..., Any], arguments: list[tuple[jax.Array, int]], outputs: list[int]
) -> Any:
    """Call `function`, written for single elements, on arrays with leading dimensions.

    Leading dimensions broadcast as in NumPy, and an argument without them is not repeated. With
    none at all the function is called directly: no trace of batching remains in the program.

    Parameters
    ----------
    function
        Takes one element per argument.
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
    taken = ",".join(_core(f"a{i}_", ndim) for i, (_, ndim) in enumerate(arguments))
    given = ",".join(_core(f"r{i}_", ndim) for i, ndim in enumerate(outputs))
    mapped = jnp.vectorize(function, signature=f"{taken}->{given}")
    return mapped(*aligned)


def _core(prefix: str, ndim: int) -> str:
    return "(" + ",".join(f"{prefix}{i}" for i in range(ndim)) + ")"
