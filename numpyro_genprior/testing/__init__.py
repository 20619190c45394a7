"""`check_prior`: the contract of a prior as checks that users run on their own priors."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.random as jr

from numpyro_genprior.errors import message
from numpyro_genprior.priors import Prior
from numpyro_genprior.testing import (  # noqa: F401 (they register, fields first)
    fields,
    models,
    pytree,
    shapes,
    values,
)
from numpyro_genprior.testing.expect import CHECKS
from numpyro_genprior.testing.values import directional_derivatives


def check_prior(
    prior: Prior, *, key: jax.Array | None = None, checks: Iterable[str] | None = None
) -> None:
    """Check that a prior keeps the contract on which models and inference rely.

    Shapes under ``expand``, ``to_event``, ``mask``, plates and ``scan``; both kinds of random key;
    `Predictive`; pytree behaviour (jit, vmap, copies, one program for two sets of weights);
    gradients against finite differences; the density, where there is one, against the
    determinant of the Jacobian of ``decode``. For tests of your own priors.

    Parameters
    ----------
    prior
        The prior; small networks make it quick.
    key
        Random key for latents and directions. None: a fixed key.
    checks
        Names of `CHECKS` to run. None: all.

    Raises
    ------
    AssertionError
        At the first check that fails, with the expected and the actual value. Other exceptions
        come from the prior itself. A note names the check.
    TypeError
        If `prior` is not a `Prior`.
    ValueError
        If there is no check of a name in `checks`.

    Notes
    -----
    Finite differences are sharp in double precision only: run the check under
    ``JAX_ENABLE_X64=1``, too.

    **Fails when** the weights are larger than a few units or draws of the latent are not finite:
    finite differences are then meaningless.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> prior = ngp.GaussianPrior(jnp.zeros(2), factor=jnp.ones((2, 1)), diagonal=1.0)
    >>> ngp.testing.check_prior(prior, checks=["shapes", "keys"])
    """
    if not isinstance(prior, Prior):
        raise TypeError(
            message(
                "check_prior tests generative priors",
                expected="an ngp.Prior",
                got=type(prior).__name__,
                remedy="derive the class from ngp.Prior",
            )
        )
    key = jr.key(0) if key is None else key
    for name in CHECKS if checks is None else checks:
        if name not in CHECKS:
            raise ValueError(f"No check {name!r}. Choose from {', '.join(CHECKS)}.")
        try:
            CHECKS[name](prior, key)
        except Exception as error:
            error.add_note(f"in check {name!r} of check_prior on {prior!r}")
            raise


__all__ = ["CHECKS", "check_prior", "directional_derivatives"]
