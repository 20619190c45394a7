"""Checks of a prior in a model: plates, masks, scan, Predictive."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import Distribution
from numpyro.infer import Predictive
from numpyro.infer.util import log_density

from numpyro_genprior.priors import Prior
from numpyro_genprior.sites import latent
from numpyro_genprior.testing.expect import check, decoded, draw, expect, expect_close, invertible

Model = Callable[[Prior], Any]


def as_event(prior: Prior) -> Distribution:
    """The prior with its batch dimensions made event dimensions, for use in plates."""
    return prior.to_event(len(prior.batch_shape)) if prior.batch_shape else prior


def variants(prior: Prior) -> tuple[bool, ...]:
    """The values of ``explicit=`` for which the prior can be used in a model."""
    return (False, True) if invertible(prior) else (prior.density == "exact",)


def values(model: Model, key: jax.Array, prior: Prior) -> dict[str, jax.Array]:
    """One draw of all sites of a model."""
    trace = handlers.trace(handlers.seed(model, key)).get_trace(prior)
    return {
        name: s["value"] for name, s in trace.items() if s["type"] in ("sample", "deterministic")
    }


def shapes_of(model: Model, key: jax.Array, prior: Prior) -> dict[str, tuple[int, ...]]:
    """The shapes of all sites of a model."""
    sites = jax.eval_shape(functools.partial(values, model), key, prior)
    return {name: value.shape for name, value in sites.items()}


def expect_sites(
    prior: Prior,
    explicit: bool,
    sites: dict[str, tuple[int, ...]],
    batch: tuple[int, ...],
    where: str,
) -> None:
    """Check the shapes of the event and its latent, with `batch` leading."""
    batch = batch + prior.batch_shape
    expected = {"x": batch + prior.event_shape}
    if explicit or prior.density != "exact":
        expected["x_latent"] = batch + prior.latent.event_shape
    got = {name: sites.get(name) for name in expected}
    expect(
        got == expected,
        f"Sites in {where} have the wrong shapes",
        expected=expected,
        got=got,
        remedy="let Prior do the batching: _decode maps one latent to one event",
    )


@check
def _plates(prior: Prior, key: jax.Array) -> None:
    """One plate, two nested plates, a subsampled plate; the mask reaches the latent."""

    def nested(prior: Prior) -> None:
        with numpyro.plate("rows", 3, dim=-2), numpyro.plate("columns", 2, dim=-1):
            numpyro.sample("x", as_event(prior))

    def subsampled(prior: Prior) -> None:
        with numpyro.plate("rows", 6, subsample_size=2):
            numpyro.sample("x", as_event(prior))

    def masked(prior: Prior) -> None:
        with numpyro.plate("rows", 2):
            numpyro.sample("x", as_event(prior).mask(jnp.array([True, False])))

    for explicit in variants(prior):
        for model, batch in ((nested, (3, 2)), (subsampled, (2,)), (masked, (2,))):
            sites = shapes_of(latent(model, explicit=explicit), key, prior)
            expect_sites(prior, explicit, sites, batch, f"plates ({model.__name__})")
    explicit = prior.density == "exact"
    if not latent_is_sampled(prior, explicit):
        return
    z = draw(prior, key, (2,))
    terms = jnp.asarray(prior.latent.log_prob(z)).reshape(2, -1).sum(-1)
    params = {"x_latent": z, "x_noise": jnp.zeros((2, *prior.batch_shape, *prior.event_shape))}
    size = params["x_noise"][0].size if prior.density == "conditional" else 0
    noise = 0.5 * size * np.log(2 * np.pi)  # minus the log density of the noise at zero
    for model, total in (
        (subsampled, 3 * (terms.sum() - 2 * noise)),
        (masked, terms[0] - noise),
    ):
        seeded = handlers.seed(latent(model, explicit=explicit), key)
        got = jax.jit(lambda p, z, m=seeded: log_density(m, (p,), {}, z)[0])(prior, params)
        what = f"The log density of the latent is wrong in a {model.__name__} plate"
        expect_close(got, total, what, remedy="give the latent the wrappers of the event")


def latent_is_sampled(prior: Prior, explicit: bool) -> bool:
    """Whether ``x_latent`` is a sample site (a latent that is a prior may be decoded)."""
    return not (isinstance(prior.latent, Prior) and (explicit or prior.latent.density != "exact"))


@check
def _scan(prior: Prior, key: jax.Array) -> None:
    """The latent site inside scan; without ngp.latent an error with the remedy."""

    def model(prior: Prior) -> None:
        def step(carry: jax.Array, _: None) -> tuple[jax.Array, None]:
            x = numpyro.sample("x", as_event(prior))
            return carry + jnp.sum(x), None

        scan(step, jnp.zeros((), prior.event_dtype), None, length=3)

    expect_sites(prior, True, shapes_of(latent(model), key, prior), (3,), "scan")
    try:
        sites = shapes_of(model, key, prior)
    except NotImplementedError as error:
        remedy = "name @ngp.latent in the message"
        expect("ngp.latent" in str(error), "scan raises without a remedy", got=error, remedy=remedy)
    else:
        expect_sites(prior, False, sites, (3,), "scan without ngp.latent")


@check
def _predictive(prior: Prior, key: jax.Array) -> None:
    """Prior draws, serial and parallel; draws of the latent give the events that belong to them."""

    def model(prior: Prior) -> None:
        x = numpyro.sample("x", as_event(prior))
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(jnp.ndim(x)))

    explicit = prior.density == "exact"
    handled = latent(model, explicit=explicit)
    serial = Predictive(handled, num_samples=2)
    sites = jax.eval_shape(serial, jr.key_data(key), prior)
    shapes = {name: value.shape for name, value in sites.items()}
    expect_sites(prior, explicit, shapes, (2,), "Predictive")
    draws = jax.jit(Predictive(handled, num_samples=2, parallel=True))(key, prior)
    shapes = {name: value.shape for name, value in draws.items()}
    expect_sites(prior, explicit, shapes, (2,), "Predictive(parallel=True)")
    event = decoded(prior, draws["x_latent"])
    if prior.density == "conditional":
        loc, scale = prior.event_loc_scale(draws["x_latent"])
        event = loc + scale * draws["x_noise"]
    what = "The event is not decoded from its latent"
    expect_close(draws["x"], event, what, remedy="keep the generator a function of the latent")
