"""The condition of a prior: an array whose leading dimensions are a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from numpyro_genprior.errors import message

MAX_LABEL = 2**24  # integers up to here are exact in float32


@jax.tree_util.register_pytree_node_class
class Condition:
    """An array of conditions, and the shape of one of them.

    Integer conditions (labels) are stored as floats and passed to the network as integers, so that
    a prior has inexact leaves only and ``jax.grad`` of a function of the prior works.
    """

    def __init__(
        self, array: ArrayLike, shape: tuple[int, ...], dtype: DTypeLike | None = None
    ) -> None:
        array = jnp.asarray(array)
        self.shape = shape
        self.dtype = array.dtype if dtype is None else np.dtype(dtype)
        ndim = array.ndim - len(shape)
        if ndim < 0 or array.shape[ndim:] != shape:
            raise ValueError(
                message(
                    "The condition has the wrong shape",
                    expected=f"(..., {', '.join(map(str, shape))})" if shape else "any shape",
                    got=array.shape,
                    remedy="put batch dimensions in front of the dimensions of one condition",
                )
            )
        if not jnp.issubdtype(self.dtype, jnp.inexact):
            _check_labels(array)
            array = array.astype(jnp.result_type(float))
        self._array = array

    @property
    def array(self) -> jax.Array:
        """The conditions, of shape ``batch_shape + shape`` and of the given dtype."""
        if jnp.issubdtype(self.dtype, jnp.inexact):
            return self._array
        return jnp.rint(self._array).astype(self.dtype)

    @property
    def ndim(self) -> int:
        """Number of dimensions of one condition."""
        return len(self.shape)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions."""
        return self._array.shape[: self._array.ndim - len(self.shape)]

    @property
    def abstract(self) -> jax.ShapeDtypeStruct:
        """One condition, as shape and dtype."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    def replace(self, array: jax.Array) -> Condition:
        """Other conditions of the same shape; raises TypeError for floats in place of integers."""
        integers = not jnp.issubdtype(self.dtype, jnp.inexact)
        if integers and jnp.issubdtype(array.dtype, jnp.inexact):
            raise TypeError(
                message(
                    "The condition has the wrong dtype",
                    expected=f"integers ({self.dtype}), as at construction",
                    got=array.dtype,
                    remedy="pass labels as an integer array",
                )
            )
        dtype = self.dtype if integers else jnp.result_type(self.dtype, array.dtype)
        return Condition(array if integers else array.astype(dtype), self.shape, dtype)

    def tree_flatten(self) -> tuple[tuple[jax.Array], tuple[tuple[int, ...], np.dtype]]:
        return (self._array,), (self.shape, self.dtype)

    @classmethod
    def tree_unflatten(
        cls, aux: tuple[tuple[int, ...], np.dtype], children: tuple[jax.Array]
    ) -> Condition:
        self = object.__new__(cls)
        (self._array,) = children
        self.shape, self.dtype = aux
        return self


def _check_labels(array: jax.Array) -> None:
    if isinstance(array, Tracer) or array.dtype == bool or array.size == 0:
        return
    largest = int(np.max(np.abs(np.asarray(array))))
    if largest > MAX_LABEL:
        raise ValueError(
            message(
                "An integer condition is too large to be stored exactly",
                expected=f"labels up to {MAX_LABEL}",
                got=largest,
                remedy="number the labels from zero, or pass a float condition",
            )
        )
