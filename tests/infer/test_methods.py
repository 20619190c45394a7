"""`MCMCMethod` and `SVIMethod`: NumPyro's own draws, and pure functions of data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import AIES, MCMC, NUTS
from numpyro.infer.autoguide import AutoNormal

import numpyro_genprior as ngp
from numpyro_genprior.infer import MCMCMethod, SVIMethod


def normal(y):
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


@pytest.mark.parametrize(
    ("num_chains", "num_samples", "thinning"), [(1, 10, 1), (1, 11, 3), (3, 8, 2)]
)
def test_draws_are_those_of_numpyro(key, num_chains, num_samples, thinning):
    counts = {
        "num_warmup": 20,
        "num_samples": num_samples,
        "num_chains": num_chains,
        "thinning": thinning,
    }
    method = MCMCMethod(NUTS, **counts)
    draws = jax.jit(functools.partial(method.run, normal))(key, 1.5)
    mcmc = MCMC(NUTS(normal), chain_method="vectorized", progress_bar=False, **counts)
    mcmc.run(key, 1.5)
    expected = mcmc.get_samples(group_by_chain=True)["x"]
    assert draws.samples["x"].shape == (num_chains, num_samples // thinning)
    assert method.num_draws == expected.size
    np.testing.assert_allclose(draws.samples["x"], expected, rtol=1e-3, atol=1e-4)
    kept = mcmc.get_extra_fields()["diverging"].sum()
    assert draws.num_divergences == kept if thinning == 1 else draws.num_divergences >= kept


@pytest.mark.parametrize("optimizer", [None, optax.adam(0.1), numpyro.optim.Adam(0.1)])
def test_a_guide_is_fitted_to_each_data_set(key, optimizer):
    """The posterior of x given y is N(y/2, 1/2)."""
    method = SVIMethod(AutoNormal, optimizer=optimizer, num_steps=300, num_samples=2000)
    y = jnp.array([-2.0, 3.0])
    run = functools.partial(method.run, normal)
    x = jax.vmap(run)(jax.random.split(key, 2), y).samples["x"]
    assert x.shape == (2, 1, 2000)
    np.testing.assert_allclose(x.mean((1, 2)), y / 2, atol=0.15)
    np.testing.assert_allclose(x.std((1, 2)), 0.5**0.5, atol=0.15)


def test_a_laplace_approximation_is_placed_at_the_mode(key):
    method = SVIMethod(ngp.infer.AutoFisherLaplace, num_samples=4000)
    x = method.run(normal, key, 3.0).samples["x"]
    standard_error = 0.5**0.5 / 4000**0.5
    assert abs(x.mean() - 1.5) < 4 * standard_error


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: MCMCMethod(NUTS(normal)), TypeError, "Pass kernel=NUTS"),
        (lambda: MCMCMethod("NUTS"), TypeError, "Pass kernel=NUTS"),
        (lambda: MCMCMethod(NUTS, num_warmup=-1), ValueError, "Pass a larger num_warmup"),
        (lambda: MCMCMethod(NUTS, num_samples=0), ValueError, "Pass a larger num_samples"),
        (lambda: MCMCMethod(NUTS, num_samples=10.0), TypeError, "integer for num_samples"),
        (lambda: MCMCMethod(NUTS, num_chains=0), ValueError, "Pass a larger num_chains"),
        (lambda: MCMCMethod(NUTS, thinning=0), ValueError, "Pass a larger thinning"),
        (
            lambda: MCMCMethod(NUTS, num_samples=5, thinning=6),
            ValueError,
            "Leave thinning=1",
        ),
        (lambda: MCMCMethod(AutoNormal).run(normal, jax.random.key(0), 1.0), TypeError, "=NUTS"),
        (lambda: MCMCMethod(AIES).run(normal, jax.random.key(0), 1.0), TypeError, "=NUTS"),
        (lambda: SVIMethod(AutoNormal(normal)), TypeError, "Pass guide=AutoNormal"),
        (lambda: SVIMethod(NUTS(normal)), TypeError, "Pass guide=AutoNormal"),
        (lambda: SVIMethod(NUTS).run(normal, jax.random.key(0), 1.0), TypeError, "=AutoNormal"),
        (lambda: SVIMethod(AutoNormal, optimizer="adam"), TypeError, r"Leave optimizer=None"),
        (lambda: SVIMethod(AutoNormal, optimizer=optax.adam), TypeError, r"Leave optimizer=None"),
        (lambda: SVIMethod(AutoNormal, num_steps=0), ValueError, "Pass a larger num_steps"),
        (lambda: SVIMethod(AutoNormal, num_samples=0), ValueError, "Pass a larger num_samples"),
    ],
)
def test_errors_say_what_to_do(make, error, match):
    with pytest.raises(error, match=match):
        make()
