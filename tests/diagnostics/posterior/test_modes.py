"""`diagnostics.modes`: which chains are assigned to which mode."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS

from numpyro_genprior.diagnostics import modes


def square(y, scale=0.1):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    x = numpyro.deterministic("x", z + 0.1)
    numpyro.sample("y", dist.Normal(x**2, scale), obs=y)


def run(starts):
    mcmc = MCMC(
        NUTS(square), num_warmup=150, num_samples=150, num_chains=len(starts),
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(1), jnp.array(1.0), init_params={"z": jnp.array(starts)})
    return mcmc


def with_draws(draws, mcmc):
    """The same run with other draws."""
    mcmc = copy.copy(mcmc)
    mcmc._states = {"z": {"z": jnp.asarray(draws, jnp.float32)}}
    return mcmc


@pytest.fixture(scope="module")
def four():
    return run([1.0, -1.0, 1.0, -1.0])


def test_two_modes_and_their_energies(four):
    found = modes(four)
    z = np.asarray(four.get_samples(group_by_chain=True)["z"])
    assert (z[[0, 2]] > 0).all()  # no chain has jumped
    assert (z[[1, 3]] < 0).all()
    assert found.num_modes == 2
    # The positive mode, z = 0.9, is nearer to the prior's centre than z = -1.1.
    np.testing.assert_array_equal(found.labels, [0, 1, 0, 1])
    assert found.chains_by_mode == ((0, 2), (1, 3))
    energy = 0.5 * z**2 + 0.5 * ((z + 0.1) ** 2 - 1.0) ** 2 / 0.01 + np.log(2 * np.pi * 0.1)
    np.testing.assert_allclose(found.energies, energy.mean(1), rtol=1e-4)
    words = str(found)
    assert "4 chains are in 2 separate modes" in words
    assert "chains 0, 2: mean energy" in words
    assert "ParallelTempering" in words


def test_chains_that_agree(four, rng):
    found = modes(with_draws(rng.normal(size=(3, 150)), four))
    assert found.num_modes == 1
    assert found.r_hat < 1.05
    assert "3 chains are in one mode" in str(found)


def test_one_chain_cannot_tell(four, rng):
    found = modes(with_draws(rng.normal(size=(1, 40)), four))
    assert found.num_modes == 1
    assert "cannot tell" in str(found)


def test_a_chain_that_visits_both_joins_them(four, rng):
    draws = np.sign(rng.normal(size=(3, 60))) + 0.1 * rng.normal(size=(3, 60))
    draws[1], draws[2] = abs(draws[1]), -abs(draws[2])
    apart = modes(with_draws(draws[1:], four))
    assert apart.num_modes == 2
    joined = modes(with_draws(draws, four))
    assert joined.num_modes == 1
    assert "have not mixed" in str(joined)


def test_separation_is_that_of_normals(four, rng):
    """P(a < b) for two normals that are d standard deviations apart is Φ(d / √2)."""
    for shift in (0.0, 1.0, 2.0, 4.0):
        draws = rng.normal(size=(2, 2000))
        draws[1] += shift
        separation = modes(with_draws(draws, four), num_draws=2000).separation[0, 1]
        expected = float(jax.scipy.stats.norm.cdf(shift / np.sqrt(2)))
        # of a Mann-Whitney statistic; at shift 0 the direction has a random sign
        assert abs(separation - expected) < 5 * np.sqrt(2 / (12 * 1000))


def test_many_coordinates_do_not_separate_chains(rng):
    """A direction through 300 means of 50 draws fits noise; the other half does not follow it."""

    def wide(y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([300]).to_event(1))
        numpyro.sample("y", dist.Normal(z[0], 1.0), obs=y)

    mcmc = MCMC(NUTS(wide), num_warmup=2, num_samples=4)
    mcmc._args, mcmc._kwargs = (jnp.array(0.0),), {}  # as after a run
    found = modes(with_draws(rng.normal(size=(4, 50, 300)), mcmc))
    assert found.num_modes == 1
    assert found.separation.max() < 0.8


def test_chains_that_never_move(four):
    found = modes(with_draws(np.repeat([[0.5], [0.5], [0.7]], 10, axis=1), four))
    np.testing.assert_array_equal(found.labels[:2], [found.labels[0]] * 2)
    assert found.num_modes == 2
    assert found.r_hat == np.inf


def test_refusals(four):
    with pytest.raises(TypeError, match="Pass the MCMC object itself"):
        modes(four.get_samples())
    with pytest.raises(ValueError, match=r"Call mcmc\.run"):
        modes(MCMC(NUTS(square), num_warmup=1, num_samples=1))
    with pytest.raises(ValueError, match="at least 4 of each chain"):
        modes(four, num_draws=3)
    potential = MCMC(NUTS(potential_fn=lambda z: z**2 / 2), num_warmup=2, num_samples=4)
    with pytest.raises(TypeError, match="has no model"):
        modes(potential)
