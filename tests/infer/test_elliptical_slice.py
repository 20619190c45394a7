"""Elliptical slice sampling against a closed form, with a forward model that JAX cannot trace."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC

import numpyro_genprior as ngp
from numpyro_genprior.infer import Posterior
from numpyro_genprior.infer.elliptical_slice import EllipticalSlice

W = np.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0]], np.float32)
Y = np.array([1.3, -0.4, 0.8], np.float32)
SD = 0.4
CALLS = []


def program(x):
    CALLS.append(np.shape(x))
    return np.asarray(np.cumsum(x, axis=-1), np.float32)


@ngp.latent
def black_box(prior, y, sd):
    """The data are noisy cumulative sums of the event."""
    x = numpyro.sample("x", prior)
    sums = jax.pure_callback(
        program, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="broadcast_all"
    )
    numpyro.sample("y", dist.Normal(sums, sd).to_event(1), obs=y)


@ngp.latent
def differentiable(prior, y, sd):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(jnp.cumsum(x), sd).to_event(1), obs=y)


def prior(scale=1.0):
    return ngp.GANPrior(functools.partial(jnp.matmul, jnp.asarray(scale * W)), 2)


def closed_form(y, scale=1.0):
    forward = np.cumsum(scale * W.astype(float), axis=0)
    covariance = np.linalg.inv(np.eye(2) + forward.T @ forward / SD**2)
    return covariance @ forward.T @ y / SD**2, covariance


def make(model, *, chains=2, warmup=100, samples=2000, max_shrinks=64, **kwargs):
    kwargs = {"chain_method": "vectorized", "jit_model_args": True, **kwargs}
    return MCMC(
        EllipticalSlice(model, max_shrinks=max_shrinks),
        num_warmup=warmup,
        num_samples=samples,
        num_chains=chains,
        progress_bar=False,
        **kwargs,
    )


def assert_mean(draws, expected):
    """The mean of draws ``(chains, draws, ...)`` is within five Monte Carlo standard errors."""
    draws = np.asarray(draws, float)
    error = draws.std((0, 1)) / np.sqrt(effective_sample_size(draws))
    np.testing.assert_array_less(np.abs(draws.mean((0, 1)) - expected), 5 * error)


def assert_linear(mcmc, y, scale=1.0):
    samples = mcmc.get_samples(group_by_chain=True)
    mean, covariance = closed_form(y, scale)
    z = np.asarray(samples["x_latent"], float)
    assert_mean(z, mean)
    assert_mean((z - mean)[..., :, None] * (z - mean)[..., None, :], covariance)
    np.testing.assert_allclose(samples["x"], z @ (scale * W.T), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_black_box_forward_model():
    """Vectorized under jit; a second run uses its own data and weights."""
    mcmc = make(black_box)
    fields = ("num_stuck", "num_nonfinite")
    mcmc.run(jax.random.key(0), prior(), jnp.asarray(Y), SD, extra_fields=fields)
    assert_linear(mcmc, Y)
    assert {shape for shape in CALLS if len(shape) == 2} == {(2, 3)}  # one call for both chains
    extra = mcmc.get_extra_fields(group_by_chain=True)
    assert extra["num_stuck"].max() == extra["num_nonfinite"].max() == 0
    shrinks = extra["num_shrinks"]
    np.testing.assert_allclose(mcmc.last_state.mean_num_shrinks, shrinks.mean(1), rtol=1e-3)
    # a draw costs one call, and one per shrink of the slower chain; recording it costs none
    assert len(CALLS) < 1.3 * (shrinks.max(0).sum() + shrinks.shape[1]) + 100
    posterior = Posterior(differentiable, (prior(), jnp.asarray(Y), SD))
    last = {"x_latent": mcmc.get_samples()["x_latent"][-1]}
    energy = posterior.energy(posterior.coordinates(last))
    np.testing.assert_allclose(extra["potential_energy"][1, -1], energy, rtol=1e-4)

    mcmc.run(jax.random.key(1), prior(0.5), jnp.asarray(-Y), SD)
    assert_linear(mcmc, -Y, 0.5)


def test_chain_methods_keys_and_continuation():
    """Constant arguments, uint32 keys, sequential chains, initial values, continued runs."""
    mcmc = make(differentiable, chain_method="sequential", jit_model_args=False, samples=1500)
    start = {"x_latent": jnp.zeros((2, 2))}
    mcmc.run(jax.random.PRNGKey(0), prior(), Y, SD, init_params=start)
    assert_linear(mcmc, Y)
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key, prior(), Y, SD)
    assert_linear(mcmc, Y)
    np.testing.assert_array_equal(mcmc.last_state.i, 3100)


def test_draws_that_reach_max_shrinks_keep_the_posterior_and_are_counted():
    """A draw that stays at the current point leaves the posterior invariant."""
    mcmc = make(differentiable, max_shrinks=3, samples=3000)
    mcmc.run(jax.random.key(2), prior(), jnp.asarray(Y), SD)
    assert_linear(mcmc, Y)
    stuck = mcmc.last_state.num_stuck
    assert stuck.min() > 100
    one = jax.tree.map(lambda x: x[0], mcmc.last_state)
    assert f"{stuck[0]} stuck" in mcmc.sampler.get_diagnostics_str(one)


def test_nan_log_likelihoods_are_rejected_and_counted():
    def broken(y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(jnp.sqrt(z), 0.5), obs=y)  # NaN for negative z

    mcmc = make(broken, chains=1, samples=1000)
    mcmc.run(jax.random.key(0), 1.0)
    assert (mcmc.get_samples()["z"] > 0).all()
    assert mcmc.last_state.num_nonfinite > 100
    assert "not finite" in mcmc.sampler.get_diagnostics_str(mcmc.last_state)


def dirichlet(y):
    p = numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("y", dist.Normal(p[0], 1.0), obs=y)


@pytest.mark.parametrize(
    ("attempt", "match"),
    [
        (lambda: make(dirichlet).run(jax.random.key(0), 1.0), "EllipticalSlice.*'p'"),
        (lambda: EllipticalSlice(differentiable, max_shrinks=0), "pass a larger max_shrinks"),
    ],
)
def test_refusals(attempt, match):
    with pytest.raises(ValueError, match=f"(?is){match}"):
        attempt()
