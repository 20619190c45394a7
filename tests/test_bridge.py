"""What FlowJAX's own bridge to NumPyro gets wrong, each right here."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flowjax.bijections import AdditiveCondition, Affine, Chain
from flowjax.distributions import Beta, Gamma, LogNormal, StandardNormal, Transformed, Uniform
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, init_to_sample
from numpyro.infer.autoguide import AutoNormal

import numpyro_genprior as ngp


def _twice(c):
    return 2 * c


def doubled(c):
    """The law x given c ~ N(2 c, 1), as a conditional FlowJAX flow."""
    shift = AdditiveCondition(_twice, (1,), (1,))
    flow = Transformed(StandardNormal((1,)), Chain([Affine(jnp.zeros(1)), shift]))
    return ngp.FlowPrior(flow, condition=c)


def model(x=None):
    c = numpyro.sample("c", dist.Normal(0, 2).expand([1]).to_event(1))
    numpyro.sample("x", doubled(jnp.zeros(1)).given(c), obs=x)


# c ~ N(0, 4), x | c ~ N(2 c, 1): the precision of c is 1/4 + 4, its mean 2 x over that.
PRECISION = 0.25 + 4.0
MEAN, SD = 2 * 4.0 / PRECISION, PRECISION**-0.5


def test_gradient_through_the_condition_under_svi():
    assert (round(MEAN, 3), round(SD, 3)) == (1.882, 0.485)
    guide = AutoNormal(model)
    svi = SVI(model, guide, numpyro.optim.Adam(0.02), Trace_ELBO(num_particles=8))
    params = svi.run(jax.random.key(0), 1500, jnp.full(1, 4.0), progress_bar=False).params
    # Adam's stationary spread at this step and eight particles is a few hundredths.
    np.testing.assert_allclose(params["c_auto_loc"], MEAN, atol=0.08)
    np.testing.assert_allclose(params["c_auto_scale"], SD, atol=0.06)


def test_nuts_uses_the_gradient_through_the_condition():
    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=1000, progress_bar=False)
    mcmc.run(jax.random.key(1), jnp.full(1, 4.0))
    c = np.asarray(mcmc.get_samples(group_by_chain=True)["c"])[..., 0]
    ess = float(numpyro.diagnostics.effective_sample_size(c))
    assert ess > 250  # of 1000 draws of a Gaussian; a twentieth without the gradient
    assert abs(c.mean() - MEAN) < 5 * SD / ess**0.5


def test_prior_predictive():
    draws = Predictive(model, num_samples=2000)(jax.random.key(2))
    x = np.asarray(draws["x"])
    assert x.shape == (2000, 1)
    # x ~ N(0, 4·4 + 1): a mean and a standard deviation within five standard errors
    assert abs(x.mean()) < 5 * (17 / 2000) ** 0.5
    assert abs(x.std() - 17**0.5) < 5 * (17 / 4000) ** 0.5


def test_jit_vmap_and_scan():
    prior, x = doubled(jnp.full(1, 0.5)), jnp.full(1, 0.3)
    expected = dist.Normal(1.0, 1.0).log_prob(0.3)
    np.testing.assert_allclose(jax.jit(lambda p: p.log_prob(x))(prior), expected, rtol=1e-5)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), prior, doubled(jnp.full(1, 1.0)))
    both = jax.vmap(lambda p: p.log_prob(x))(stacked)
    np.testing.assert_allclose(both, [expected, dist.Normal(2.0, 1.0).log_prob(0.3)], rtol=1e-5)
    total, _ = jax.lax.scan(lambda t, _: (t + prior.log_prob(x), None), 0.0, None, length=3)
    np.testing.assert_allclose(total, 3 * expected, rtol=1e-5)


@pytest.mark.parametrize(
    "law",
    [
        lambda: LogNormal(jnp.zeros(2), 0.5),
        lambda: Uniform(jnp.full(2, -1.0), jnp.full(2, 3.0)),
        lambda: Beta(jnp.full(2, 2.0), jnp.full(2, 3.0)),
        lambda: Gamma(jnp.full(2, 3.0), jnp.ones(2)),
    ],
    ids=["LogNormal", "Uniform", "Beta", "Gamma"],
)
def test_bounded_laws_do_not_diverge(law):
    prior = ngp.FlowPrior(law())

    def sampled(prior):
        numpyro.sample("x", prior)

    mcmc = MCMC(
        NUTS(sampled, init_strategy=init_to_sample),
        num_warmup=200,
        num_samples=300,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(3), prior)
    assert int(mcmc.get_extra_fields()["diverging"].sum()) == 0
    assert bool(jnp.all(prior.support(mcmc.get_samples()["x"])))
