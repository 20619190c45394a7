"""Small priors, models and ways to look into them, for the tests of sites.

``x = tanh(W z)`` for a GAN and a VAE, a shifted and scaled normal for a flow.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from flowjax import distributions as fd
from numpyro import handlers
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density

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


def rows(prior):
    with numpyro.plate("rows", 4):
        numpyro.sample("x", prior)


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


def run(model, key, *args, num_warmup=5, num_samples=20, **kwargs):
    kernel = NUTS(model)
    kwargs = {"progress_bar": False, "jit_model_args": True, **kwargs}
    mcmc = MCMC(kernel, num_warmup=num_warmup, num_samples=num_samples, **kwargs)
    mcmc.run(key, *args)
    return mcmc


LATENT, NOISE = ("sample", (2,)), ("sample", (3,))
EVENT = ("deterministic", (3,))
