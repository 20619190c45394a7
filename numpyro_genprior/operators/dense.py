"""`Dense`: an operator given by its matrix."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.operators.gram import DenseGram, gram_of
from numpyro_genprior.operators.operator import Operator, as_float, as_shape, require_finite


class Dense(Operator):
    """A given matrix, on the event flattened in C order.

    Parameters
    ----------
    matrix
        Of shape ``(data size, event size)``.
    event_shape
        Shape of one event; None: a vector.

    Raises
    ------
    ValueError
        If it is not a matrix, is not finite, or does not have one column for each entry of the
        event.

    Notes
    -----
    Building it computes the eigenvectors of ``A Aᵀ``, at a cost cubic in the number of data: under
    a second for a thousand data. Build it outside the model.

    **Fails when** the matrix is traced and differentiated and ``A Aᵀ`` has equal eigenvalues (two
    zeros, if there are more data than entries): the derivative of its eigenvectors is then not
    finite.

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
        shape = matrix.shape[-1:] if event_shape is None else as_shape(event_shape, "Dense")
        if matrix.ndim != 2 or 0 in matrix.shape or math.prod(shape) != matrix.shape[1]:
            raise ValueError(
                message(
                    "Dense: the matrix does not fit the event",
                    expected="shape (data size, event size)"
                    + ("" if event_shape is None else f", here (…, {math.prod(shape)})"),
                    got=matrix.shape,
                    remedy="transpose it, or pass event_shape=prior.event_shape",
                )
            )
        require_finite(matrix, "Dense: the matrix")
        self.event_shape, self.data_shape = shape, matrix.shape[:1]
        self._matrix = matrix
        self.gram = gram_of(matrix, self.data_shape)

    def _apply(self, x: jax.Array) -> jax.Array:
        return self._matrix @ jnp.ravel(x)

    def _adjoint(self, y: jax.Array) -> jax.Array:
        return (y @ self._matrix).reshape(self.event_shape)
