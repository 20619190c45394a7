"""Warn about draws of a latent that are given to a model without ``ngp.latent``."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpyro
from numpyro.primitives import _PYRO_STACK, Messenger


def warn_if_latent_is_ignored() -> None:
    """Warn if site ``x`` is drawn from the prior although ``x_latent`` was given.

    This happens if draws from a model under ``ngp.latent`` are given (by `Predictive`,
    `substitute` or `condition`) to the same model without it: NumPyro finds no ``x`` among them
    and silently draws one from the prior.
    """
    if not _PYRO_STACK:
        return
    site = _current_site()
    if site is None:
        return
    name = f"{site['name']}_latent"
    if any(_has_value(handler, {**site, "name": name}) for handler in _PYRO_STACK):
        warnings.warn(
            f"Draws of {name!r} were given, but the model samples {site['name']!r} itself: its "
            "value is a fresh draw from the prior and not from the posterior. Decorate the model "
            "with @ngp.latent, as for inference.",
            stacklevel=2,
        )


def _current_site() -> dict[str, Any] | None:
    """The message that NumPyro is processing, found on the Python stack."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "default_process_message":
            return frame.f_locals.get("msg")
        frame = frame.f_back
    return None


def _has_value(handler: Messenger, site: dict[str, Any]) -> bool:
    handlers = numpyro.handlers
    if isinstance(handler, handlers.substitute):
        data, function = handler.data, handler.substitute_fn
    elif isinstance(handler, handlers.condition):
        data, function = handler.data, handler.condition_fn
    else:
        return False
    if data is not None:
        return site["name"] in data
    try:
        return function is not None and function(site) is not None
    except Exception:  # a function that cannot answer for this site has no value for it
        return False
