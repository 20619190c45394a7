"""A linear generator with Gaussian noise has a closed-form posterior; every method meets it.

y = A x + σ ε, x = W z + b (+ s noise), z ~ N(0, I): with ξ the standard normals of the model,
x = G ξ + b, the posterior of ξ is N(P⁻¹ Gᵀ Aᵀ (y - A b) / σ², P⁻¹), P = I + Gᵀ Aᵀ A G / σ².
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flowjax import bijections as fb
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO, init_to_sample
from numpyro.infer.autoguide import (
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoMultivariateNormal,
    AutoNormal,
)
from numpyro.optim import Adam

import numpyro_genprior as ngp

pytestmark = pytest.mark.float64

W = np.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0]])
B = np.array([0.5, -0.5, 1.0])
A = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
Y = np.array([1.3, -0.4])
SIGMA, SCALE = 0.5, 0.7


def model(prior, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(jnp.asarray(A) @ x, SIGMA).to_event(1), obs=y)


def gan():
    weights, offset = jnp.asarray(W), jnp.asarray(B)
    return ngp.GANPrior(lambda z: weights @ z + offset, 2)


def gaussian():
    """Independent noise of scale² and the same low-rank factor, as the VAE has in event space."""
    return ngp.GaussianPrior(B, factor=W, diagonal=SCALE**2)


def flow():
    square = np.linalg.cholesky(W @ W.T + SCALE**2 * np.eye(3))
    return ngp.FlowPrior(fb.TriangularAffine(jnp.asarray(B), jnp.asarray(square)))


def posterior(generator):
    """Mean and covariance of the standard normals of the model."""
    forward = A @ generator / SIGMA
    precision = np.eye(generator.shape[1]) + forward.T @ forward
    covariance = np.linalg.inv(precision)
    return covariance @ forward.T @ (Y - A @ B) / SIGMA, covariance


WHOLE = np.concatenate([W, SCALE * np.eye(3)], 1)  # latent and decoder noise
ROOT = np.linalg.cholesky(WHOLE @ WHOLE.T)

# name: prior, decoration, the sites that hold the standard normals, the generator of all of them
MODELS = {
    "gan": (gan, ngp.latent(model), ["x_latent"], W),
    "vae_noncentered": (
        lambda: gan().thicken(SCALE),
        ngp.latent(model),
        ["x_latent", "x_noise"],
        WHOLE,
    ),
    "flow_explicit": (flow, ngp.latent(model, explicit=True), ["x_latent"], ROOT),
}
# priors whose chains run in the event: x = G ξ + b
EVENTS = {
    "gaussian": (gaussian, ngp.latent(model)),
    "flow": (flow, ngp.latent(model)),
    "vae_centered": (lambda: gan().thicken(SCALE), ngp.latent(model, noise="centered")),
}


def run(kernel, prior, samples=1500):
    mcmc = MCMC(
        kernel, num_warmup=500, num_samples=samples, progress_bar=False, jit_model_args=True
    )
    with jax.numpy_rank_promotion("allow"):  # init_to_sample draws a Normal with a sample shape
        mcmc.run(jax.random.key(2), prior, jnp.asarray(Y))
    assert int(mcmc.get_extra_fields()["diverging"].sum()) == 0
    return {name: np.asarray(x) for name, x in mcmc.get_samples().items()}


def assert_moments(draws, mean, covariance):
    """Mean and second moments within five Monte Carlo standard errors by effective sample size."""
    products = np.einsum("ni,nj->nij", draws - mean, draws - mean)
    for values, expected in ((draws, mean), (products, covariance)):
        size = effective_sample_size(values[None])
        error = values.std(0) / np.sqrt(size)
        np.testing.assert_array_less(np.abs(values.mean(0) - expected), 5 * error)


@pytest.mark.parametrize("name", MODELS)
def test_nuts_by_the_latent(name):
    make, handled, sites, generator = MODELS[name]
    draws = run(NUTS(handled), make())
    white = np.concatenate([draws[site] for site in sites], -1)
    assert_moments(white, *posterior(generator))
    np.testing.assert_allclose(draws["x"], white @ generator.T + B, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", EVENTS)
def test_nuts_by_the_event(name):
    """The same posterior of the event by its density, or by the density given the latent."""
    make, handled = EVENTS[name]
    draws = run(NUTS(handled, init_strategy=init_to_sample), make())
    mean, covariance = posterior(WHOLE)
    assert_moments(draws["x"], WHOLE @ mean + B, WHOLE @ covariance @ WHOLE.T)


# ---- variational inference -----------------------------------------------------------------------


@functools.cache
def fitted(guide, steps=3000, particles=32):
    handled = ngp.latent(model)
    guide = guide(handled)
    svi = SVI(handled, guide, Adam(lambda i: 0.02 * 0.998**i), Trace_ELBO(particles))
    with jax.numpy_rank_promotion("allow"):  # the guides' own
        result = svi.run(
            jax.random.key(3), steps, gan(), jnp.asarray(Y), progress_bar=False, stable_update=True
        )
    return guide, result


def draws_of(guide, params, number=20_000):
    with jax.numpy_rank_promotion("allow"):
        draws = guide.sample_posterior(jax.random.key(4), params, sample_shape=(number,))
    return np.asarray(draws["x_latent"])


def test_auto_normal():
    """The best independent normals: the right mean, deviations from the precision's diagonal."""
    mean, covariance = posterior(W)
    _, result = fitted(AutoNormal)
    loc, scale = result.params["x_latent_auto_loc"], result.params["x_latent_auto_scale"]
    np.testing.assert_allclose(loc, mean, atol=0.01)
    np.testing.assert_allclose(scale, 1 / np.sqrt(np.diag(np.linalg.inv(covariance))), rtol=0.03)


def test_auto_multivariate_normal():
    mean, covariance = posterior(W)
    guide, result = fitted(AutoMultivariateNormal)
    gaussian = guide.get_posterior(result.params)
    np.testing.assert_allclose(gaussian.loc, mean, atol=0.01)
    np.testing.assert_allclose(gaussian.covariance_matrix, covariance, atol=0.03 * covariance.max())
    evidence = dist.MultivariateNormal(A @ B, A @ W @ W.T @ A.T + SIGMA**2 * np.eye(2))
    loss = np.mean(result.losses[-200:])
    np.testing.assert_allclose(loss, -evidence.log_prob(jnp.asarray(Y)), atol=0.02)


def test_auto_laplace_to_rounding():
    """From the mode of a quadratic, curvature is exact."""
    mean, covariance = posterior(W)
    handled = ngp.latent(model)
    guide = AutoLaplaceApproximation(handled)
    svi = SVI(handled, guide, Adam(lambda i: 0.1 * 0.997**i), Trace_ELBO())
    with jax.numpy_rank_promotion("allow"):
        params = svi.run(jax.random.key(3), 8000, gan(), jnp.asarray(Y), progress_bar=False).params
        gaussian = guide.get_posterior(params)
    np.testing.assert_allclose(gaussian.loc, mean, atol=1e-8)
    np.testing.assert_allclose(gaussian.covariance_matrix, covariance, rtol=1e-10, atol=1e-12)
    samples = draws_of(guide, params)
    error = np.sqrt(np.diag(covariance) / len(samples))
    np.testing.assert_array_less(np.abs(samples.mean(0) - mean), 5 * error)


def test_auto_iaf_normal():
    """A flow as guide over the latent of a prior: moments to a twentieth of a deviation."""
    mean, covariance = posterior(W)
    make = functools.partial(AutoIAFNormal, num_flows=2, hidden_dims=[4, 4])
    guide, result = fitted(make)
    samples = draws_of(guide, result.params)
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_array_less(np.abs(samples.mean(0) - mean), 0.05 * deviation)
    np.testing.assert_allclose(
        np.cov(samples.T), covariance, atol=0.05 * np.max(np.diag(covariance))
    )
