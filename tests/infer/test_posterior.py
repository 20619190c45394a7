"""`Posterior`: coordinates and densities against NumPyro's log density and SciPy's quantiles."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flowjax import bijections as fb
from numpyro.contrib.control_flow import scan
from numpyro.distributions.transforms import biject_to
from numpyro.infer.util import log_density
from scipy import stats
from tiers import tiered

import numpyro_genprior as ngp
from numpyro_genprior.infer import coordinates
from numpyro_genprior.infer.gamma_quantile import gamma_coordinates, gamma_value
from numpyro_genprior.infer.posterior import Posterior

W = np.random.default_rng(0).normal(size=(4, 3))


def gan():
    return ngp.GANPrior(lambda z: jnp.tanh(jnp.asarray(W) @ z), 3)


@ngp.latent
def whole(y):
    """A prior in a plate, a hierarchical prior, a scan and a simplex."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    share = numpyro.sample("share", dist.Dirichlet(jnp.ones(3)))
    slope = numpyro.sample("slope", dist.LogNormal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("image", 2):
        x = numpyro.sample("x", gan())

    def step(carry, y):
        carry = numpyro.sample("walk", dist.Normal(carry, scale))
        numpyro.sample("seen", dist.Normal(carry, 1.0), obs=y)
        return carry, None

    scan(step, 0.0, y)
    loc = x * share[0] + slope[:, None]
    numpyro.sample("y", dist.Normal(loc, 0.5).to_event(2), obs=jnp.zeros((2, 4)))


@pytest.mark.float64
@pytest.mark.parametrize("unconstrained", [False, True])
def test_log_density_and_round_trip(key, unconstrained):
    """log p(ξ, y) is NumPyro's log p(sites, y) plus the log determinant of ξ to sites."""
    y = jnp.arange(4.0)
    posterior = Posterior(whole, (y,), unconstrained=unconstrained)
    xi = posterior.draw(key)
    values = posterior.values(xi)
    np.testing.assert_allclose(posterior.coordinates(values), xi, rtol=1e-7, atol=1e-7)

    def free(xi):  # sites by coordinates that have as many entries as they have freedom
        sites = posterior.values(xi)
        sites["share"] = biject_to(dist.constraints.simplex).inv(sites["share"])
        return jnp.concatenate([sites[p.name].ravel() for p in posterior.layout.slices])

    _, log_det = jnp.linalg.slogdet(jax.jacobian(free)(xi))
    simplex = biject_to(dist.constraints.simplex)
    u = simplex.inv(values["share"])
    log_det = log_det + simplex.log_abs_det_jacobian(u, values["share"])
    sites = {p.name: values[p.name] for p in posterior.layout.slices}
    with jax.numpy_rank_promotion("allow"):
        expected, _ = log_density(numpyro.handlers.seed(whole, 0), (y,), {}, sites)
    np.testing.assert_allclose(posterior.log_joint(xi), expected + log_det, rtol=1e-9)
    prior, likelihood = posterior.log_terms(xi)
    np.testing.assert_allclose(posterior.log_prior(xi), prior, rtol=1e-12)
    np.testing.assert_allclose(posterior.log_likelihood(xi), likelihood, rtol=1e-12)


QUANTILES = {
    "normal": (dist.Normal(1.0, 2.0), stats.norm(1, 2)),
    "half_normal": (dist.HalfNormal(2.0), stats.halfnorm(0, 2)),
    "half_cauchy": (dist.HalfCauchy(2.0), stats.halfcauchy(0, 2)),
    "exponential": (dist.Exponential(2.0), stats.expon(0, 0.5)),
    "uniform": (dist.Uniform(-1.0, 3.0), stats.uniform(-1, 4)),
    "laplace": (dist.Laplace(1.0, 2.0), stats.laplace(1, 2)),
    "cauchy": (dist.Cauchy(1.0, 2.0), stats.cauchy(1, 2)),
    "student": (dist.StudentT(3.0, 1.0, 2.0), stats.t(3, 1, 2)),
    "gamma": (dist.Gamma(25, 4), stats.gamma(25, scale=0.25)),
    "gamma_of_small_concentration": (dist.Gamma(0.3, 2.0), stats.gamma(0.3, scale=0.5)),
    "beta": (dist.Beta(2.0, 3.0), stats.beta(2, 3)),
    "gumbel": (dist.Gumbel(1.0, 2.0), stats.gumbel_r(1, 2)),
    "log_normal": (dist.LogNormal(1.0, 0.5), stats.lognorm(0.5, 0, np.e)),
}


@pytest.mark.parametrize(
    "name", tiered(QUANTILES, slow={"student", "gamma_of_small_concentration"})
)
def test_coordinates_are_standard_normal(name):
    """The value at ξ is the quantile at Φ(ξ), and finite far in the tails."""
    fn, truth = QUANTILES[name]

    def model():
        numpyro.sample("a", fn)
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0)

    posterior = Posterior(model)
    assert posterior.standard_normal.all()
    xi = np.array([-3.0, -1.0, 0.0, 0.5, 2.0, 3.0])
    found = jax.vmap(lambda xi: posterior.values(xi[None])["a"])(jnp.asarray(xi))
    np.testing.assert_allclose(found, truth.ppf(stats.norm.cdf(xi)), rtol=2e-3, atol=2e-4)
    ends = jnp.array([[-9.0], [9.0]])
    assert np.isfinite(jax.vmap(posterior.values)(ends)["a"]).all()
    assert np.isfinite(jax.vmap(jax.grad(posterior.log_joint))(ends)).all()


@pytest.mark.float64
def test_gamma_quantiles_and_their_derivatives():
    """Against SciPy from tail to tail, and finite differences of SciPy."""
    shapes, xi = np.meshgrid([0.05, 0.7, 1.0, 3.0, 40.0, 1e4], np.linspace(-8, 8, 33))

    def quantile(xi, a):
        above = stats.gamma.isf(stats.norm.sf(xi), a)
        return np.where(xi < 0, stats.gamma.ppf(stats.norm.cdf(xi), a), above)

    def sites(xi, a):
        by = jax.grad(lambda xi, a: jnp.sum(gamma_value(xi, a)), (0, 1))(xi, a)
        found = gamma_value(xi, a)
        return found, gamma_coordinates(found, a), *by

    found, back, by_xi, by_shape = jax.jit(sites)(jnp.asarray(xi), jnp.asarray(shapes))
    expected = np.maximum(quantile(xi, shapes), np.finfo(float).tiny)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    away = expected > 1e-200
    assert away.mean() > 0.8
    np.testing.assert_allclose(back[away], xi[away], atol=1e-9)
    difference = (quantile(xi + 1e-5, shapes) - quantile(xi - 1e-5, shapes)) / 2e-5
    np.testing.assert_allclose(by_xi[away], difference[away], rtol=1e-5)
    away &= shapes > 0.5  # below, SciPy's differences have too few digits
    difference = (quantile(xi, shapes * (1 + 1e-5)) - quantile(xi, shapes * (1 - 1e-5))) / (
        2e-5 * shapes
    )
    # SciPy's quantiles have ten digits, a difference of 1e-5 has six of them, or five
    np.testing.assert_allclose(by_shape[away], difference[away], rtol=1e-4, atol=1e-7)
    assert np.isnan(gamma_value(jnp.array([jnp.nan, 0.0]), jnp.array([1.0, jnp.nan]))).all()


def test_distributions_of_tensorflow_probability_without_it(monkeypatch):
    """They have unconstrained coordinates, and are refused where these do not suffice."""
    monkeypatch.setattr(coordinates, "has_tfp", lambda: False)

    def model():
        numpyro.sample("share", dist.Beta(2, 3))
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0)

    posterior = Posterior(model)
    u = 0.3
    share = 1 / (1 + np.exp(-u))
    expected = stats.beta(2, 3).logpdf(share) + np.log(share * (1 - share))
    np.testing.assert_allclose(posterior.log_prior(jnp.array([u])), expected, rtol=1e-5)
    with pytest.raises(
        ValueError, match=r"'share'.*Install tensorflow_probability.*distrax.*FisherNUTS"
    ):
        posterior.require_standard_normal("SMC")


@pytest.mark.parametrize("name", ["flow", "gaussian", "field"])
def test_exact_priors_without_a_decorator(name, key):
    prior = {
        "flow": lambda: ngp.FlowPrior(fb.TriangularAffine(jnp.ones(3), jnp.eye(3) + jnp.tri(3))),
        "gaussian": lambda: ngp.GaussianPrior(jnp.ones(4), factor=jnp.asarray(W), diagonal=0.5),
        "field": lambda: ngp.GaussianFieldPrior((4, 5), lambda k: 1 / (0.1 + k)),
    }[name]()

    def model(prior, y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(jnp.sum(x), 1.0), obs=y)

    posterior = Posterior(model, (prior, jnp.asarray(0.0)))
    assert posterior.standard_normal.all()
    values = posterior.values(posterior.draw(key))
    again = posterior.values(posterior.coordinates(values))
    np.testing.assert_allclose(again["x"], values["x"], rtol=1e-4, atol=1e-4)


def test_weights_and_data_are_leaves(key):
    """One trace for other data; and a batch of data under vmap."""
    traces = []

    def model(y):
        traces.append(1)
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)

    many = jax.vmap(lambda y: Posterior(model, (y,)).log_likelihood(jnp.ones(1)))
    expected = stats.norm.logpdf([0.0, 1.0, 2.0], 1.0)
    np.testing.assert_allclose(many(jnp.arange(3.0)), expected, rtol=1e-5)
    energy = jax.jit(Posterior.energy)
    energy(Posterior(model, (jnp.asarray(1.0),)), jnp.ones(1))
    before, other = len(traces), Posterior(model, (jnp.asarray(2.0),))
    laid_out = len(traces)
    energy(other, jnp.ones(1))
    assert len(traces) == laid_out > before


@pytest.mark.parametrize(
    ("fn", "match"),
    [
        (dist.Poisson(1.0), "Marginalise"),
        (dist.Normal(0.0, 1.0).mask(jnp.array(False)), "Mask the likelihood only"),
    ],
)
def test_latent_sites_that_are_refused(fn, match):
    def model():
        numpyro.sample("odd", fn)

    with pytest.raises(ValueError, match=match) as error:
        Posterior(model)
    assert "'odd'" in str(error.value)


def test_sites_without_standard_normal_coordinates_are_refused():
    posterior = Posterior(whole, (jnp.arange(4.0),))
    with pytest.raises(ValueError, match=r"'share'.*FisherNUTS"):
        posterior.require_standard_normal("EllipticalSlice")
    with pytest.raises(ValueError, match="Give the latents"):
        posterior.coordinates({"x": jnp.zeros((2, 4))})


def test_every_observation_counts():
    """Data of a larger shape than their distribution are many observations: F = n / σ²."""

    def model(y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 2.0), obs=y)

    metric = Posterior(model, (jnp.zeros(100),)).linearise(jnp.zeros(1)).dense()
    np.testing.assert_allclose(metric, [[1 + 100 / 4]], rtol=1e-5)
