"""What the adapters to other network libraries share: weights as data, the rest static.

An adapter is a pytree whose leaves are the weights; the way in which the library applies them is
one hashable static field. Two adapters of one module with different weights are therefore one
skeleton: they share a compiled program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_genprior.errors import NetworkError, message

__all__ = ["Adapter", "as_arrays", "keyword_arguments"]


class Adapter(eqx.Module):
    """A network of another library as an unbatched callable pytree.

    Calling it with a latent, or with a latent and a condition, gives the event or
    ``(loc, scale)``.

    Parameters
    ----------
    variables
        A pytree of arrays: weights, and batch statistics where there are any.
    apply
        A hashable callable ``apply(variables, *inputs)``.
    batched
        Whether the network expects, and returns, a leading batch axis. Then one of length one is
        added to every input and removed from every output.
    """

    variables: Any
    apply: Callable[..., Any] = eqx.field(static=True)
    batched: bool = eqx.field(static=True)

    def __call__(self, *inputs: Any) -> Any:
        """Map a latent, and a condition if there is one, to an event or to ``(loc, scale)``."""
        if not self.batched:
            return self.apply(self.variables, *inputs)
        inputs = tuple(jnp.asarray(x)[None] for x in inputs)
        return jax.tree.map(_without_batch, self.apply(self.variables, *inputs))


def _without_batch(output: Any) -> Any:
    if jnp.ndim(output) == 0 or jnp.shape(output)[0] != 1:
        raise NetworkError(
            message(
                "With batched=True the network must return a leading batch axis",
                expected="an output of shape (1, ...)",
                got=jnp.shape(output),
                remedy="leave out batched=True if the network takes one latent at a time",
            )
        )
    return output[0]


def as_arrays(name: str, tree: Any, remedy: str) -> Any:
    """Turn the leaves of ``tree`` into JAX arrays.

    Raises
    ------
    TypeError
        If a leaf is not numeric; the message calls the tree ``name`` and ends in ``remedy``.
    """

    def convert(path: Any, leaf: Any) -> Any:
        if isinstance(leaf, jax.Array):
            return leaf
        if isinstance(leaf, np.ndarray | np.generic | bool | int | float | complex):
            array = np.asarray(leaf)
            if array.dtype.kind in "biufc" or array.dtype.isbuiltin == 2:
                return jnp.asarray(array)
        raise TypeError(
            message(
                f"`{name}` must hold arrays only",
                got=f"{type(leaf).__name__} at {name}{jax.tree_util.keystr(path)}",
                remedy=remedy,
            )
        )

    return jax.tree_util.tree_map_with_path(convert, tree)


def keyword_arguments(arguments: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return keyword arguments as a hashable tuple of pairs.

    Raises
    ------
    TypeError
        If a value is not hashable: it would have to be an input or a weight.
    """
    for name, value in arguments.items():
        try:
            hash(value)
        except TypeError:
            raise TypeError(
                message(
                    f"The keyword argument `{name}` must be hashable",
                    expected="a switch, a number or a string",
                    got=type(value).__name__,
                    remedy="pass arrays as weights or as the condition",
                )
            ) from None
    return tuple(sorted(arguments.items()))
