"""Residuals of a model at its best fit, and those of replicated data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from numpyro_genprior.diagnostics.events import event_names
from numpyro_genprior.diagnostics.fisher_spectrum import prior_coordinates
from numpyro_genprior.diagnostics.posterior.pearson import moment, pearson, unmasked
from numpyro_genprior.infer.optimize.minimise import minimise
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.sites.model_reader import Trace

NUM_PRIOR_DRAWS, NUM_PROBES = 64, 16
MIN_SMOOTH_CORRELATION = 0.2  # of neighbours in data simulated from the prior, if smooth


class Fit(NamedTuple):
    """A fit of the model, in units of the noise at it.

    Attributes
    ----------
    xi
        Its coordinates.
    residual
        Pearson residual for each observed site.
    directions, singular_values
        Left singular vectors of the Jacobian of the scaled means, of shape ``(data, k)``, and its
        singular values.
    along
        Coordinates of the fit along the right singular vectors.
    num_data
        Number of data that are not masked.
    from_mean
        ``|y - prior predictive mean|²``.
    structure
        For each site and axis of its data, the correlation of neighbouring residuals; the last
        entry is their mean.
    smooth
        For each site and axis of its data, whether data drawn from the prior are smooth there.
    """

    xi: jax.Array
    residual: dict[str, jax.Array]
    directions: jax.Array
    singular_values: jax.Array
    along: jax.Array
    num_data: jax.Array
    from_mean: jax.Array
    structure: jax.Array
    smooth: jax.Array

    @property
    def chi2(self) -> jax.Array:
        return sum((jnp.sum(r**2) for r in self.residual.values()), jnp.zeros(()))


class Replicates(NamedTuple):
    """Statistics of data sets replicated by the model, one row each.

    Attributes
    ----------
    chi2
        χ² after the replicate is fitted.
    predictive
        χ² of the replicate minus that of the data, at a draw of the posterior.
    structure
        As in `Fit`.
    """

    chi2: jax.Array
    predictive: jax.Array
    structure: jax.Array


@eqx.filter_jit
def descend(posterior: Posterior, starts: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Ends of the descents from all starts, the row of the best, and its energy."""
    minima = minimise(posterior, starts)
    best = minima.best
    energy = minima.energy[best]
    return minima.xi, best, jnp.where(jnp.isfinite(energy), energy, jnp.inf)


@eqx.filter_jit
def examine(posterior: Posterior, xi: jax.Array, key: jax.Array) -> Fit:
    """Describe the fit at coordinates `xi`; `key` is for prior draws."""
    trace = posterior.trace(xi)
    names = posterior.sites.data
    values = {n: jnp.asarray(trace[n]["value"]) for n in names}
    means = _scaled_means(posterior, trace, values)
    fitted_means, push = jax.linearize(means, xi)
    data = {n: _scaled(trace, n, values[n]) for n in names}
    residual = {n: data[n] - fitted_means[n] for n in names}
    scale = prior_coordinates(posterior, xi)
    unit = jnp.eye(posterior.size, dtype=xi.dtype)
    rows = jax.vmap(lambda v: flatten(push(scale(v))))(unit)
    u, s, vt = jnp.linalg.svd(rows.T, full_matrices=False)
    simulated = jax.lax.map(
        lambda key: means(posterior.draw(key)),
        jax.random.split(key, NUM_PRIOR_DRAWS),
        batch_size=16,
    )
    centre = {n: jnp.mean(simulated[n], 0) for n in names}
    from_mean = sum((jnp.sum((data[n] - centre[n]) ** 2) for n in names), jnp.zeros(()))
    smooth = [_neighbours({n: simulated[n] - centre[n][None]}, 1) for n in names]
    smooth = [
        jnp.broadcast_to(jnp.any(along > MIN_SMOOTH_CORRELATION), along.shape) for along in smooth
    ]
    number = sum(jnp.sum(unmasked(trace[n]["fn"], values[n].shape)) for n in names)
    standard = jnp.where(jnp.asarray(posterior.standard_normal), xi, 0.0)
    return Fit(
        xi, residual, u, s, vt @ standard, jnp.asarray(number, xi.dtype), from_mean,
        structure(residual), jnp.concatenate(smooth),
    )  # fmt: skip


@eqx.filter_jit
def replicate(
    posterior: Posterior, fit: Fit, key: jax.Array, number: int, weight: jax.Array
) -> Replicates:
    """Draw data at the fit, and fit them to first order.

    With Pearson residuals ε of data drawn at the fit, M = U diag(s) Vᵀ and a prior draw ν of the
    latent, the residual is ``(I + M Mᵀ)⁻¹ (ε + M ν)``; in linear models with normal noise this is
    its exact distribution. `weight` is the inflation of the noise to the power -2, by which M and
    the residual of the data are scaled.
    """
    trace = posterior.trace(fit.xi)
    names = list(fit.residual)
    shapes = {n: r.shape for n, r in fit.residual.items()}
    u, s = fit.directions, fit.singular_values * jnp.sqrt(weight)
    residual = flatten(fit.residual) * jnp.sqrt(weight)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        keys = jax.random.split(key, len(names) + 2)
        noise = {n: _noise(trace, n, shapes[n], k) for n, k in zip(names, keys, strict=False)}
        epsilon = flatten(noise)
        c = epsilon @ u
        moved = (c + s * jax.random.normal(keys[-1], s.shape, s.dtype)) / (1 + s**2)
        fitted = epsilon + u @ (moved - c)
        # A draw of the posterior moves the data's own residual along M by s δ, δ ~ N(0, 1/(1+s²)).
        delta = jax.random.normal(keys[-2], s.shape, s.dtype) * s / jnp.sqrt(1 + s**2)
        predictive = jnp.sum(epsilon**2) - jnp.sum((residual - u @ delta) ** 2)
        return jnp.sum(fitted**2), predictive, structure(unflatten(fitted, shapes))

    return Replicates(*jax.lax.map(one, jax.random.split(key, number), batch_size=50))


def _noise(trace: Trace, name: str, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    """Pearson residual of a draw of the data of a site."""
    distribution = trace[name]["fn"]
    sample_shape = shape[: max(len(shape) - len(distribution.shape()), 0)]
    with jax.numpy_rank_promotion("allow"):
        simulated = jnp.asarray(distribution.sample(key, sample_shape))
        return pearson(distribution, simulated - moment(distribution, "mean", name), name)


@eqx.filter_jit
def missed_by_events(posterior: Posterior, fit: Fit, key: jax.Array) -> jax.Array:
    """Expected addition to χ² by white noise of unit standard deviation on the events.

    By random probes through the model, to first order. `posterior` is that of a `Tempered` model.
    """
    trace = posterior.trace(fit.xi)
    names = [n for n in event_names(posterior) if posterior.sites[n].kind == "deterministic"]
    sites = posterior.sites.data
    values = {n: jnp.asarray(trace[n]["value"]) for n in sites}

    def means(shifts: dict[str, jax.Array]) -> dict[str, jax.Array]:
        (weight, _, *args), kwargs = posterior.arguments
        shifted = Posterior(posterior.model, (weight, shifts, *args), kwargs)
        return _scaled_means(shifted, trace, values)(fit.xi)

    zero = {n: jnp.zeros_like(trace[n]["value"]) for n in names}

    def one(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(names))
        white = {
            n: jax.random.normal(k, zero[n].shape, zero[n].dtype)
            for n, k in zip(names, keys, strict=True)
        }
        return jnp.sum(flatten(jax.jvp(means, (zero,), (white,))[1]) ** 2)

    return jnp.mean(jax.lax.map(one, jax.random.split(key, NUM_PROBES)))


def structure(residual: dict[str, jax.Array]) -> jax.Array:
    """Correlation of neighbouring residuals along each axis of each site, and their mean."""
    flat = flatten(residual)
    size = jnp.maximum(jnp.sqrt(jnp.sum(flat**2)), jnp.finfo(flat.dtype).tiny)
    return jnp.append(_neighbours(residual, 0), jnp.sum(flat) / size)


def _neighbours(arrays: dict[str, jax.Array], first: int) -> jax.Array:
    """Correlation of neighbours along each axis from `first` on with more than 3 entries."""
    correlations = []
    for array in arrays.values():
        total = jnp.maximum(jnp.sum(array**2), jnp.finfo(array.dtype).tiny)
        for axis in range(first, array.ndim):
            if array.shape[axis] > 3:
                a = jnp.moveaxis(array, axis, -1)
                correlations.append(jnp.sum(a[..., 1:] * a[..., :-1]) / total)
    return jnp.stack(correlations) if correlations else jnp.zeros((0,))


def _scaled_means(
    posterior: Posterior, reference: Trace, values: dict[str, jax.Array]
) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """The map from coordinates to means of the data, in units of the noise in `reference`."""

    def means(xi: jax.Array) -> dict[str, jax.Array]:
        trace = posterior.trace(xi)
        return {
            n: _scaled(
                reference, n, jnp.broadcast_to(moment(trace[n]["fn"], "mean", n), values[n].shape)
            )
            for n in values
        }

    return means


def _scaled(trace: Trace, name: str, data: jax.Array) -> jax.Array:
    data = data if jnp.issubdtype(data.dtype, jnp.floating) else data.astype(jnp.result_type(float))
    return pearson(trace[name]["fn"], data, name)


def flatten(arrays: dict[str, jax.Array]) -> jax.Array:
    """All entries of all sites in one vector."""
    return jnp.concatenate([jnp.ravel(a) for a in arrays.values()])


def unflatten(flat: jax.Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, jax.Array]:
    """The inverse of `flatten`."""
    parts, start = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        parts[name] = flat[start : start + size].reshape(shape)
        start += size
    return parts
