"""The registry of architectures that a file can rebuild by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax.random as jr
from jaxtyping import PRNGKeyArray

ARCHITECTURES: dict[str, type] = {}
"""Registered architectures by class name; :mod:`numpyro_genprior.flows` adds its own."""

_T = TypeVar("_T", bound=type)


def register(cls: _T) -> _T:
    """Add an architecture to :data:`ARCHITECTURES` under its class name (a class decorator).

    Parameters
    ----------
    cls
        A class with a ``config`` property of JSON values, such that ``cls(**config, key=key)``
        makes a module of the same structure.

    Returns
    -------
    The class, unchanged.

    Raises
    ------
    ValueError
        If another class is registered under the name.
    """
    taken = ARCHITECTURES.get(cls.__name__)
    if taken is not None and taken is not cls and taken.__module__ != cls.__module__:
        raise ValueError(
            f"An architecture named {cls.__name__!r} is registered already, by {taken.__module__}. "
            "Rename the new class."
        )
    ARCHITECTURES[cls.__name__] = cls
    return cls


def build(name: str, config: Mapping[str, Any], *, key: PRNGKeyArray | None = None) -> Any:
    """Make a registered architecture from its name and configuration.

    Parameters
    ----------
    name
        A key of :data:`ARCHITECTURES`.
    config
        The ``config`` of a module of that architecture; lists stand for tuples.
    key
        Initialises the weights. None uses a fixed key, which suits a template whose weights are
        replaced.

    Returns
    -------
    A new module.

    Raises
    ------
    ValueError
        If the name is not registered or the configuration does not fit the architecture.
    """
    if name not in ARCHITECTURES:
        raise ValueError(
            f"Unknown architecture {name!r}; expected one of {', '.join(sorted(ARCHITECTURES))}. "
            "Build the module yourself and pass it as `like=`."
        )
    if key is None:
        key = jr.key(0)
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    try:
        return ARCHITECTURES[name](**arguments, key=key)
    except TypeError as error:
        raise ValueError(
            f"The configuration {dict(config)} does not fit the architecture {name}: {error}. "
            "Pass the `config` of a module of that architecture."
        ) from error
