"""`NetworkAdapter`: a network of another library as a callable pytree of its weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, PyTree

from numpyro_genprior.errors import NetworkError, message

__all__ = ["NetworkAdapter", "as_arrays", "hashable_keywords"]


class NetworkAdapter(eqx.Module):
    """A network of another library as an unbatched callable pytree.

    Calling it with a latent, or with a latent and a condition, gives the event or
    ``(loc, scale)``. Its leaves are the weights; everything else that the library needs is static
    and hashable. Two adapters of one network with different weights therefore share a compiled
    program.

    A subclass is final. It has the two fields below and further static fields, and implements
    `apply`.

    Attributes
    ----------
    variables
        A pytree of arrays: weights, and batch statistics if there are any.
    batched
        Whether the network expects, and returns, a leading batch axis. If so, one of length one
        is added to every input and removed from every output.
    """

    variables: eqx.AbstractVar[PyTree[jax.Array]]
    batched: eqx.AbstractVar[bool]

    @abstractmethod
    def apply(self, *inputs: jax.Array) -> PyTree[jax.Array]:
        """Apply the network to a latent, and a condition if there is one, by its own library."""

    def __call__(self, *inputs: ArrayLike) -> PyTree[jax.Array]:
        """Map a latent, and a condition if there is one, to an event or to ``(loc, scale)``."""
        if not self.batched:
            return self.apply(*inputs)  # pyright: ignore (the library converts)
        return jax.tree.map(_without_batch, self.apply(*(jnp.asarray(x)[None] for x in inputs)))


def _without_batch(output: jax.Array) -> jax.Array:
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


def as_arrays(name: str, tree: PyTree[ArrayLike], remedy: str) -> PyTree[jax.Array]:
    """Turn the leaves of ``tree`` into JAX arrays.

    Raises
    ------
    TypeError
        If a leaf is not numeric; the message calls the tree ``name`` and ends in ``remedy``.
    """

    def convert(path: jax.tree_util.KeyPath, leaf: object) -> jax.Array:
        if isinstance(leaf, jax.Array):
            return leaf
        if isinstance(leaf, np.ndarray | np.generic | bool | int | float | complex):
            array = np.asarray(leaf)
            if array.dtype.kind in "biufc" or array.dtype.isbuiltin == 2:
                return jnp.asarray(array)
        got = f"{type(leaf).__name__} at {name}{jax.tree_util.keystr(path)}"
        raise TypeError(message(f"`{name}` must hold only arrays", got=got, remedy=remedy))

    return jax.tree_util.tree_map_with_path(convert, tree)


def hashable_keywords(keywords: Mapping[str, Hashable]) -> tuple[tuple[str, Hashable], ...]:
    """Return keyword arguments as a hashable tuple of pairs.

    Raises
    ------
    TypeError
        If a value is not hashable: it should be an input or a weight.
    """
    for name, value in keywords.items():
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
    return tuple(sorted(keywords.items()))
