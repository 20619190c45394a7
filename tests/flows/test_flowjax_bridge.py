"""Cases in which FlowJAX's own bridge to NumPyro (``flowjax.experimental.numpyro``) fails.

Each failure was reproduced with FlowJAX 19.1.2 and NumPyro 0.22. Each test has a closed form.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flowjax import bijections as fb
from flowjax import distributions as fd
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, init_to_sample
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import Adam
from tiers import tiered

import numpyro_genprior as ngp

# c ~ N(0, 2²), x given c ~ N(2c, 1), x = 4; so c given x ~ N(32/17, 4/17): 1.882 ± 0.485
OBSERVED, MEAN, SD = jnp.array([4.0]), 32 / 17, np.sqrt(4 / 17)


class Doubled(eqx.Module):
    """The shift 2c of a conditional FlowJAX bijection."""

    slope: jax.Array

    def __call__(self, condition):
        return self.slope * condition


def conditional():
    shift = fb.AdditiveCondition(Doubled(jnp.array(2.0)), (1,), (1,))
    flow = fd.Transformed(fd.StandardNormal((1,)), shift)
    return ngp.FlowPrior(flow, condition=jnp.zeros(1))


def model(prior, x=None):
    c = numpyro.sample("c", dist.Normal(jnp.zeros(1), 2.0).to_event(1))
    numpyro.sample("x", prior.given(c), obs=x)


def unconditional():
    return ngp.FlowPrior(fd.Normal(jnp.array([1.0, -1.0]), jnp.array([0.5, 2.0])))


@pytest.mark.slow
def test_svi_sees_the_gradient_through_the_condition():
    svi = SVI(model, AutoNormal(model), Adam(lambda i: 0.05 * 0.998**i), Trace_ELBO(16))
    with jax.numpy_rank_promotion("allow"):  # the guide promotes ranks
        params = svi.run(
            jax.random.key(0), 2000, conditional(), OBSERVED, progress_bar=False
        ).params
    np.testing.assert_allclose(params["c_auto_loc"], MEAN, atol=0.02)
    np.testing.assert_allclose(params["c_auto_scale"], SD, atol=0.02)


def test_nuts_sees_the_gradient_through_the_condition():
    """Efficiency above 0.2 needs the right gradient; the bridge reaches 0.05."""
    mcmc = MCMC(NUTS(model), num_warmup=500, num_samples=2000, progress_bar=False)
    mcmc.run(jax.random.key(0), conditional(), OBSERVED)
    c = np.asarray(mcmc.get_samples()["c"])[:, 0]
    size = effective_sample_size(c[None])
    assert size > 0.2 * len(c)
    assert abs(c.mean() - MEAN) < 5 * SD / np.sqrt(size)
    square = (c - MEAN) ** 2
    error = square.std() / np.sqrt(effective_sample_size(square[None]))
    assert abs(square.mean() - SD**2) < 5 * error


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_prior_predictive(parallel, raw):
    """With raw keys, which NumPyro passes on, and typed keys."""
    key = jax.random.key(0)
    key = jax.random.key_data(key) if raw else key
    with jax.numpy_rank_promotion("allow"):
        draws = Predictive(model, num_samples=2000, parallel=parallel)(key, conditional())
    x = np.asarray(draws["x"])[:, 0]
    assert abs(x.mean()) < 5 * np.sqrt(17 / 2000)
    assert abs(x.var() / 17 - 1) < 5 * np.sqrt(2 / 2000)
    residual = x - 2 * np.asarray(draws["c"])[:, 0]
    assert abs(residual.var() - 1) < 5 * np.sqrt(2 / 2000)


def test_a_flow_is_an_argument_of_jit():
    prior = unconditional()
    x = jnp.array([0.3, 0.4])
    jitted = jax.jit(lambda prior, x: prior.log_prob(x))
    expected = dist.Normal(jnp.array([1.0, -1.0]), jnp.array([0.5, 2.0])).log_prob(x).sum()
    np.testing.assert_allclose(jitted(prior, x), expected, rtol=1e-5)
    moved = jax.tree.map(lambda leaf: 1.1 * leaf, prior)
    assert jitted(moved, x) != jitted(prior, x)
    assert jitted._cache_size() == 1


def test_flows_are_stacked_under_vmap():
    def one(loc):
        return ngp.FlowPrior(fd.Normal(loc, jnp.ones(2)))

    locs = jnp.array([[0.0, 0.0], [1.0, -1.0], [2.0, 2.0]])
    stacked = jax.vmap(one)(locs)
    assert stacked.batch_shape == ()
    got = jax.vmap(lambda prior: prior.log_prob(jnp.zeros(2)))(stacked)
    expected = jnp.stack([dist.Normal(loc, 1.0).log_prob(jnp.zeros(2)).sum() for loc in locs])
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_scan_over_a_flow():
    """The flow inside scan, as an autoregression: x_t given x_(t-1) ~ N(2 x_(t-1), 1)."""
    prior = conditional()

    @ngp.latent
    def series(prior, xs):
        def step(previous, x):
            numpyro.sample("x", prior.given(previous), obs=x)
            return x, None

        scan(step, jnp.zeros(1), xs)

    xs = jnp.array([[0.5], [1.5], [2.5]])
    previous = jnp.concatenate([jnp.zeros((1, 1)), xs[:-1]])
    expected = dist.Normal(2 * previous, jnp.ones((3, 1))).log_prob(xs).sum()
    got, _ = numpyro.infer.util.log_density(series, (prior, xs), {}, {})
    np.testing.assert_allclose(got, expected, rtol=1e-5)

    @ngp.latent
    def drawn(prior):
        scan(lambda c, _: (c, numpyro.sample("x", prior)), 0.0, None, length=5)

    trace = handlers.trace(handlers.seed(drawn, jax.random.key(0))).get_trace(prior)
    assert trace["x"]["value"].shape == (5, 1)


BOUNDED = {
    "log_normal": (fd.LogNormal(jnp.zeros(2), jnp.full(2, 0.5)), np.exp(0.125)),
    "uniform": (fd.Uniform(jnp.zeros(2), jnp.full(2, 3.0)), 1.5),
    "beta": (fd.Beta(jnp.full(2, 2.0), jnp.full(2, 3.0)), 0.4),
    "gamma": (fd.Gamma(jnp.full(2, 3.0), jnp.full(2, 2.0)), 6.0),
    "exponential": (fd.Exponential(jnp.full(2, 2.0)), 0.5),
}


@pytest.mark.parametrize("name", tiered(BOUNDED, slow={"log_normal", "uniform"}))
def test_bounded_distributions_have_their_support(name):
    """No divergences and the known mean; the bridge declares them real and has only divergences."""
    flow, mean = BOUNDED[name]
    prior = ngp.FlowPrior(flow)

    def plain(prior):
        numpyro.sample("x", prior)

    kernel = NUTS(plain, init_strategy=init_to_sample)
    mcmc = MCMC(kernel, num_warmup=300, num_samples=1000, progress_bar=False)
    mcmc.run(jax.random.key(1), prior)
    assert int(mcmc.get_extra_fields()["diverging"].sum()) == 0
    x = np.asarray(mcmc.get_samples()["x"])
    assert np.all(prior.support(x))
    size = effective_sample_size(x[None])
    np.testing.assert_array_less(np.abs(x.mean(0) - mean), 5 * x.std(0) / np.sqrt(size))


@pytest.mark.slow
def test_a_prior_built_inside_the_model():
    """With traced parameters: a hyperprior on the scale of a bounded distribution."""

    def built(x):
        s = numpyro.sample("s", dist.HalfNormal(1.0))
        flow = fd.LogNormal(jnp.zeros(1), s * jnp.ones(1))
        prior = ngp.FlowPrior(flow, support=dist.constraints.positive)
        numpyro.sample("x", prior, obs=x)

    mcmc = MCMC(NUTS(built), num_warmup=300, num_samples=1000, progress_bar=False)
    mcmc.run(jax.random.key(0), jnp.full(1, 2.0))
    s = np.asarray(mcmc.get_samples()["s"])
    # the posterior of s by quadrature: HalfNormal(s) LogNormal(2; 0, s)
    grid = np.linspace(1e-3, 8, 20_000)
    weights = np.exp(-(grid**2) / 2 - np.log(2.0) ** 2 / (2 * grid**2)) / grid
    mean = np.sum(grid * weights) / np.sum(weights)
    size = effective_sample_size(s[None])
    assert abs(s.mean() - mean) < 5 * s.std() / np.sqrt(size)
