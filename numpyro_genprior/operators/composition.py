"""`Composition`: one operator after another."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from numpyro_genprior.errors import message
from numpyro_genprior.operators.dense import gram_of
from numpyro_genprior.operators.entries import Diagonal, Identity, Mask
from numpyro_genprior.operators.gram import DiagonalGram, Gram, HartleyGram
from numpyro_genprior.operators.operator import Operator

DENSE = 4096  # most data for which A Aᵀ of a composition is formed


class Composition(Operator):
    """``outer @ inner``: first `inner`, then `outer`.

    Parameters
    ----------
    outer, inner
        Operators; the data of `inner` are the event of `outer`.

    Raises
    ------
    ValueError
        When the shapes do not fit, or the spectrum would need a matrix of more than 4096 data.

    Notes
    -----
    The spectrum is that of `outer` where `inner` has orthonormal rows, a product where both are
    convolutions, weights where both act entry by entry; otherwise ``A Aᵀ`` is formed, by a product
    for each datum.

    **Fails when** there are many data and none of these holds.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> seen = jnp.arange(16).reshape(4, 4) < 8
    >>> ngp.operators.Mask(seen) @ ngp.operators.Blur((4, 4), 1.0)
    Composition(event_shape=(4, 4), data_shape=(8,))
    """

    outer: Operator
    inner: Operator
    gram: Gram
    event_shape: tuple[int, ...] = eqx.field(static=True)
    data_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, outer: Operator, inner: Operator) -> None:
        if outer.event_shape != inner.data_shape:
            raise ValueError(
                message(
                    "A composition does not fit",
                    expected=f"data of shape {outer.event_shape} from the right operator",
                    got=inner.data_shape,
                    remedy="A @ B applies B first: exchange them, or change a shape",
                )
            )
        self.outer, self.inner = outer, inner
        self.event_shape, self.data_shape = inner.event_shape, outer.data_shape
        self.gram = _gram(outer, inner)

    @property
    def orthonormal(self) -> bool:
        return self.outer.orthonormal and self.inner.orthonormal

    def _apply(self, x: jax.Array) -> jax.Array:
        return self.outer._apply(self.inner._apply(x))

    def _adjoint(self, y: jax.Array) -> jax.Array:
        return self.inner._adjoint(self.outer._adjoint(y))


def _gram(outer: Operator, inner: Operator) -> Gram:
    if inner.orthonormal:
        return outer.gram
    if isinstance(outer, Identity):
        return inner.gram
    if isinstance(inner.gram, HartleyGram) and isinstance(outer.gram, HartleyGram):
        return HartleyGram(outer.gram.eigenvalues * inner.gram.eigenvalues)
    if isinstance(inner.gram, DiagonalGram) and isinstance(outer, Mask):
        return DiagonalGram(outer(inner.gram.eigenvalues))
    if isinstance(inner.gram, DiagonalGram) and isinstance(outer, Diagonal):
        return DiagonalGram(outer.weights**2 * inner.gram.eigenvalues)
    size = math.prod(outer.data_shape)
    if size > DENSE:
        raise ValueError(
            message(
                f"The spectrum of {type(outer).__name__} @ {type(inner).__name__} needs a matrix",
                expected=f"at most {DENSE} data",
                got=size,
                remedy="use fewer data, or an operator of its own (Convolution, Mask, Fourier)",
            )
        )
    unit = jnp.eye(size).reshape(size, *outer.data_shape)
    return gram_of(inner.adjoint(outer.adjoint(unit)).reshape(size, -1), outer.data_shape)
