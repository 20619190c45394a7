"""A model at its best fit: what is left of the data, and what replicates would leave."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from numpyro_genprior.diagnostics.events import event_names
from numpyro_genprior.diagnostics.fisher_spectrum import prior_coordinates
from numpyro_genprior.diagnostics.posterior.pearson import moment, pearson, seen
from numpyro_genprior.infer.optimize.minimise import minimise
from numpyro_genprior.infer.posterior import Posterior

PRIOR_DRAWS, PROBES = 64, 16
SMOOTH = 0.2  # correlation of neighbours from which on the prior's own data are smooth


class Fit(NamedTuple):
    """Everything about one fit, in units of the noise at it.

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
        Number of data, masked ones left out.
    from_mean
        ``|y - prior predictive mean|²``.
    structure, smooth
        For each site and axis of its data the product of neighbouring residuals over their square;
        and whether the prior's own data at the site are smooth along an axis. The last entry of
        `structure` is the mean residual, and counts always.
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
    """The same of data that the model itself made, a row each."""

    chi2: jax.Array
    predictive: jax.Array  # χ² at a draw of the posterior: of the replicate minus that of the data
    structure: jax.Array


@eqx.filter_jit
def descend(posterior: Posterior, starts: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where starts end, the row of the best, and its energy."""
    minima = minimise(posterior, starts)
    best = minima.best
    energy = minima.energy[best]
    return minima.xi, best, jnp.where(jnp.isfinite(energy), energy, jnp.inf)


@eqx.filter_jit
def examine(posterior: Posterior, xi: jax.Array, key: jax.Array) -> Fit:
    """The fit at coordinates `xi`; `key` is for draws of the prior."""
    trace = posterior.trace(xi)
    names = posterior.sites.data
    values = {n: jnp.asarray(trace[n]["value"]) for n in names}
    means = _scaled_means(posterior, trace, values)
    at, push = jax.linearize(means, xi)
    data = {n: _scaled(trace, n, values[n]) for n in names}
    residual = {n: data[n] - at[n] for n in names}
    scale = prior_coordinates(posterior, xi)
    unit = jnp.eye(posterior.size, dtype=xi.dtype)
    rows = jax.vmap(lambda v: _flat(push(scale(v))))(unit)
    u, s, vt = jnp.linalg.svd(rows.T, full_matrices=False)
    drawn = jax.lax.map(
        lambda key: means(posterior.draw(key)), jax.random.split(key, PRIOR_DRAWS), batch_size=16
    )
    centre = {n: jnp.mean(drawn[n], 0) for n in names}
    from_mean = sum((jnp.sum((data[n] - centre[n]) ** 2) for n in names), jnp.zeros(()))
    smooth = [_neighbours({n: drawn[n] - centre[n][None]}, 1) for n in names]
    smooth = [jnp.broadcast_to(jnp.any(along > SMOOTH), along.shape) for along in smooth]
    number = sum(jnp.sum(seen(trace[n]["fn"], values[n].shape)) for n in names)
    standard = jnp.where(jnp.asarray(posterior.standard_normal), xi, 0.0)
    return Fit(
        xi, residual, u, s, vt @ standard, jnp.asarray(number, xi.dtype), from_mean,
        structure(residual), jnp.concatenate(smooth),
    )  # fmt: skip


@eqx.filter_jit
def replicate(
    posterior: Posterior, fit: Fit, key: jax.Array, number: int, weight: Any
) -> Replicates:
    """What is left of replicates after they are fitted, to first order, a row each.

    With Pearson residuals ε of data drawn at the fit, M = U diag(s) Vᵀ and a latent that moves by a
    prior draw ν: ``(I + M Mᵀ)⁻¹ (ε + M ν)``, for linear models with normal noise the law of the
    residual. `weight` divides M and the residual of the data by the noise's inflation.
    """
    trace = posterior.trace(fit.xi)
    names = list(fit.residual)
    shapes = {n: r.shape for n, r in fit.residual.items()}
    u, s = fit.directions, fit.singular_values * jnp.sqrt(weight)
    left = _flat(fit.residual) * jnp.sqrt(weight)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        keys = jax.random.split(key, len(names) + 2)
        noise = {}
        for n, k in zip(names, keys, strict=False):
            law = trace[n]["fn"]
            extra = shapes[n][: max(len(shapes[n]) - len(law.shape()), 0)]
            with jax.numpy_rank_promotion("allow"):
                drawn = jnp.asarray(law.sample(k, extra))
                noise[n] = pearson(law, drawn - moment(law, "mean", n), n)
        flat = _flat(noise)
        c = flat @ u
        moved = (c + s * jax.random.normal(keys[-1], s.shape, s.dtype)) / (1 + s**2)
        fitted = flat + u @ (moved - c)
        # A draw of the posterior moves the data's own residual along M by s δ, δ ~ N(0, 1/(1+s²)).
        delta = jax.random.normal(keys[-2], s.shape, s.dtype) * s / jnp.sqrt(1 + s**2)
        predictive = jnp.sum(flat**2) - jnp.sum((left - u @ delta) ** 2)
        return jnp.sum(fitted**2), predictive, structure(_unflat(fitted, shapes))

    return Replicates(*jax.lax.map(one, jax.random.split(key, number), batch_size=50))


@eqx.filter_jit
def missed_by_events(posterior: Posterior, fit: Fit, key: jax.Array) -> jax.Array:
    """What white noise of unit standard deviation on the events adds to χ², in expectation.

    By random probes through the model, to first order; `posterior` is of a `Tempered` model.
    """
    trace = posterior.trace(fit.xi)
    names = [n for n in event_names(posterior) if posterior.sites[n].kind == "deterministic"]
    sites = posterior.sites.data
    values = {n: jnp.asarray(trace[n]["value"]) for n in sites}

    def means(moved: dict[str, jax.Array]) -> Any:
        (weight, _, *args), kwargs = posterior.arguments
        latents = {n: trace[posterior.sites[n].latent]["value"] for n in moved}
        pairs = {n: (shift, latents[n]) for n, shift in moved.items()}
        other = Posterior(posterior.model, (weight, pairs, *args), kwargs)
        return _scaled_means(other, trace, values)(fit.xi)

    zero = {n: jnp.zeros_like(trace[n]["value"]) for n in names}

    def one(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(names))
        white = {
            n: jax.random.normal(k, zero[n].shape, zero[n].dtype)
            for n, k in zip(names, keys, strict=True)
        }
        return jnp.sum(_flat(jax.jvp(means, (zero,), (white,))[1]) ** 2)

    return jnp.mean(jax.lax.map(one, jax.random.split(key, PROBES)))


def structure(residual: dict[str, jax.Array]) -> jax.Array:
    """How neighbours resemble each other along each axis, and the mean, of a residual."""
    flat = _flat(residual)
    size = jnp.maximum(jnp.sqrt(jnp.sum(flat**2)), jnp.finfo(flat.dtype).tiny)
    return jnp.append(_neighbours(residual, 0), jnp.sum(flat) / size)


def _neighbours(arrays: dict[str, jax.Array], first: int) -> jax.Array:
    """Correlation of neighbours along each axis from `first` on that is long enough."""
    found = []
    for array in arrays.values():
        total = jnp.maximum(jnp.sum(array**2), jnp.finfo(array.dtype).tiny)
        for axis in range(first, array.ndim):
            if array.shape[axis] > 3:
                a = jnp.moveaxis(array, axis, -1)
                found.append(jnp.sum(a[..., 1:] * a[..., :-1]) / total)
    return jnp.stack(found) if found else jnp.zeros((0,))


def _scaled_means(posterior: Posterior, at: Any, values: dict[str, jax.Array]) -> Any:
    """Coordinates to means of the data, in units of the noise of the laws `at`."""

    def means(xi: jax.Array) -> dict[str, jax.Array]:
        trace = posterior.trace(xi)
        return {
            n: _scaled(at, n, jnp.broadcast_to(moment(trace[n]["fn"], "mean", n), values[n].shape))
            for n in values
        }

    return means


def _scaled(trace: Any, name: str, data: jax.Array) -> jax.Array:
    data = data if jnp.issubdtype(data.dtype, jnp.floating) else data.astype(jnp.result_type(float))
    return pearson(trace[name]["fn"], data, name)


def _flat(arrays: dict[str, jax.Array]) -> jax.Array:
    return jnp.concatenate([jnp.ravel(a) for a in arrays.values()])


def _unflat(flat: jax.Array, shapes: dict[str, tuple[int, ...]]) -> dict[str, jax.Array]:
    parts, start = {}, 0
    for name, shape in shapes.items():
        size = 1
        for n in shape:
            size *= n
        parts[name] = flat[start : start + size].reshape(shape)
        start += size
    return parts
