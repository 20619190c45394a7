"""Compute many draws in batches of equal size on the device; collect them on the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_genprior.errors import message
from numpyro_genprior.infer.posterior import Posterior

MAX_BATCH_ELEMENTS = 2**23  # numbers on the device at a time, 32 MiB in single precision

ArrayT = TypeVar("ArrayT", jax.Array, np.ndarray)


class Batch(NamedTuple):
    """Rows `start` to `stop` of some arrays, padded to `size` rows, so that one program serves all.

    A last batch that is too short is padded by repeating its rows.
    """

    start: int
    stop: int
    size: int

    @property
    def count(self) -> int:
        """Number of rows without padding."""
        return self.stop - self.start

    @property
    def rows(self) -> np.ndarray:
        """Indices of the rows without padding."""
        return np.arange(self.start, self.stop)

    def take(self, array: ArrayT) -> ArrayT:
        """These rows of an array, with padding."""
        if self.count == self.size:
            return array[self.start : self.stop]
        return array[np.resize(self.rows, self.size)]


def batches(number: int, size: int) -> Iterator[Batch]:
    """Batches of `size` rows that cover `number` rows in order."""
    for start in range(0, number, size):
        yield Batch(start, min(start + size, number), size)


def draws_per_batch(caller: str, batch_size: int | None, elements: int) -> int:
    """`batch_size`, or if it is None the number of draws of `elements` numbers that fit.

    Raises
    ------
    ValueError
        If `batch_size` is neither None nor a positive integer.
    """
    if batch_size is None:
        return max(1, MAX_BATCH_ELEMENTS // max(elements, 1))
    if not (isinstance(batch_size, Integral) and batch_size > 0):
        raise ValueError(
            message(
                f"{caller}: batch_size is not a number of draws",
                expected="a positive integer, or None",
                got=batch_size,
                remedy="leave it out to choose by the size of a draw",
            )
        )
    return int(batch_size)


def collect(
    function: Callable[[Batch], Mapping[str, jax.Array]], number: int, size: int
) -> dict[str, np.ndarray]:
    """The arrays that `function` gives for each batch, joined on the host.

    Parameters
    ----------
    function
        From a batch to arrays by name, with `size` as leading dimension.
    number
        Number of rows in all.
    size
        Number of rows in a batch.

    Returns
    -------
    dict
        Arrays with `number` as leading dimension; empty if `number` is 0.
    """
    joined: dict[str, np.ndarray] = {}
    for batch in batches(number, size):
        for name, value in jax.device_get(function(batch)).items():
            if name not in joined:
                joined[name] = np.empty((number, *value.shape[1:]), value.dtype)
            joined[name][batch.start : batch.stop] = value[: batch.count]
    return joined


def host_values(posterior: Posterior, xi: jax.Array | np.ndarray) -> dict[str, np.ndarray]:
    """All sites at many coordinates, on the host.

    Parameters
    ----------
    posterior
        The posterior whose coordinates these are.
    xi
        Coordinates of shape ``(draws, size)``.

    Returns
    -------
    dict
        For each site an array of shape ``(draws, *site_shape)``. The draws of a large event are
        never on the device all together.
    """
    number = xi.shape[0]
    shapes = jax.eval_shape(posterior.values, jax.ShapeDtypeStruct((posterior.size,), xi.dtype))
    elements = sum(math.prod(jnp.shape(shape)) for shape in jax.tree.leaves(shapes))
    size = max(1, min(number, draws_per_batch("host_values", None, elements)))
    rows: Any = xi
    return collect(lambda batch: _values(posterior, jnp.asarray(batch.take(rows))), number, size)


@jax.jit
def _values(posterior: Posterior, xi: jax.Array) -> dict[str, jax.Array]:
    return jax.vmap(posterior.values)(xi)
