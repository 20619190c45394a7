"""Through the wrappers that NumPyro puts around a distribution, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from numpyro.distributions import (
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)

WRAPPERS = (ExpandedDistribution, Independent, MaskedDistribution)


def unwrap(fn: Any) -> Any:
    """The distribution inside ``expand``, ``to_event`` and ``mask``."""
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return fn


def is_masked(fn: Distribution) -> bool:
    """Whether a mask other than True lies around a distribution."""
    while isinstance(fn, WRAPPERS):
        if isinstance(fn, MaskedDistribution) and fn._mask is not True:
            return True
        fn = fn.base_dist
    return False


def rewrap(fn: Any, core: Distribution) -> Distribution:
    """Put the wrappers of `fn` around `core`, a law whose batch shape is that of the distribution
    inside `fn`, or already the expanded one.

    Batch dimensions that `fn` made event dimensions become event dimensions of the result, and a
    mask masks it.
    """
    return map_core(fn, lambda _: core)


def map_core(fn: Any, change: Callable[[Any], Distribution]) -> Distribution:
    """Replace the distribution inside the wrappers of `fn`."""
    if not isinstance(fn, WRAPPERS):
        return change(fn)
    inner = map_core(fn.base_dist, change)
    if isinstance(fn, ExpandedDistribution):
        return inner.expand(jnp.broadcast_shapes(fn.batch_shape, inner.batch_shape))
    if isinstance(fn, Independent):
        return inner.to_event(fn.reinterpreted_batch_ndims)
    mask: Any = fn._mask
    return inner.mask(mask)
