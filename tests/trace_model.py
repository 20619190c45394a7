"""A small model with a plate, a run of it, and draws of its latent, for the tests of `traces`."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import numpyro_genprior as ngp

WEIGHTS = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32) / 2
Y = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32) / 4
FIELDS = ("potential_energy", "energy", "num_steps", "accept_prob", "adapt_state.step_size")


def generator(z):
    return jnp.tanh(WEIGHTS @ z).reshape(3, 4)


@ngp.latent
def model(prior, y=None):
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    with numpyro.plate("epoch", 2):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x[:, 0], s).to_event(1), obs=y)
    numpyro.deterministic("total", x.sum())
    numpyro.factor("tilt", -0.0)


def infer(model, *args, chains=2, draws=20, **kwargs):
    mcmc = MCMC(
        NUTS(model, max_tree_depth=4),
        num_warmup=40,
        num_samples=draws,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
        jit_model_args=True,
    )
    mcmc.run(jax.random.key(0), *args, **kwargs)
    return mcmc


def shifted(z, c):
    """The events of `generator`, shifted by the condition."""
    return generator(z) + c
