"""`channels_last`: the switch, and the call of a network that it governs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer
from jax.extend.core import jaxpr_as_fun

from numpyro_genprior.errors import message
from numpyro_genprior.networks.convolution.primitive import has_convolutions, replace_convolutions

_MOST_REMEMBERED = 512


class _State(threading.local):
    enabled = True


_state = _State()
_without_convolutions: set[Any] = set()


class channels_last:
    """Whether networks run their convolutions channels-last inside loops on CPU. On by default.

    XLA's CPU compiler runs a convolution inside ``while`` or ``scan``, and so inside NUTS, about
    ten times slower than outside, unless its channels come last. The networks of priors therefore
    hand it convolutions in that form: those of Equinox, Haiku, Flax and plain functions, in the
    network and in all that JAX derives from it (gradients, batches, nested ``jit`` and loops).
    Results agree to rounding. Networks without convolutions, other programs and other platforms
    are left as they are.

    Call it to set the switch for this thread, or use it as a context manager.

    Parameters
    ----------
    enabled
        True or False.

    Raises
    ------
    TypeError
        When `enabled` is not a bool.

    Notes
    -----
    The switch is read when a network is traced. A function that is compiled already keeps what it
    was compiled with.

    **Fails when** there is nothing to gain: double precision, depthwise and other convolutions
    of few channels, and transposed ones in three dimensions have no faster form on CPU and are
    left as they are. So are convolutions inside a derivative rule that the network
    defines itself (``jax.custom_jvp``, ``jax.custom_vjp``).

    Examples
    --------
    >>> import numpyro_genprior as ngp
    >>> with ngp.networks.channels_last(False):
    ...     pass  # what is traced here has the convolutions of the network as they are
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


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)``, with fast convolutions where the switch is on and JAX traces."""
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
    except Exception:  # what cannot be traced by itself runs, or fails, as it is
        return function(*arguments)
    if not has_convolutions(traced):
        if len(_without_convolutions) >= _MOST_REMEMBERED:
            _without_convolutions.clear()
        _without_convolutions.add(key)
        return function(*arguments)
    results = jaxpr_as_fun(replace_convolutions(traced))(*leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), results)
