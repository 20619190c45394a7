"""Chains and batches on two devices (conftest.py says how to run these tests)."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

import numpyro_genprior as ngp

pytestmark = pytest.mark.devices(2)

GENERATOR = np.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0]], np.float32)
SCALE = 0.5


@ngp.latent
def model(prior, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, SCALE).to_event(1), obs=y)


@pytest.mark.parametrize("kernel", [NUTS, ngp.infer.FisherNUTS])
def test_parallel_chains_agree_with_the_closed_form(kernel, key):
    prior = ngp.GANPrior(lambda z: jnp.asarray(GENERATOR) @ z, 2)
    y = np.array([0.3, -1.0, 0.8], np.float32)
    mcmc = MCMC(
        kernel(model),
        num_warmup=300,
        num_samples=1000,
        num_chains=2,
        chain_method="parallel",
        progress_bar=False,
        jit_model_args=True,
    )
    mcmc.run(key, prior, y)
    z = mcmc.get_samples(group_by_chain=True)["x_latent"]
    assert len(z.sharding.device_set) == 2

    precision = np.eye(2) + GENERATOR.T @ GENERATOR / SCALE**2
    covariance = np.linalg.inv(precision)
    mean = covariance @ GENERATOR.T @ y / SCALE**2
    z = np.asarray(z)
    error = np.sqrt(np.diag(covariance) / effective_sample_size(z))
    np.testing.assert_array_less(np.abs(z.mean((0, 1)) - mean), 5 * error)


def test_a_batch_over_two_devices_decodes_as_on_one(key):
    prior = ngp.GANPrior(lambda z: jnp.tanh(jnp.asarray(GENERATOR) @ z), 2)
    z = jax.random.normal(key, (8, 2))
    spread = jax.device_put(
        z, NamedSharding(Mesh(jax.devices()[:2], ("draws",)), PartitionSpec("draws"))
    )
    x = jax.jit(lambda prior, z: prior.decode(z))(prior, spread)
    assert len(x.sharding.device_set) == 2
    np.testing.assert_allclose(x, np.tanh(np.asarray(z) @ GENERATOR.T), rtol=1e-5)
