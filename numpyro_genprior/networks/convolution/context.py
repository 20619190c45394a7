"""The context manager `channels_last`, and the call of a network that it applies to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import jax
from jax.core import Tracer
from jax.extend.core import jaxpr_as_fun
from jaxtyping import PyTree

from numpyro_genprior.errors import message
from numpyro_genprior.networks.convolution.primitive import has_convolutions, replace_convolutions

_MAX_REMEMBERED_CALLS = 512

Result = TypeVar("Result")


class _State(threading.local):
    enabled = True


_state = _State()
_without_convolutions: set[tuple[object, ...]] = set()


class channels_last:
    """Whether networks run their convolutions channels-last inside loops on CPU. On by default.

    XLA's CPU compiler runs a convolution inside ``while`` or ``scan``, and so inside NUTS, about
    ten times slower than outside, unless its channels come last. Priors therefore rewrite the
    convolutions of their networks to that layout, whether they come from Equinox, Haiku, Flax or
    a plain function, and in everything that JAX derives from the network (gradients, batches,
    nested ``jit`` and loops). Results agree to rounding. Networks without convolutions, other
    programs and other platforms are left unchanged.

    Call it to set the switch for the current thread, or use it as a context manager.

    Parameters
    ----------
    enabled
        True or False.

    Raises
    ------
    TypeError
        If `enabled` is not a bool.

    Notes
    -----
    The switch is read when a network is traced. A compiled function keeps the layout that it was
    compiled with.

    **Fails when** there is nothing to gain: convolutions in double precision, depthwise and other
    convolutions of few channels, and transposed ones in three dimensions have no faster form on
    CPU and are left unchanged. So are convolutions inside a derivative rule that the network
    defines itself (``jax.custom_jvp``, ``jax.custom_vjp``).

    Examples
    --------
    >>> import numpyro_genprior as ngp
    >>> with ngp.networks.channels_last(False):
    ...     pass  # networks traced here keep the layout of their convolutions
    """

    def __init__(self, enabled: bool) -> None:
        if not isinstance(enabled, bool):
            raise TypeError(
                message(
                    "channels_last is a switch",
                    expected="True or False",
                    got=type(enabled).__name__,
                    remedy="write channels_last(True)",
                )
            )
        self._before, _state.enabled = _state.enabled, enabled

    def __enter__(self) -> channels_last:
        return self

    def __exit__(self, *_: object) -> None:
        _state.enabled = self._before


def call(function: Callable[..., Result], *arguments: PyTree) -> Result:
    """Return ``function(*arguments)``, with fast convolutions if the switch is on and JAX traces.

    Without a tracer among the arguments no loop surrounds the call, and nothing is rewritten.
    """
    leaves, treedef = jax.tree.flatten(arguments)
    if not _state.enabled or not any(isinstance(leaf, Tracer) for leaf in leaves):
        return function(*arguments)
    try:
        key = (function, treedef, tuple(map(jax.typeof, leaves)))
        if key in _without_convolutions:
            return function(*arguments)
        traced, shapes = jax.make_jaxpr(
            lambda *leaves: function(*jax.tree.unflatten(treedef, leaves)), return_shape=True
        )(*leaves)
    except Exception:  # a function that cannot be traced alone runs, or raises, unchanged
        return function(*arguments)
    if not has_convolutions(traced):
        if len(_without_convolutions) >= _MAX_REMEMBERED_CALLS:
            _without_convolutions.clear()
        _without_convolutions.add(key)
        return function(*arguments)
    results = jaxpr_as_fun(replace_convolutions(traced))(*leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), results)
