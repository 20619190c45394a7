"""Partly observed events: restrict the mask of ``obs_mask`` to the density of the event."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import FrameType

import numpyro
from numpyro.distributions import Distribution, MaskedDistribution
from numpyro.primitives import _PYRO_STACK

from numpyro_genprior.sites.wrappers import WRAPPERS, wrap_like


@contextlib.contextmanager
def without_obs_mask(fn: Distribution) -> Iterator[Distribution]:
    """Remove the mask of ``obs_mask`` from a distribution and from the sites sampled inside.

    For ``numpyro.sample("x", prior, obs=x, obs_mask=mask)`` NumPyro samples ``x_observed`` under
    ``handlers.mask(mask)``, and ``x_unobserved`` under its complement. Only the density of the
    observed event is to be masked: a masked latent would have no prior.

    Yields
    ------
    Distribution
        `fn` without this mask; `fn` itself outside of ``obs_mask``.
    """
    frame = _masked_observe_frame()
    original = None if frame is None else frame.f_locals.get("fn")
    if original is None or not _is_inside(fn, original):  # a nested latent
        yield fn
        return
    handler = _PYRO_STACK.pop()
    try:
        yield _unmask(fn, original)
    finally:
        _PYRO_STACK.append(handler)


def _masked_observe_frame() -> FrameType | None:
    """The call of NumPyro's ``_masked_observe`` that samples the current site."""
    if not (_PYRO_STACK and isinstance(_PYRO_STACK[-1], numpyro.handlers.mask)):
        return None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "_masked_observe":
        frame = frame.f_back
    return frame


def _is_inside(fn: Distribution, original: Distribution) -> bool:
    while fn is not original and isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return fn is original


def _unmask(fn: Distribution, original: Distribution) -> Distribution:
    """Remove the innermost mask around `original`."""
    if fn is original or not isinstance(fn, WRAPPERS):
        return fn
    if isinstance(fn, MaskedDistribution) and not _has_mask(fn.base_dist, original):
        return fn.base_dist
    return wrap_like(fn, _unmask(fn.base_dist, original))


def _has_mask(fn: Distribution, original: Distribution) -> bool:
    while fn is not original and isinstance(fn, WRAPPERS):
        if isinstance(fn, MaskedDistribution):
            return True
        fn = fn.base_dist
    return False
