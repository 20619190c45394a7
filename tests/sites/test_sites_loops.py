"""Priors in ``scan`` and ``cond``; compiled programs are reused for other data and weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from numpyro.infer import MCMC, NUTS
from site_models import (
    NORMAL,
    SCALE,
    WEIGHTS,
    X,
    Z,
    decorated,
    density,
    flow,
    gan,
    generate,
    normal,
    one_site,
    run,
    sites,
    trace_of,
    vae,
)
from tiers import tiered

import numpyro_genprior as ngp

# ---- scan and cond -------------------------------------------------------------------------------

STEPS = 3
DATA = jnp.arange(9.0).reshape(STEPS, 3) / 9


def filtering(prior, data):
    """A sequence of states, to each of which an event of the prior is added."""

    def step(state, y):
        x = numpyro.sample("x", prior)
        state = 0.5 * state + x
        numpyro.sample("y", dist.Normal(state, 0.5).to_event(1), obs=y)
        return state, state

    return scan(step, jnp.zeros(3), data)[1]


def filtering_by_hand(event, data):
    """The same with an explicit latent; `event` maps latents to events."""

    def step(state, y):
        x = event(numpyro.sample("x_latent", NORMAL.expand([2]).to_event(1)))
        state = 0.5 * state + x
        numpyro.sample("y", dist.Normal(state, 0.5).to_event(1), obs=y)
        return state, state

    return scan(step, jnp.zeros(3), data)[1]


def test_scan(key):
    z = jax.random.normal(key, (STEPS, 2))
    got, trace = density(ngp.latent(filtering), {"x_latent": z}, gan(), DATA)
    expected, by_hand = density(filtering_by_hand, {"x_latent": z}, generate, DATA)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    np.testing.assert_allclose(trace["x"]["value"], jax.vmap(generate)(z), rtol=1e-6)
    assert trace["x"]["type"] == "deterministic"
    assert sites(by_hand).items() <= sites(trace).items()
    assert set(run(ngp.latent(filtering), key, gan(), DATA).get_samples()) == {"x_latent", "x"}


def test_an_exact_prior_in_scan_uses_its_latent(key):
    z = jax.random.normal(key, (STEPS, 3))
    got, trace = density(ngp.latent(filtering), {"x_latent": z}, flow(), DATA)
    state, expected = jnp.zeros(3), normal(z)
    for x, y in zip(flow().decode(z), DATA, strict=True):
        state = 0.5 * state + x
        expected += normal(y, state, 0.5)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert trace["x"]["type"] == "deterministic"


def test_an_observed_exact_prior_in_scan():
    """Its density counts, and the trace has no copy of the weights for each step."""

    @ngp.latent
    def model(prior, data):
        def step(total, x):
            return total + numpyro.sample("x", prior, obs=x).sum(), None

        return scan(step, 0.0, data)[0]

    got, trace = density(model, {}, flow(), DATA)
    np.testing.assert_allclose(got, flow().log_prob(DATA).sum(), rtol=1e-5)
    held = sum(
        leaf.size
        for site in trace.values()
        if site["type"] == "sample"
        for leaf in jax.tree.leaves(site["fn"])
    )
    assert held <= STEPS


@pytest.mark.parametrize("handler", [handlers.condition, handlers.do, handlers.substitute])
def test_values_of_events_in_loops_are_refused(handler):
    """NumPyro passes given values into the bodies of scan and cond in another way."""

    def branching(prior):
        return cond(True, lambda _: one_site(prior), lambda _: -one_site(prior), None)

    events = {"x": jnp.zeros((STEPS, 3))}
    for model, given, args in (
        (filtering, events, (gan(), DATA)),
        (branching, {"x": X}, (gan(),)),
    ):
        with pytest.raises(ValueError, match=r"Give a value to 'x_latent'"):
            trace_of(handler(ngp.latent(model), given), *args)
    draws = {"x_latent": jnp.ones((STEPS, 2)), **events}  # as Predictive gives them back
    trace = trace_of(handlers.substitute(ngp.latent(filtering), draws), gan(), DATA)
    np.testing.assert_allclose(trace["x"]["value"], jnp.tile(generate(jnp.ones(2)), (STEPS, 1)))


def test_noise_in_scan(key):
    z, noise = jax.random.normal(key, (STEPS, 2)), jnp.ones((STEPS, 3))
    params = {"x_latent": z, "x_noise": noise}
    _, trace = density(ngp.latent(filtering), params, vae(), DATA)
    np.testing.assert_allclose(
        trace["x"]["value"], jax.vmap(generate)(z) + SCALE * noise, rtol=1e-6
    )


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: p.expand([2]).to_event(1)])
def test_exact_priors_without_latent_in_scan_are_refused(wrap):
    def model():
        scan(lambda c, _: (c, numpyro.sample("x", wrap(flow())).sum()), 0.0, None, length=2)

    with pytest.raises(NotImplementedError, match=r"@ngp\.latent"):
        trace_of(model)


@pytest.mark.parametrize("branch", [True, False])
def test_cond(branch, key):
    prior = gan()

    @ngp.latent
    def model(branch):
        def one(sign):
            return sign * numpyro.sample("x", prior)

        def other(sign):
            return sign * numpyro.sample("x", prior) ** 2

        x = cond(branch, one, other, -1.0)
        numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=X)

    got, _ = density(model, {"x_latent": Z}, branch)
    x = generate(Z)
    expected = normal(Z) + normal(X, -x if branch else -(x**2), 0.5)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


# ---- compilation and chains ----------------------------------------------------------------------

COUNTS = {"traces": 0}


class Counted(eqx.Module):
    """A generator that counts how often it is traced or called."""

    weights: jax.Array

    def __call__(self, z):
        COUNTS["traces"] += 1
        return jnp.tanh(self.weights @ z)


def by_hand(net, y):
    z = numpyro.sample("x_latent", NORMAL.expand([2]).to_event(1))
    x = numpyro.deterministic("x", net(z))
    numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)


@pytest.mark.parametrize("method", tiered(["sequential", "vectorized"], slow={"sequential"}))
def test_new_data_and_new_weights_retrace_no_more_than_by_hand(method, key):
    def runs(model, wrap):
        mcmc = MCMC(
            NUTS(model),
            num_warmup=5,
            num_samples=5,
            num_chains=2,
            chain_method=method,
            progress_bar=False,
            jit_model_args=True,
        )
        counts = []
        for factor in (1.0, 2.0, 3.0):
            COUNTS["traces"] = 0
            mcmc.run(key, wrap(Counted(factor * WEIGHTS)), factor * X)
            counts.append(COUNTS["traces"])
        return counts, mcmc.get_samples()

    ours, draws = runs(decorated, lambda net: ngp.GANPrior(net, 2))
    theirs, expected = runs(by_hand, lambda net: net)
    construction = 1  # a prior tries its network once, in the abstract
    assert ours[1] - construction <= theirs[1], (ours, theirs)
    assert ours[2] - construction <= theirs[2], (ours, theirs)
    assert ours[1] == ours[2]
    for name in ("x", "x_latent"):  # and they are the same program
        np.testing.assert_allclose(draws[name], expected[name], rtol=1e-3, atol=1e-3)


def chains(method, key):
    mcmc = run(decorated, key, vae(), X, num_samples=8, num_chains=2, chain_method=method)
    return mcmc.get_samples(group_by_chain=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["vectorized", pytest.param("parallel", marks=pytest.mark.devices(2))]
)
def test_chains_agree(method, key):
    """The chains have the same draws until rounding errors separate them."""
    expected, got = chains("sequential", key), chains(method, key)
    assert got["x"].shape == (2, 8, 3)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-2, atol=1e-2)
