"""`Dense`: a matrix."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.operators.gram import DenseGram, dense_gram
from numpyro_genprior.operators.operator import Operator, grid


class Dense(Operator):
    """A given matrix, on the event flattened in C order.

    Parameters
    ----------
    matrix
        Of shape ``(data size, event size)``.
    event_shape
        Shape of one event; a vector when None.

    Raises
    ------
    ValueError
        When it is no matrix, is not finite, or has not as many columns as the event has entries.

    Notes
    -----
    Building it takes the eigenvectors of ``A Aᵀ``, a cube of the number of data: for a thousand
    data under a second. Build it outside the model.

    **Fails when** the matrix is traced and differentiated and ``A Aᵀ`` has equal eigenvalues (two,
    when there are more data than entries): the derivative of its eigenvectors is then not finite.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> A = ngp.operators.Dense(jnp.ones((2, 9)), event_shape=(3, 3))
    >>> A(jnp.ones((5, 3, 3))).shape, A.adjoint(jnp.ones(2)).shape
    ((5, 2), (3, 3))
    """

    _matrix: jax.Array
    gram: DenseGram
    event_shape: tuple[int, ...] = eqx.field(static=True)
    data_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, matrix: ArrayLike, event_shape: tuple[int, ...] | None = None) -> None:
        matrix = as_float(matrix)
        columns = matrix.shape[-1:] if event_shape is None else grid(event_shape, "Dense")
        if matrix.ndim != 2 or 0 in matrix.shape or math.prod(columns) != matrix.shape[1]:
            raise ValueError(
                message(
                    "Dense: the matrix does not fit the event",
                    expected="shape (data size, event size)"
                    + ("" if event_shape is None else f", here (…, {math.prod(columns)})"),
                    got=matrix.shape,
                    remedy="transpose it, or pass event_shape=prior.event_shape",
                )
            )
        finite(matrix, "Dense: the matrix")
        self.event_shape, self.data_shape = columns, matrix.shape[:1]
        self._matrix = matrix
        self.gram = gram_of(matrix, self.data_shape)

    def _apply(self, x: jax.Array) -> jax.Array:
        return self._matrix @ jnp.ravel(x)

    def _adjoint(self, y: jax.Array) -> jax.Array:
        return (y @ self._matrix).reshape(self.event_shape)

    def matrix(self) -> jax.Array:
        return self._matrix


def gram_of(matrix: jax.Array, data_shape: tuple[int, ...]) -> DenseGram:
    """The spectrum of ``A Aᵀ`` of a matrix."""
    if isinstance(matrix, Tracer):
        return dense_gram(matrix @ matrix.T, data_shape, matrix.dtype)
    exact = np.asarray(matrix, np.float64)
    return dense_gram(exact @ exact.T, data_shape, matrix.dtype)


def as_float(array: ArrayLike) -> jax.Array:
    array = jnp.asarray(array)
    inexact = jnp.issubdtype(array.dtype, jnp.floating)
    return array if inexact else array.astype(jnp.result_type(float))


def finite(array: Any, what: str) -> None:
    """Refuse NaN and infinity; traced arrays cannot be looked at.

    Raises
    ------
    ValueError
        When an entry is not finite.
    """
    if not isinstance(array, Tracer) and not np.isfinite(np.asarray(array)).all():
        raise ValueError(
            message(
                f"{what} is not finite",
                expected="numbers",
                got="NaN or infinity",
                remedy="leave out the data that it belongs to",
            )
        )
