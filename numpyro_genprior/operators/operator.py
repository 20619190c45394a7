"""`Operator`: a linear map from events to data, with its adjoint and the spectrum of A Aᵀ."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.operators.gram import Gram
from numpyro_genprior.priors.vectorise import vectorise


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
        The spectrum of ``A Aᵀ``, computed once, when the operator is built.
    orthonormal
        Whether the rows are orthonormal, ``A Aᵀ = I``.

    Notes
    -----
    **Fails when** arrays of an operator are changed in place of building another (by training,
    by ``eqx.tree_at``): `gram` is then that of the old ones.
    """

    event_shape: eqx.AbstractVar[tuple[int, ...]]
    data_shape: eqx.AbstractVar[tuple[int, ...]]
    gram: eqx.AbstractVar[Gram]

    @property
    def orthonormal(self) -> bool:
        return False

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
        x = shaped(event, self.event_shape, "An event")
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
        y = shaped(data, self.data_shape, "Data")
        return vectorise(self._adjoint, [(y, len(self.data_shape))], [len(self.event_shape)])

    def matrix(self) -> jax.Array:
        """A as a matrix of shape ``(data size, event size)``, by one product for each entry."""
        size = math.prod(self.event_shape)
        unit = jnp.eye(size).reshape(size, *self.event_shape)
        return self(unit).reshape(size, -1).T

    def __matmul__(self, inner: Any) -> Any:
        """The composition ``A @ B``: first B, then A."""
        from numpyro_genprior.operators.composition import Composition

        if not isinstance(inner, Operator):
            return NotImplemented
        return Composition(self, inner)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(event_shape={self.event_shape}, data_shape={self.data_shape})"
        )


def shaped(value: ArrayLike, shape: tuple[int, ...], what: str) -> jax.Array:
    """A float array that ends in `shape`.

    Raises
    ------
    ValueError
        When it does not.
    """
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        value = value.astype(jnp.result_type(float))
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


def grid(shape: Any, what: str) -> tuple[int, ...]:
    """A shape as a tuple of positive sizes, from an integer or a sequence.

    Raises
    ------
    ValueError
        When it is none.
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
