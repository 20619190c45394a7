"""Checks of densities and gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist

from numpyro_genprior.priors import Prior
from numpyro_genprior.testing.expect import (
    check,
    decoded,
    draw,
    expect,
    expect_close,
    invertible,
    log_prob_of,
    sampled,
)


@check
def _no_density(prior: Prior, key: jax.Array) -> None:
    """Without a density, log_prob and score raise and say what to do."""
    if prior.density == "exact":
        return
    x = sampled(prior, key, ())
    for method in (prior.log_prob, prior.score):
        try:
            value = method(x)
        except NotImplementedError as error:
            remedy = "name @ngp.latent in the class attribute no_density"
            expect(
                "ngp.latent" in str(error), "The error names no remedy", got=error, remedy=remedy
            )
        else:
            what = f"density = {prior.density!r}, but {method.__name__} returns a number"
            expect(False, what, got=value, remedy='set density = "exact", or let Prior raise')


@check
def _conditional_density(prior: Prior, key: jax.Array) -> None:
    """The density of the event given the latent; its bound, if there is one, is finite."""
    if prior.density != "conditional":
        return
    z = draw(prior, key, (2,))
    given: Any = prior.event_given(z)
    batch = (2, *prior.batch_shape)
    good = given.batch_shape == batch and given.event_shape == prior.event_shape
    expect(good, "event_given has the wrong shapes", got=given, remedy="batch as the latents")
    what = "The mean of event_given is not decode"
    expect_close(given.mean, decoded(prior, z), what, remedy="decode without noise")
    log_prob_bound = getattr(prior, "log_prob_bound", None)
    if log_prob_bound is None:
        return
    bound = log_prob_bound(key, given.mean, num_samples=3)
    expect(
        bound.shape == batch,
        "log_prob_bound has the wrong shape",
        got=bound.shape,
        remedy="return one per event",
    )
    expect(
        jnp.all(jnp.isfinite(bound)),
        "log_prob_bound is not finite",
        got=bound,
        remedy="check the scale",
    )


@check
def _density_against_jacobian(prior: Prior, key: jax.Array) -> None:
    """The log density is that of the latent, less the log determinant of the Jacobian."""
    size = int(np.prod(prior.event_shape, dtype=int))
    same_size = size == int(np.prod(prior.latent.event_shape, dtype=int))
    if not invertible(prior) or not same_size or prior.batch_shape:
        return
    z = draw(prior, key)
    x, jacobian = jax.jit(lambda p, z: (p.decode(z), jax.jacfwd(p.decode)(z)))(prior, z)
    _, log_det = np.linalg.slogdet(np.asarray(jacobian, np.float64).reshape(size, size))
    expected = np.asarray(prior.latent.log_prob(z)) - log_det
    what = "log_prob is not the density of decode(latent)"
    remedy = "check sign and event dimensions of the log determinant"
    expect_close(log_prob_of(prior, x), expected, what, remedy=remedy, rtol=tolerance())


@check
def _gradients(prior: Prior, key: jax.Array) -> None:
    """Gradients by latent, event, weights and condition agree with finite differences."""
    bound = tolerance()
    for name, (derivative, difference) in directional_derivatives(prior, key).items():
        error = min(abs(derivative - d) for d in difference)
        expect(
            error <= bound * (1 + abs(derivative)),
            f"The gradient with respect to the {name} differs from finite differences",
            expected=difference,
            got=derivative,
            remedy="remove stop_gradient and integer casts on the way",
        )


def tolerance() -> float:
    return 1e-3 if jax.config.jax_enable_x64 else 3e-2  # type: ignore[attr-defined]


def directional_derivatives(prior: Prior, key: jax.Array) -> dict[str, tuple[float, list[float]]]:
    """Derivatives of decode and densities along a random direction of each argument.

    Parameters
    ----------
    prior
        The prior.
    key
        Random key for the point and the directions.

    Returns
    -------
    dict
        By the name of the argument (latent, event, prior, condition), the derivative by
        ``jax.grad`` and central differences with steps of several sizes. The arguments ``prior``
        are all leaves: weights, condition, scale, parameters of the latent.
    """
    key_z, key_w, key_d, key_x = jr.split(key, 4)
    z = draw(prior, key_z)
    x = sampled(prior, key_x, ())
    weights = jr.normal(key_w, x.shape, x.dtype)
    point: dict[str, Any] = {"latent": z, "prior": prior}
    free = dist.biject_to(prior.support).inverse_shape(prior.event_shape)
    if (prior.density == "conditional" or invertible(prior)) and free == prior.event_shape:
        point["event"] = x  # not on a simplex, where a step leaves the support
    condition = prior.condition
    if condition is not None and jnp.issubdtype(condition.dtype, jnp.inexact):
        point["condition"] = condition

    @jax.jit
    def value(point: dict[str, Any]) -> jax.Array:
        prior = point["prior"]
        if "condition" in point:
            prior = prior.given(point["condition"])
        total = jnp.sum(weights * prior.decode(point["latent"]))
        if prior.density == "conditional":
            total += jnp.sum(prior.event_given(point["latent"]).log_prob(point["event"]))
        elif "event" in point:
            total += jnp.sum(prior.log_prob(point["event"]))
        return total

    gradient = jax.jit(jax.grad(value))(point)
    steps = (1e-2, 1e-3, 1e-4, 1e-5) if jax.config.jax_enable_x64 else (3e-2, 1e-2, 3e-3)  # type: ignore[attr-defined]
    derivatives = {}
    for i, name in enumerate(point):
        leaves, treedef = jax.tree.flatten(point[name])
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        if not leaves:
            continue
        keys = jr.split(jr.fold_in(key_d, i), len(leaves))
        size = np.sqrt(sum(leaf.size for leaf in leaves))
        direction = [
            jr.normal(k, a.shape, a.dtype) / size for k, a in zip(keys, leaves, strict=True)
        ]
        slope = sum(
            float(jnp.sum(g * d))
            for g, d in zip(jax.tree.leaves(gradient[name]), direction, strict=True)
        )

        def value_at(
            h: float,
            name: str = name,
            leaves: list[jax.Array] = leaves,
            direction: list[jax.Array] = direction,
            treedef: Any = treedef,
        ) -> float:
            new = [leaf + h * d for leaf, d in zip(leaves, direction, strict=True)]
            return float(value({**point, name: jax.tree.unflatten(treedef, new)}))

        derivatives[name] = (slope, [(value_at(h) - value_at(-h)) / (2 * h) for h in steps])
    return derivatives
