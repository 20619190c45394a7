"""The inference method of a diagnostic: `method=`, or `kernel=` or `guide=` for short."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from numpyro.infer import NUTS
from numpyro.infer.mcmc import MCMCKernel

from numpyro_genprior.errors import message
from numpyro_genprior.infer.methods import MCMCMethod, Method, SVIMethod

MIN_DRAWS = 15  # of a posterior, so that ranks range from 0 to 15 or more
MAX_RANKED_DRAWS = 127  # draws among which a truth is ranked


def choose_method(
    name: str,
    method: Method | None,
    kernel: Callable[..., MCMCKernel] | None,
    guide: Callable[..., Any] | None,
    *,
    default: Method | None = None,
) -> Method:
    """The one method that is given, or `default` (NUTS if that is None).

    Parameters
    ----------
    name
        Name of the diagnostic, for messages.
    method, kernel, guide
        At most one of them; `kernel` and `guide` stand for methods with their default counts.

    Raises
    ------
    TypeError
        If `method` has another type, or `kernel` or `guide` is not a callable of the model.
    ValueError
        If two are given, or the method makes fewer than 15 draws.
    """
    given = {"method": method, "kernel": kernel, "guide": guide}
    names = [f"{word}=" for word, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(
            message(
                f"{name}: more than one method of inference",
                expected="one of method=, kernel= and guide=",
                got=" and ".join(names),
                remedy="call it once for each",
            )
        )
    if kernel is not None:
        method = MCMCMethod(kernel)
    elif guide is not None:
        method = SVIMethod(guide)
    elif method is None:
        method = default or MCMCMethod(NUTS)
    if not isinstance(method, MCMCMethod | SVIMethod):
        raise TypeError(
            message(
                f"{name}: method= is not a method of inference",
                expected="an ngp.infer.MCMCMethod or ngp.infer.SVIMethod",
                got=f"a {type(method).__name__}",
                remedy="pass method=ngp.infer.MCMCMethod(NUTS, num_samples=500)",
            )
        )
    if method.num_draws < MIN_DRAWS:
        raise ValueError(
            message(
                f"{name}: too few draws of each posterior",
                expected=f"at least {MIN_DRAWS}",
                got=method.num_draws,
                remedy="leave num_samples at its default",
            )
        )
    return method


def limit_draws(method: Method) -> Method:
    """The method, with no more independent draws than a truth is ranked among."""
    if isinstance(method, SVIMethod) and method.num_samples > MAX_RANKED_DRAWS:
        return dataclasses.replace(method, num_samples=MAX_RANKED_DRAWS)
    return method
