"""How a prior enters a model: sites and densities compared with hand-written models."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flowjax import distributions as fd
from numpyro import handlers
from site_models import (
    EVENT,
    LATENT,
    NOISE,
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
    rows,
    run,
    sites,
    trace_of,
    vae,
)

import numpyro_genprior as ngp
from numpyro_genprior.testing import check_prior

# ---- the decoder noise ---------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [SCALE, jnp.array([0.1, 0.2, 0.3]), None])
@pytest.mark.parametrize(
    ("noise", "obs", "expected"),
    [
        ("auto", None, {"x_latent": LATENT, "x_noise": NOISE, "x": EVENT}),
        ("noncentered", None, {"x_latent": LATENT, "x_noise": NOISE, "x": EVENT}),
        ("centered", None, {"x_latent": LATENT, "x": ("sample", (3,))}),
        ("omit", None, {"x_latent": LATENT, "x": EVENT}),
        ("auto", X, {"x_latent": LATENT, "x": ("obs", (3,))}),
        ("centered", X, {"x_latent": LATENT, "x": ("obs", (3,))}),
    ],
)
def test_noise(noise, obs, expected, scale):
    if scale is None:
        prior = ngp.VAEPrior(lambda z: (generate(z), jnp.exp(WEIGHTS @ z)), 2, scale=None)
    else:
        prior = vae(scale)
    params = {"x_latent": Z, "x_noise": X, "x": X}
    params = {name: value for name, value in params.items() if expected.get(name, EVENT) != EVENT}
    if obs is not None:
        del params["x"]
    got, trace = density(ngp.latent(one_site, noise=noise), params, prior, obs)
    assert sites(trace) == expected

    loc, spread = generate(Z), jnp.exp(WEIGHTS @ Z) if scale is None else scale
    if "x_noise" in expected:
        by_hand, event = normal(Z) + normal(X), loc + spread * X
    elif expected["x"] == EVENT:
        by_hand, event = normal(Z), loc
    else:
        by_hand, event = normal(Z) + normal(X, loc, spread), X
    np.testing.assert_allclose(got, by_hand, rtol=1e-6)
    np.testing.assert_allclose(trace["x"]["value"], event, rtol=1e-6)


class Blurred(ngp.Prior):
    """A user's own prior with Gaussian noise on top of its generator."""

    density = "conditional"

    def __init__(self):
        super().__init__(2)

    def _decode(self, z, condition):
        return generate(z)

    def _event_loc_scale(self, z, condition):
        return generate(z), jnp.full(3, SCALE)


def test_the_noise_of_a_users_own_prior():
    for obs, params in ((None, {"x_latent": Z, "x_noise": X}), (X, {"x_latent": Z})):
        args = [(prior, obs) for prior in (Blurred(), vae())]
        got, by_ours = (density(ngp.latent(one_site), params, *a) for a in args)
        assert sites(got[1]) == sites(by_ours[1])
        np.testing.assert_allclose(got[0], by_ours[0], rtol=1e-6)
    x, by_ours = (prior.sample(jax.random.key(1), (4,)) for prior in (Blurred(), vae()))
    np.testing.assert_allclose(x, by_ours, rtol=1e-6)
    check_prior(Blurred(), checks=["conditional_density", "no_density", "predictive"])


def test_the_noise_of_a_conditional_plate_of_events():
    """Batch dimensions of the condition and of a plate reach latent and noise."""
    prior = ngp.VAEPrior(lambda z, c: generate(z) + c, 2, scale=SCALE, condition=jnp.ones(3))
    conditions = jnp.arange(12.0).reshape(4, 3)

    def model(prior):
        with numpyro.plate("rows", 4):
            return numpyro.sample("x", prior.given(conditions))

    z, noise = jnp.ones((4, 2)), jnp.full((4, 3), 0.5)
    got, trace = density(ngp.latent(model), {"x_latent": z, "x_noise": noise}, prior)
    np.testing.assert_allclose(got, normal(z) + normal(noise), rtol=1e-6)
    event = jnp.tile(generate(jnp.ones(2)), (4, 1)) + conditions + SCALE * 0.5
    np.testing.assert_allclose(trace["x"]["value"], event, rtol=1e-6)


# ---- one site, NumPyro's spelling, unrecorded events ---------------------------------------------


@pytest.mark.parametrize("prior", [gan(), vae(), flow()], ids=["gan", "vae", "flow"])
@pytest.mark.parametrize("explicit", [False, True])
def test_three_spellings(prior, explicit):
    """`latent`, `sample` and `LatentReparam` give the same trace."""
    config = {"x": ngp.LatentReparam()} if explicit or prior.density != "exact" else {}
    models = (
        ngp.latent(one_site, explicit=explicit),
        lambda prior: ngp.sample("x", prior, explicit=explicit),
        handlers.reparam(one_site, config=config),
    )
    first, *others = (trace_of(model, prior) for model in models)
    assert ("x_latent" in first) == bool(config)
    for other in others:
        assert sites(first) == sites(other)
        for name in sites(first):
            np.testing.assert_array_equal(first[name]["value"], other[name]["value"])


def test_sample_returns_the_event_and_takes_obs():
    with handlers.seed(rng_seed=0), handlers.trace() as trace:
        x = ngp.sample("x", vae(), noise="omit")
        observed = ngp.sample("w", vae(), obs=np.ones(3))
        exact = ngp.sample("v", flow(), obs=np.ones(3))
    np.testing.assert_allclose(x, generate(trace["x_latent"]["value"]), rtol=1e-6)
    np.testing.assert_array_equal(observed, exact)
    assert trace["w"]["is_observed"]
    assert trace["v"]["is_observed"]


def test_options_of_the_decorator_and_its_signature():
    @ngp.latent(explicit=True, noise="omit")
    def model(first, second):
        return numpyro.sample("a", first), numpyro.sample("b", second)

    expected = {"a_latent": NOISE, "a": EVENT, "b_latent": LATENT, "b": EVENT}
    assert sites(trace_of(model, flow(), second=vae())) == expected
    assert model.__name__ == "model"


def test_reparam_config_says_how_noise_enters():
    model = handlers.reparam(one_site, config={"x": ngp.LatentReparam(noise="centered")})
    assert sites(trace_of(model, vae())) == {"x_latent": LATENT, "x": NOISE}


@pytest.mark.parametrize(("prior", "noise"), [(gan(), "auto"), (vae(), "omit"), (vae(), "auto")])
def test_unrecorded(prior, noise):
    """The event is not in the trace, and is the same; an observed event stays in the trace."""
    obs = X if noise == "auto" and prior.density == "conditional" else None
    kept, left = (ngp.latent(one_site, noise=noise, record=record) for record in (True, False))
    trace = trace_of(left, prior, obs)
    assert set(sites(trace)) == ({"x_latent", "x"} if obs is not None else {"x_latent"})
    event = handlers.seed(left, jax.random.key(0))(prior, obs)
    np.testing.assert_array_equal(event, trace_of(kept, prior, obs)["x"]["value"])


def test_unrecorded_events_are_not_among_the_draws(key):
    mcmc = run(ngp.latent(decorated.fn, record=False), key, gan(), X, num_samples=5)
    assert set(mcmc.get_samples()) == {"x_latent"}


# ---- several priors, hyperpriors, priors of latents ----------------------------------------------


def test_a_hyperprior_on_the_condition():
    prior = ngp.GANPrior(lambda z, c: generate(z) + c, 2, condition=jnp.zeros(3))

    @ngp.latent
    def model(prior):
        c = numpyro.sample("c", dist.Normal(jnp.ones(3), 2.0).to_event(1))
        x = numpyro.sample("x", prior.given(c))
        numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=X)

    def by_hand(c, z):
        return normal(c, 1.0, 2.0) + normal(z) + normal(X, generate(z) + c, 0.5)

    def ours(c, z):
        return density(model, {"c": c, "x_latent": z}, prior)[0]

    c = jnp.array([0.2, -0.3, 0.5])
    got, expected = (jax.value_and_grad(f, argnums=(0, 1))(c, Z) for f in (ours, by_hand))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, expected)


def test_several_priors_in_one_model():
    """Each is treated by its own density: the exact prior stays a sample site."""

    @ngp.latent
    def model():
        return [numpyro.sample(n, p()) for n, p in (("a", gan), ("b", vae), ("c", flow))]

    params = {"a_latent": Z, "b_latent": 2 * Z, "b_noise": X, "c": X}
    got, trace = density(model, params)
    expected = normal(Z) + normal(2 * Z) + normal(X) + flow().log_prob(X)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert {n for n, (kind, _) in sites(trace).items() if kind == "deterministic"} == {"a", "b"}


def test_a_prior_as_the_latent_of_another():
    inner = ngp.GANPrior(lambda z: jnp.tile(z, 2)[:2] ** 2, 1)
    prior = ngp.VAEPrior(generate, inner, scale=SCALE)
    params = {"x_latent_latent": jnp.array([0.7]), "x_noise": X}
    by_reparam = handlers.reparam(one_site, config={"x": ngp.LatentReparam()})
    for model in (ngp.latent(one_site), by_reparam):
        got, trace = density(model, params, prior)
        assert sites(trace) == {
            "x_latent_latent": ("sample", (1,)),
            "x_latent": ("deterministic", (2,)),
            "x_noise": NOISE,
            "x": EVENT,
        }
        np.testing.assert_allclose(got, sum(map(normal, params.values())), rtol=1e-6)
        event = generate(jnp.full(2, 0.49)) + SCALE * X
        np.testing.assert_allclose(trace["x"]["value"], event, rtol=1e-5)


def test_a_flow_as_the_latent_of_another():
    """It has its density, or its own latent under ``explicit=True``, also in a plate."""
    base = ngp.FlowPrior(fd.LogNormal(jnp.zeros(2), jnp.array([0.5, 1.5])))
    prior = ngp.GANPrior(generate, base)
    z = jnp.array([0.5, 2.0])
    got, trace = density(ngp.latent(one_site), {"x_latent": z}, prior)
    by_hand = dist.LogNormal(0.0, jnp.array([0.5, 1.5])).log_prob(z).sum()
    np.testing.assert_allclose(got, by_hand, rtol=1e-5)
    assert trace["x_latent"]["fn"].support(z)

    white = jnp.array([[0.1, -0.2]] * 4)
    got, trace = density(ngp.latent(rows, explicit=True), {"x_latent_latent": white}, prior)
    np.testing.assert_allclose(got, normal(white), rtol=1e-6)
    event = generate(jnp.exp(jnp.array([0.5, 1.5]) * white[0]))
    np.testing.assert_allclose(trace["x"]["value"], jnp.tile(event, (4, 1)), rtol=1e-5)
