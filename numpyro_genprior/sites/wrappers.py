"""Remove and restore the wrappers ``expand``, ``to_event`` and ``mask`` of a distribution."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from numpyro.distributions import (
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)

WRAPPERS = (ExpandedDistribution, Independent, MaskedDistribution)


def unwrap(fn: object) -> Any:
    """The distribution inside ``expand``, ``to_event`` and ``mask``."""
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return fn


def is_masked(fn: Distribution) -> bool:
    """Whether a distribution has a mask other than True."""
    while isinstance(fn, WRAPPERS):
        if isinstance(fn, MaskedDistribution) and fn._mask is not True:
            return True
        fn = fn.base_dist
    return False


def rewrap(fn: Distribution, core: Distribution) -> Distribution:
    """Put the wrappers of `fn` around `core`.

    Batch dimensions that `fn` made event dimensions become event dimensions of the result, and a
    mask masks it.

    Parameters
    ----------
    fn
        A distribution, possibly with ``expand``, ``to_event`` or ``mask`` applied.
    core
        A distribution whose batch shape is that of the distribution inside `fn`, or already the
        expanded one.
    """
    return wrap_like(fn, rewrap(fn.base_dist, core)) if isinstance(fn, WRAPPERS) else core


def wrap_like(
    wrapper: ExpandedDistribution | Independent | MaskedDistribution, inner: Distribution
) -> Distribution:
    """Put one wrapper around another distribution."""
    if isinstance(wrapper, ExpandedDistribution):
        return inner.expand(jnp.broadcast_shapes(wrapper.batch_shape, inner.batch_shape))
    if isinstance(wrapper, Independent):
        return inner.to_event(wrapper.reinterpreted_batch_ndims)
    mask: Any = wrapper._mask
    return inner.mask(mask)
