"""Check the values that outer handlers (``condition``, ``replay``, ...) give to a decoded event."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numpyro import handlers
from numpyro.primitives import Messenger

from numpyro_genprior.errors import message
from numpyro_genprior.sites.model_reader import Message

ValueSource = tuple[str, str, Callable[[str], bool]]
"""Name of a handler, prefix that scopes put before names on the way to it, and whether it has a
value for a name."""


def is_given(msg: Message, parts: Sequence[str], outer: Sequence[Messenger]) -> bool:
    """Whether outer handlers give a value to an event, and to all sites that determine it.

    Parameters
    ----------
    msg
        The message of the event.
    parts
        Names of its latent and noise sites.
    outer
        The handlers outside the decorated model, the outermost first.

    Raises
    ------
    ValueError
        If they give a value to the event but not to all of `parts`: these would be drawn from the
        prior, and the value would not reach them.
    """
    sources = list(_value_sources(msg, outer))

    def is_known(name: str) -> bool:
        return any(has_value(prefix + name) for _, prefix, has_value in sources)

    for handler, prefix, has_value in sources:
        if has_value(prefix + msg["name"]):
            missing = [prefix + part for part in parts if not is_known(part)]
            if missing:
                raise ValueError(_incomplete(handler, prefix + msg["name"], missing))
            return True
    return False


def _value_sources(msg: Message, outer: Sequence[Messenger]) -> Iterator[ValueSource]:
    prefix = ""
    for handler in reversed(outer):
        if isinstance(handler, handlers.scope) and "sample" not in handler.hide_types:
            prefix = f"{handler.prefix}{handler.divider}{prefix}"
        if isinstance(handler, handlers.condition) and handler.condition_fn is not None:
            known = functools.partial(_has_value, handler.condition_fn, msg=msg)
            yield "condition", prefix, known
        elif isinstance(handler, (handlers.condition, handlers.do, handlers.substitute)):
            if handler.data is not None:
                yield type(handler).__name__, prefix, handler.data.__contains__
        if isinstance(handler, handlers.substitute) and handler.substitute_fn is not None:
            known = functools.partial(_has_value, handler.substitute_fn, msg={"type": "sample"})
            yield "Predictive, substitute or an init", prefix, known
        if isinstance(handler, handlers.replay):
            sampled = {n for n, s in (handler.trace or {}).items() if s["type"] == "sample"}
            yield "replay", prefix, sampled.__contains__


def _has_value(function: Callable[[Any], Any], name: str, *, msg: Message) -> bool:
    """Whether a function of sites, as `Predictive` and `init_to_value` use, knows a site by name.

    Functions that need more of a site than `msg` (an init strategy that draws) have no value for
    it. Into the bodies of ``scan`` and ``cond`` NumPyro passes given values as partial functions.
    """
    if isinstance(function, functools.partial) and function.args:
        given = function.args[0]
        if isinstance(given, dict):
            return name in given
        if callable(given):
            return _has_value(given, name, msg=msg)
    try:
        return function({"is_observed": False, **msg, "name": name}) is not None
    except Exception:
        return False


def _incomplete(handler: str, name: str, missing: Sequence[str]) -> str:
    parts = " and ".join(map(repr, missing))
    return message(
        f"{handler} gives a value to {name!r}, which is made from {parts}, but {parts} would "
        "still be drawn from the prior",
        remedy=f"give a value to {parts}, or observe {name!r} through a likelihood",
    )
