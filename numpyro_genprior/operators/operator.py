"""`Operator`: a linear map from events to data, with its adjoint and the spectrum of A Aᵀ; and
`Composition`, the product of two.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.operators.gram import Gram, HartleyGram, IdentityGram, gram_of
from numpyro_genprior.priors.vectorise import vectorise

MAX_DENSE_DATA = 4096  # size of the data up to which A Aᵀ of a composition is formed


class Operator(eqx.Module):
    """A linear map A from events to data.

    A pytree whose arrays are leaves: pass operators to models as arguments, through ``jax.jit``
    and ``jax.vmap``. Subclasses write unbatched functions of one event and one array of data;
    leading dimensions are handled here.

    Attributes
    ----------
    event_shape, data_shape
        Shapes of one event and of its data.
    gram
        The spectrum of ``A Aᵀ``, computed once, when the operator is built. An `IdentityGram` says
        that the rows are orthonormal.

    Notes
    -----
    **Fails when** the arrays of an operator are replaced (by training, by ``eqx.tree_at``):
    `gram` then still belongs to the old ones. Build a new operator.
    """

    event_shape: eqx.AbstractVar[tuple[int, ...]]
    data_shape: eqx.AbstractVar[tuple[int, ...]]
    gram: eqx.AbstractVar[Gram]

    @property
    def orthonormal(self) -> bool:
        """Whether the rows are orthonormal, ``A Aᵀ = I``."""
        return isinstance(self.gram, IdentityGram)

    @abstractmethod
    def _apply(self, x: jax.Array) -> jax.Array:
        """A: one event to its data."""

    @abstractmethod
    def _adjoint(self, y: jax.Array) -> jax.Array:
        """Aᵀ: one array of data to an event."""

    def __call__(self, event: ArrayLike) -> jax.Array:
        """A x.

        Parameters
        ----------
        event
            Of shape ``(..., *event_shape)``.

        Returns
        -------
        jax.Array
            Of shape ``(..., *data_shape)``.
        """
        x = require_shape(event, self.event_shape, "An event")
        return vectorise(self._apply, [(x, len(self.event_shape))], [len(self.data_shape)])

    def adjoint(self, data: ArrayLike) -> jax.Array:
        """Aᵀ y.

        Parameters
        ----------
        data
            Of shape ``(..., *data_shape)``.

        Returns
        -------
        jax.Array
            Of shape ``(..., *event_shape)``.
        """
        y = require_shape(data, self.data_shape, "Data")
        return vectorise(self._adjoint, [(y, len(self.data_shape))], [len(self.event_shape)])

    def matrix(self) -> jax.Array:
        """A as a matrix of shape ``(data size, event size)``, by one product for each entry."""
        size = math.prod(self.event_shape)
        unit = jnp.eye(size).reshape(size, *self.event_shape)
        with jax.default_matmul_precision("highest"):
            return self(unit).reshape(size, -1).T

    def __matmul__(self, inner: Operator) -> Composition:
        """The composition ``A @ B``: first B, then A."""
        return Composition(self, inner) if isinstance(inner, Operator) else NotImplemented

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(event_shape={self.event_shape}, data_shape={self.data_shape})"
        )


class Composition(Operator):
    """``outer @ inner``: first `inner`, then `outer`.

    Parameters
    ----------
    outer, inner
        Operators; the data of `inner` are the event of `outer`.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the spectrum would need a matrix of more than 4096 data.

    Notes
    -----
    The spectrum of ``A Aᵀ`` is that of `outer` if `inner` has orthonormal rows, the product of the
    two spectra if both are convolutions, and follows from that of `inner` if `outer` acts on
    single entries. Otherwise ``A Aᵀ`` is formed, by one product for each datum.

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
        self.gram = _product_gram(outer, inner)

    def _apply(self, x: jax.Array) -> jax.Array:
        return self.outer._apply(self.inner._apply(x))

    def _adjoint(self, y: jax.Array) -> jax.Array:
        return self.inner._adjoint(self.outer._adjoint(y))


class Entrywise(Operator):
    """An operator whose data are single entries of the event, each with a weight."""

    @abstractmethod
    def product_gram(self, inner: Gram) -> Gram | None:
        """The spectrum for ``self @ B``, from that of B; None if it does not follow."""


def _product_gram(outer: Operator, inner: Operator) -> Gram:
    """The spectrum of ``A Aᵀ`` for A = outer @ inner."""
    if inner.orthonormal:
        return outer.gram
    if isinstance(outer, Entrywise):
        gram = outer.product_gram(inner.gram)
        if gram is not None:
            return gram
    if isinstance(inner.gram, HartleyGram) and isinstance(outer.gram, HartleyGram):
        return HartleyGram(outer.gram.eigenvalues * inner.gram.eigenvalues)
    size = math.prod(outer.data_shape)
    if size > MAX_DENSE_DATA:
        raise ValueError(
            message(
                f"The spectrum of {type(outer).__name__} @ {type(inner).__name__} needs a matrix",
                expected=f"at most {MAX_DENSE_DATA} data",
                got=size,
                remedy="use fewer data, or a single operator (Convolution, Mask, Fourier)",
            )
        )
    unit = jnp.eye(size).reshape(size, *outer.data_shape)
    return gram_of(inner.adjoint(outer.adjoint(unit)).reshape(size, -1), outer.data_shape)


def require_shape(value: ArrayLike, shape: tuple[int, ...], what: str) -> jax.Array:
    """A float array whose trailing dimensions are `shape`.

    Raises
    ------
    ValueError
        If they are not `shape`.
    """
    value = as_float(value)
    if value.shape[max(value.ndim - len(shape), 0) :] != shape:
        raise ValueError(
            message(
                f"{what} of an operator has the wrong shape",
                expected=f"(..., {', '.join(map(str, shape))})",
                got=value.shape,
                remedy="put batch dimensions first; build the operator for your event's shape",
            )
        )
    return value


def as_shape(shape: int | Sequence[int], what: str) -> tuple[int, ...]:
    """A shape as a tuple of positive sizes, from an integer or a sequence of integers.

    Raises
    ------
    ValueError
        If it is not a shape.
    """
    try:
        sizes = (int(shape),) if isinstance(shape, int) else tuple(int(n) for n in shape)
    except TypeError:
        sizes = ()
    if not sizes or any(n < 1 for n in sizes):
        raise ValueError(
            message(
                f"{what}: this is not the shape of an event",
                expected="positive sizes",
                got=repr(shape),
                remedy="pass prior.event_shape, e.g. (28, 28)",
            )
        )
    return sizes


def as_float(array: ArrayLike) -> jax.Array:
    """An array of a floating dtype."""
    array = jnp.asarray(array)
    inexact = jnp.issubdtype(array.dtype, jnp.floating)
    return array if inexact else array.astype(jnp.result_type(float))


def require_finite(array: ArrayLike, what: str) -> None:
    """Refuse NaN and infinity, except in traced arrays, whose values are unknown.

    Raises
    ------
    ValueError
        If an entry is not finite.
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
