"""How a prior enters a model: sites, densities and refusals, against models written by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flowjax import distributions as fd
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from numpyro.infer import (
    MCMC,
    NUTS,
    SVI,
    Predictive,
    Trace_ELBO,
    TraceMeanField_ELBO,
    init_to_value,
)
from numpyro.infer.util import initialize_model, log_density
from numpyro.optim import Adam

import numpyro_genprior as ngp

WEIGHTS = jnp.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0]])
SCALE = 0.3
NORMAL = dist.Normal(0.0, 1.0)
X = jnp.array([0.3, -1.0, 0.8])
Z = jnp.array([0.7, -0.4])


def generate(z):
    return jnp.tanh(WEIGHTS @ z)


def gan():
    return ngp.GANPrior(generate, 2)


def vae(scale=SCALE):
    return ngp.VAEPrior(generate, 2, scale=scale)


def flow():
    return ngp.FlowPrior(fd.Normal(jnp.array([1.0, -1.0, 0.0]), jnp.array([0.5, 2.0, 1.0])))


def one_site(prior, obs=None):
    return numpyro.sample("x", prior, obs=obs)


@ngp.latent
def decorated(prior, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)


def trace_of(model, *args, **kwargs):
    return handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(*args, **kwargs)


def sites(trace):
    """Type (``obs`` for data) and shape of each site."""
    return {
        name: ("obs" if site.get("is_observed") else site["type"], jnp.shape(site["value"]))
        for name, site in trace.items()
        if site["type"] in ("sample", "deterministic")
    }


def density(model, params, *args):
    """Log density of a model, and its sites."""
    total, trace = log_density(handlers.seed(model, jax.random.key(0)), args, {}, params)
    return total, trace


def normal(value, loc=0.0, scale=1.0):
    """Sum of normal log densities."""
    return jnp.sum(dist.Normal(loc, scale).log_prob(value))


# ---- the decoder noise ---------------------------------------------------------------------------

LATENT, NOISE = ("sample", (2,)), ("sample", (3,))
EVENT = ("deterministic", (3,))


@pytest.mark.parametrize("scale", [SCALE, jnp.array([0.1, 0.2, 0.3]), None])
@pytest.mark.parametrize(
    ("noise", "obs", "expected"),
    [
        (None, None, {"x_latent": LATENT, "x_noise": NOISE, "x": EVENT}),
        ("noncentered", None, {"x_latent": LATENT, "x_noise": NOISE, "x": EVENT}),
        ("centered", None, {"x_latent": LATENT, "x": ("sample", (3,))}),
        ("none", None, {"x_latent": LATENT, "x": EVENT}),
        (None, X, {"x_latent": LATENT, "x": ("obs", (3,))}),
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
    """`latent`, `sample` and `LatentReparam` give one trace."""
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
        x = ngp.sample("x", vae(), noise="none")
        observed = ngp.sample("w", vae(), obs=np.ones(3))
        exact = ngp.sample("v", flow(), obs=np.ones(3))
    np.testing.assert_allclose(x, generate(trace["x_latent"]["value"]), rtol=1e-6)
    np.testing.assert_array_equal(observed, exact)
    assert trace["w"]["is_observed"]
    assert trace["v"]["is_observed"]


def test_options_of_the_decorator_and_its_signature():
    @ngp.latent(explicit=True, noise="none")
    def model(first, second):
        return numpyro.sample("a", first), numpyro.sample("b", second)

    expected = {"a_latent": NOISE, "a": EVENT, "b_latent": LATENT, "b": EVENT}
    assert sites(trace_of(model, flow(), second=vae())) == expected
    assert model.__name__ == "model"


def test_reparam_config_says_how_noise_enters():
    model = handlers.reparam(one_site, config={"x": ngp.LatentReparam(noise="centered")})
    assert sites(trace_of(model, vae())) == {"x_latent": LATENT, "x": NOISE}


@pytest.mark.parametrize(("prior", "noise"), [(gan(), None), (vae(), "none"), (vae(), None)])
def test_unrecorded(prior, noise):
    """The event stays out of the trace and is the same; one that is data stays in it."""
    obs = X if noise is None and prior.density == "conditional" else None
    kept, left = (ngp.latent(one_site, noise=noise, record=record) for record in (True, False))
    trace = trace_of(left, prior, obs)
    assert set(sites(trace)) == ({"x_latent", "x"} if obs is not None else {"x_latent"})
    event = handlers.seed(left, jax.random.key(0))(prior, obs)
    np.testing.assert_array_equal(event, trace_of(kept, prior, obs)["x"]["value"])


def test_unrecorded_events_are_not_among_the_draws(key):
    mcmc = run(ngp.latent(decorated.fn, record=False), key, gan(), X, num_samples=5)
    assert set(mcmc.get_samples()) == {"x_latent"}


def run(model, key, *args, num_warmup=5, num_samples=20, **kwargs):
    kernel = NUTS(model)
    kwargs = {"progress_bar": False, "jit_model_args": True, **kwargs}
    mcmc = MCMC(kernel, num_warmup=num_warmup, num_samples=num_samples, **kwargs)
    mcmc.run(key, *args)
    return mcmc


# ---- plates, masks, shapes -----------------------------------------------------------------------


def rows(prior):
    with numpyro.plate("rows", 4):
        numpyro.sample("x", prior)


def nested(prior):
    with numpyro.plate("rows", 4, dim=-2), numpyro.plate("columns", 2, dim=-1):
        numpyro.sample("x", prior)


def expanded(prior):
    numpyro.sample("x", prior.expand([4]))


def expanded_in_plate(prior):
    with numpyro.plate("columns", 2):
        numpyro.sample("x", prior.expand([4, 1]).to_event(0))


def eventful(prior):
    numpyro.sample("x", prior.expand([4, 2]).to_event(1))


def sample_shaped(prior):
    numpyro.sample("x", prior, sample_shape=(4,))


@pytest.mark.parametrize("name", ["gan", "vae", "flow"])
@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (rows, (4,)),
        (nested, (4, 2)),
        (expanded, (4,)),
        (expanded_in_plate, (4, 2)),
        (eventful, (4, 2)),
        (sample_shaped, (4,)),
    ],
)
def test_batches(model, batch, name, rng):
    prior = {"gan": gan, "vae": vae, "flow": flow}[name]()
    handled = ngp.latent(model, explicit=True)
    size = prior.latent.event_shape
    params = {"x_latent": jnp.asarray(rng.normal(size=batch + size), jnp.float32)}
    event = prior.decode(params["x_latent"])
    if name == "vae":
        params["x_noise"] = jnp.asarray(rng.normal(size=(*batch, 3)), jnp.float32)
        event = event + SCALE * params["x_noise"]
    got, trace = density(handled, params, prior)
    np.testing.assert_allclose(got, sum(map(normal, params.values())), rtol=1e-5)
    np.testing.assert_allclose(trace["x"]["value"], event, rtol=1e-5)
    fn = trace["x_latent"]["fn"]
    assert fn.batch_shape + fn.event_shape == batch + size
    assert len(fn.event_shape) == 1 + (model is eventful)


MASK = jnp.array([True, False, True, False])


def mask_of_the_prior(prior):
    with numpyro.plate("rows", 4):
        numpyro.sample("x", prior.mask(MASK))


def mask_of_the_expanded(prior):
    numpyro.sample("x", prior.expand([4]).mask(MASK))


def mask_of_a_handler(prior):
    with numpyro.plate("rows", 4), handlers.mask(mask=MASK):
        numpyro.sample("x", prior)


def two_masks(prior):
    with numpyro.plate("rows", 4), handlers.mask(mask=jnp.array([True, True, False, False])):
        numpyro.sample("x", prior.mask(jnp.array([True, False, True, True])))


@pytest.mark.parametrize("name", ["gan", "vae"])
@pytest.mark.parametrize(
    "model", [mask_of_the_prior, mask_of_the_expanded, mask_of_a_handler, two_masks]
)
def test_masks_mask_the_latent(model, name, rng):
    prior = {"gan": gan, "vae": vae}[name]()
    mask = MASK if model is not two_masks else jnp.array([True, False, False, False])
    params = {"x_latent": rng.normal(size=(4, 2)), "x_noise": rng.normal(size=(4, 3))}
    if name == "gan":
        del params["x_noise"]
    params = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}
    got, _ = density(ngp.latent(model), params, prior)
    expected = sum(normal(value[mask]) for value in params.values())
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_mask_of_centered_noise():
    params = {"x_latent": jnp.ones((4, 2)), "x": jnp.ones((4, 3))}
    got, _ = density(ngp.latent(mask_of_the_prior, noise="centered"), params, vae())
    one = normal(jnp.ones(2)) + normal(jnp.ones(3), generate(jnp.ones(2)), SCALE)
    np.testing.assert_allclose(got, 2 * one, rtol=1e-5)


# ---- subsampled plates ---------------------------------------------------------------------------

NUMBER, SLOPE, SIGMA = 6, 2.0, 0.5
EVIDENCE = dist.Normal(0.0, float(np.hypot(SLOPE, SIGMA)))
POSTERIOR_SD = (1 + SLOPE**2 / SIGMA**2) ** -0.5
POSTERIOR_SLOPE = POSTERIOR_SD**2 * SLOPE / SIGMA**2


def lines():
    """One latent and one number an event: x = 2 z."""
    return ngp.GANPrior(lambda z: SLOPE * z, 1)


@ngp.latent
def subsampled(prior, y, size=2):
    with numpyro.plate("rows", NUMBER, subsample_size=size):
        x = numpyro.sample("x", prior)
        batch = numpyro.subsample(y, event_dim=0)
        numpyro.sample("y", dist.Normal(x[..., 0], SIGMA), obs=batch)


def guide(prior, y, size=2):
    loc = numpyro.param("loc", jnp.zeros(NUMBER))
    log_sd = numpyro.param("log_sd", jnp.zeros(NUMBER))
    with numpyro.plate("rows", NUMBER, subsample_size=size) as chosen:
        law = dist.Normal(loc[chosen][:, None], jnp.exp(log_sd[chosen])[:, None])
        numpyro.sample("x_latent", law.to_event(1))


def test_a_subsampled_plate_is_rescaled(key):
    """With the posterior for a guide the ELBO has no variance and is the log evidence."""
    y = jnp.full(NUMBER, 1.5)
    params = {
        "loc": POSTERIOR_SLOPE * y,
        "log_sd": jnp.full(NUMBER, jnp.log(POSTERIOR_SD)),
    }
    expected = -NUMBER * EVIDENCE.log_prob(1.5)
    for size in (1, 2, NUMBER):
        loss = Trace_ELBO().loss(key, params, subsampled, guide, lines(), y, size=size)
        np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_svi_on_a_subsampled_plate_meets_the_posterior(key):
    y = jnp.linspace(-2.0, 2.0, NUMBER)
    svi = SVI(subsampled, guide, Adam(0.05), TraceMeanField_ELBO(num_particles=4))
    result = svi.run(key, 1500, lines(), y, progress_bar=False)
    # Adam at this step wanders by about 5 % around the optimum.
    np.testing.assert_allclose(result.params["loc"], POSTERIOR_SLOPE * y, atol=0.1)
    np.testing.assert_allclose(jnp.exp(result.params["log_sd"]), POSTERIOR_SD, rtol=0.2)


def test_nuts_refuses_a_subsampled_plate(key):
    with pytest.raises((RuntimeError, ValueError), match="subsampl"):
        run(subsampled, key, lines(), jnp.ones(NUMBER))


# ---- scan and cond -------------------------------------------------------------------------------

STEPS = 3
DATA = jnp.arange(9.0).reshape(STEPS, 3) / 9


def filtering(prior, data):
    """A chain of states, each moved by an event of the prior, with plain numpyro.sample."""

    def step(state, y):
        x = numpyro.sample("x", prior)
        state = 0.5 * state + x
        numpyro.sample("y", dist.Normal(state, 0.5).to_event(1), obs=y)
        return state, state

    return scan(step, jnp.zeros(3), data)[1]


def filtering_by_hand(event, data):
    """The same with a latent written by hand; `event` makes events of latents."""

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
    """By its density, and without one copy of the weights for every step."""

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


def test_noise_in_scan(key):
    z, noise = jax.random.normal(key, (STEPS, 2)), jnp.ones((STEPS, 3))
    params = {"x_latent": z, "x_noise": noise}
    _, trace = density(ngp.latent(filtering), params, vae(), DATA)
    np.testing.assert_allclose(
        trace["x"]["value"], jax.vmap(generate)(z) + SCALE * noise, rtol=1e-6
    )


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: p.expand([2]).to_event(1)])
def test_undecorated_exact_priors_in_scan_are_refused(wrap):
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
    """Each by what it is: the exact one stays a sample site."""

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
    """By its density, and by its own latent under ``explicit=True``, in a plate as well."""
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


# ---- names, and values from outside --------------------------------------------------------------


@pytest.mark.parametrize("inside", [True, False])
def test_scopes(inside):
    if inside:
        model = ngp.latent(handlers.scope(one_site, prefix="a"))
    else:
        model = handlers.scope(ngp.latent(one_site), prefix="a")
    expected = {"a/x_latent": LATENT, "a/x_noise": NOISE, "a/x": EVENT}
    assert sites(trace_of(model, vae())) == expected
    two = handlers.scope(handlers.scope(one_site, prefix="a"), prefix="b")
    assert set(sites(trace_of(ngp.latent(two), gan()))) == {"b/a/x_latent", "b/a/x"}


GIVEN = {"x": X}
REFUSED = {
    "condition": lambda m: handlers.condition(m, GIVEN),
    "condition_fn": lambda m: handlers.condition(m, condition_fn=lambda s: GIVEN.get(s["name"])),
    "do": lambda m: handlers.do(m, GIVEN),
    "substitute": lambda m: handlers.substitute(m, GIVEN),
    "substitute_fn": lambda m: handlers.substitute(m, substitute_fn=lambda s: GIVEN.get(s["name"])),
    "replay": lambda m: handlers.replay(m, trace_of(one_site, flow())),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", ["gan", "vae", "explicit"])
def test_values_of_events_from_outside_are_refused(name, kind):
    prior = {"gan": gan, "vae": vae, "explicit": flow}[kind]()
    with pytest.raises(ValueError, match="x_latent"):
        trace_of(REFUSED[name](ngp.latent(one_site, explicit=kind == "explicit")), prior)


def test_values_that_reach_the_latent_are_taken():
    model = ngp.latent(one_site)
    latent = {"x_latent": Z}
    for handler in (handlers.condition, handlers.do, handlers.substitute):
        np.testing.assert_allclose(
            trace_of(handler(model, latent), gan())["x"]["value"], generate(Z)
        )
    replayed = handlers.replay(model, trace_of(model, gan()))
    np.testing.assert_array_equal(
        handlers.trace(replayed).get_trace(gan())["x"]["value"],
        trace_of(model, gan())["x"]["value"],
    )
    exact = trace_of(handlers.condition(model, GIVEN), flow())  # an exact event has a density
    assert exact["x"]["is_observed"]


def test_events_alone_are_refused_by_predictive(key):
    with pytest.raises(ValueError, match="x_latent"):
        Predictive(decorated, {"x": X[None]})(key, gan())


def test_a_start_at_an_event_is_refused(key):
    """NumPyro takes no notice of a start for a deterministic site."""

    def start(**values):
        strategy = init_to_value(values=values)
        return initialize_model(key, decorated, init_strategy=strategy, model_args=(gan(), X))

    with pytest.raises(ValueError, match=r"Give a value to 'x_latent'"):
        start(x=X)
    np.testing.assert_array_equal(start(x_latent=Z).param_info.z["x_latent"], Z)
    scoped = handlers.scope(ngp.latent(one_site), prefix="a")
    with pytest.raises(ValueError, match=r"Give a value to 'a/x_latent'"):
        trace_of(handlers.condition(scoped, {"a/x": X}), gan())


@pytest.mark.parametrize("parallel", [False, True])
def test_draws_for_an_undecorated_model_warn(parallel, key):
    draws = Predictive(decorated, num_samples=3)(key, gan(), X)
    undecorated = decorated.fn
    with pytest.warns(UserWarning, match=r"Decorate the model with @ngp\.latent"):
        Predictive(undecorated, {"x_latent": draws["x_latent"]}, parallel=parallel)(key, gan())


def test_a_latent_substituted_into_an_undecorated_model_warns(key):
    """A flow hands NumPyro its intermediates; that path must not be silent either."""

    def model(prior):
        return numpyro.sample("x", prior)

    given = handlers.substitute(model, {"x_latent": jnp.zeros(flow().event_shape)})
    with pytest.warns(UserWarning, match=r"Decorate the model with @ngp\.latent"):
        handlers.seed(given, key)(flow())


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("noise", [None, "centered", "none"])
def test_draws_give_their_events_back(noise, parallel, key):
    """Posterior draws, events among them, to Predictive and back."""
    model = ngp.latent(decorated.fn, noise=noise)
    draws = Predictive(model, num_samples=4)(key, vae())
    del draws["y"]
    sites = ["x_latent", "x", "y"]
    again = Predictive(model, draws, parallel=parallel, return_sites=sites)(key, vae())
    np.testing.assert_array_equal(again["x_latent"], draws["x_latent"])
    np.testing.assert_allclose(again["x"], draws["x"], rtol=1e-6)
    assert again["y"].shape == (4, 3)
    if noise != "centered":  # the latents alone will do
        del draws["x"]
        without = Predictive(model, draws, parallel=parallel, return_sites=sites)(key, vae())
        np.testing.assert_array_equal(without["x"], again["x"])


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


@pytest.mark.parametrize("method", ["sequential", "vectorized"])
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


@pytest.mark.parametrize(
    "method", ["vectorized", pytest.param("parallel", marks=pytest.mark.devices(2))]
)
def test_chains_agree(method, key):
    """Chain by chain the same draws, as long as rounding has not told them apart."""
    expected, got = chains("sequential", key), chains(method, key)
    assert got["x"].shape == (2, 8, 3)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-2, atol=1e-2)
