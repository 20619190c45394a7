"""`FisherNUTS` and `FisherHMC`: exact, and in every mode of NumPyro's MCMC."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size, summary
from numpyro.infer import MCMC, NUTS

import numpyro_genprior as ngp


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation():
    """Small problems: most of what XLA does to make programs fast costs more than it saves."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


W = np.random.default_rng(0).normal(size=(5, 3)) * np.array([3.0, 1.0, 0.3])
Y = np.array([1.3, -0.4, 0.2, 0.9, -1.0])


@ngp.latent
def linear(prior, y=None, *, sigma=0.3):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, sigma).to_event(1), obs=y)


def prior():
    return ngp.GANPrior(jax.tree_util.Partial(jnp.matmul, jnp.asarray(W)), 3)


def closed_form(y, sigma=0.3):
    covariance = np.linalg.inv(np.eye(3) + W.T @ W / sigma**2)
    return covariance @ W.T @ y / sigma**2, covariance


def assert_meets(mcmc, y, sigma=0.3):
    mean, covariance = closed_form(y, sigma)
    draws = jax.tree.map(np.asarray, mcmc.get_samples(group_by_chain=True))
    stats = summary({"z": draws["x_latent"]})["z"]
    error = np.sqrt(np.diag(covariance) / stats["n_eff"])
    assert (np.abs(stats["mean"] - mean) < 5 * error).all()
    assert (
        np.abs(stats["std"] / np.sqrt(np.diag(covariance)) - 1) < 5 / np.sqrt(2 * stats["n_eff"])
    ).all()
    np.testing.assert_allclose(draws["x"], draws["x_latent"] @ W.T, rtol=1e-4, atol=1e-4)


def mcmc_of(kernel, chains=2, **settings):
    settings = {"chain_method": "vectorized", "jit_model_args": True, **settings}
    return MCMC(
        kernel, num_warmup=100, num_samples=400, num_chains=chains, progress_bar=False, **settings
    )


@pytest.mark.parametrize(  # NUTS is vectorized below, and one chain of HMC takes the path of NUTS
    ("kernel", "method"),
    [
        pytest.param(ngp.infer.FisherNUTS, "sequential", marks=pytest.mark.slow),
        (ngp.infer.FisherHMC, "vectorized"),
    ],
)
def test_closed_form_and_a_second_run(kernel, method):
    mcmc = mcmc_of(kernel(linear), chain_method=method)
    fields = ("num_steps", "potential_energy", "adapt_state.step_size", "accept_prob")
    mcmc.run(jax.random.key(0), prior(), jnp.asarray(Y), extra_fields=fields)
    assert_meets(mcmc, Y)
    extra = mcmc.get_extra_fields()
    assert set(extra) == {*fields, "diverging"}
    assert not extra["diverging"].any()
    z = np.asarray(mcmc.get_samples()["x_latent"])
    residual = (z @ W.T - Y) / 0.3
    energy = (
        0.5 * (z**2).sum(1) + 0.5 * (residual**2).sum(1) + 4 * np.log(2 * np.pi) + 5 * np.log(0.3)
    )
    np.testing.assert_allclose(extra["potential_energy"], energy, rtol=1e-3)
    mcmc.run(jax.random.key(1), prior(), jnp.asarray(-2 * Y))
    assert_meets(mcmc, -2 * Y)


@pytest.mark.slow
def test_low_rank_and_a_dense_mass():
    mcmc = mcmc_of(ngp.infer.FisherNUTS(linear, rank=2, dense_mass=True), chains=1)
    mcmc.run(jax.random.key(0), prior(), jnp.asarray(Y))
    assert_meets(mcmc, Y)


def test_plain_arguments_and_one_chain():
    """Without jit_model_args, with an argument that is no array, and by a given estimate."""
    estimate = ngp.infer.find_map(
        linear, jax.random.key(0), prior(), jnp.asarray(Y), sigma=0.3, progress_bar=False
    )
    kernel = ngp.infer.FisherNUTS(linear, estimate=estimate)
    mcmc = mcmc_of(kernel, chains=1, jit_model_args=False)
    mcmc.run(jax.random.key(0), prior(), jnp.asarray(Y), sigma=0.3)
    assert_meets(mcmc, Y)
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(jax.random.key(3), prior(), jnp.asarray(Y), sigma=0.3)
    assert_meets(mcmc, Y)


@pytest.mark.slow
def test_agrees_with_nuts_on_a_nonlinear_decoder():
    """Means, sds and quantiles within four Monte Carlo errors, with other sites beside the prior.

    The chains are one vectorized run of either kernel.
    """

    @ngp.latent
    def model(y):
        x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.tanh(jnp.asarray(W) @ z), 3))
        scale = numpyro.sample("scale", dist.LogNormal(-1.0, 0.3))
        share = numpyro.sample("share", dist.Dirichlet(5 * jnp.ones(2)))
        numpyro.sample("y", dist.Normal(x * share[0], scale).to_event(1), obs=y)

    found = []
    for kernel in (NUTS(model), ngp.infer.FisherNUTS(model)):
        mcmc = MCMC(
            kernel,
            num_warmup=300,
            num_samples=1000,
            num_chains=2,
            chain_method="vectorized",
            progress_bar=False,
        )
        with jax.numpy_rank_promotion("allow"):
            mcmc.run(jax.random.key(0), jnp.asarray(0.3 * Y))
        draws = jax.tree.map(np.asarray, mcmc.get_samples(group_by_chain=True))
        sites = [draws["x_latent"], draws["scale"][..., None], draws["share"][..., :1]]
        found.append(np.concatenate(sites, -1).astype(float))
    nuts, fisher = found
    assert_same_mean(nuts, fisher)
    centre = nuts.mean((0, 1))
    assert_same_mean((nuts - centre) ** 2, (fisher - centre) ** 2)
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        at = np.quantile(nuts, quantile, axis=(0, 1))
        assert_same_mean(nuts < at, fisher < at)


def assert_same_mean(one, other):
    """Of draws ``(chains, draws, number)``, within four Monte Carlo errors."""
    means = [x.astype(float).mean((0, 1)) for x in (one, other)]
    variances = [x.var((0, 1)) / effective_sample_size(x.astype(float)) for x in (one, other)]
    np.testing.assert_array_less(np.abs(means[0] - means[1]), 4 * np.sqrt(sum(variances)))


def test_both_a_length_and_a_number_of_steps():
    with pytest.raises(ValueError, match="not both"):
        ngp.infer.FisherHMC(linear, trajectory_length=1.0, num_steps=3)


@pytest.mark.slow
def test_modes_that_disagree_are_warned_of():
    def model(y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z**2, 0.1), obs=y)

    mcmc = mcmc_of(ngp.infer.FisherNUTS(model), chains=4)
    with pytest.warns(UserWarning, match="within 3 nats"):
        mcmc.run(jax.random.key(0), jnp.asarray(1.0))
    z = mcmc.get_samples()["z"]
    assert z.min() < -0.8
    assert z.max() > 0.8


@pytest.mark.parametrize("Kernel", [ngp.infer.FisherNUTS, ngp.infer.FisherHMC])
def test_an_estimate_is_what_find_map_returns(Kernel):
    with pytest.raises(TypeError, match=r"Pass estimate=find_map\(model, key"):
        Kernel(linear, estimate={"x": 0.0})
