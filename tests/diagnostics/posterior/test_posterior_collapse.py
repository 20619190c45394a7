"""`posterior_collapse` against theory."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS

import numpyro_genprior as ngp
from numpyro_genprior.diagnostics import posterior_collapse


@pytest.mark.slow
def test_level_is_kept_for_correlated_draws():
    """Prior draws by AR(1) chains: false alarms over 20 directions stay at the level."""
    rng = np.random.default_rng(3)
    alarms, number = 0, 60
    for _ in range(number):
        z = np.empty((4, 400, 20))
        z[:, 0] = rng.normal(size=(4, 20))
        for t in range(1, 400):
            z[:, t] = 0.7 * z[:, t - 1] + np.sqrt(1 - 0.49) * rng.normal(size=(4, 20))
        alarms += bool(posterior_collapse(z, level=0.05).informed.any())
    assert alarms / number < 0.05 + 3 * np.sqrt(0.05 * 0.95 / number)


def test_it_sees_shifts_spreads_and_modes():
    rng = np.random.default_rng(4)
    z = rng.normal(size=(4, 500, 5))
    z[..., 1] = z[..., 1] + 0.3
    z[..., 2] = z[..., 2] * 0.8
    z[..., 3] = np.sign(z[..., 3]) * np.sqrt(0.9) + np.sqrt(0.1) * rng.normal(size=(4, 500))
    found = posterior_collapse({"x_latent": z})
    np.testing.assert_array_equal(found.collapsed, [True, False, False, False, True])
    assert found.verdict == "partly_collapsed"
    assert "x_latent[0], x_latent[4]" in str(found)
    turned = posterior_collapse(z, directions=np.array([[0, 2.0, 0, 0, 0], [1, 0, 0, 0, 1]]))
    np.testing.assert_array_equal(turned.informed, [True, False])


def test_events_and_scales_are_left_out():
    """Draws as ``get_samples`` returns them: events and scales are not N(0, 1) under the prior."""
    rng = np.random.default_rng(7)
    z = rng.normal(size=(2, 500, 3))
    draws = {"x": np.tanh(5 * z), "x_latent": z, "x_noise": rng.normal(size=(2, 500, 2, 2))}
    draws["sigma"] = 0.1 * np.abs(rng.normal(size=(2, 500)))
    with pytest.raises(ValueError, match="Name them, var_names="):
        posterior_collapse(draws)
    found = posterior_collapse(draws, var_names=("x_latent", "x_noise"))
    assert found.verdict == "collapsed"
    assert found.names[2:4] == ("x_latent[2]", "x_noise[0]")
    assert "Not examined: x, sigma" in str(found)
    deeper = {"x_latent": np.exp(z), "x_latent_latent": z}
    deeper = posterior_collapse(deeper, var_names=["x_latent_latent"])
    assert deeper.names == tuple(f"x_latent_latent[{i}]" for i in range(3))


def test_too_few_effective_draws_are_not_collapse():
    walk = np.cumsum(0.02 * np.random.default_rng(5).normal(size=(1, 200, 1)), axis=1)
    assert posterior_collapse(walk).verdict == "undecided"


def test_after_inference(key):
    """y sees the first latent only; the others keep their prior."""

    @ngp.latent
    def model(y):
        x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.stack([z[0], z[1], z[2]]), 3))
        numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))  # has no normal coordinates
        numpyro.sample("y", dist.Normal(x[0], 0.5), obs=y)

    mcmc = MCMC(
        NUTS(model),
        num_warmup=200,
        num_samples=400,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, jnp.array(0.4))
    found = posterior_collapse(mcmc)
    np.testing.assert_array_equal(found.informed, [True, False, False])
    assert found.names[0] == "x_latent[0]"
    assert "Not examined: weights" in str(found)
    errors = found.error[0] * np.array([1.0, 1.0])
    np.testing.assert_allclose(found.mean[0], 0.32, atol=5 * errors[0])
    np.testing.assert_allclose(found.shrinkage[0], 0.2, atol=5 * 0.2 * np.sqrt(2) * errors[1])


@pytest.mark.parametrize(
    ("draws", "match"),
    [
        (np.zeros((2, 2, 3)), "Raise num_samples"),
        (np.full((2, 50, 3), np.nan), "not finite"),
        ({}, "no draws"),
        (np.zeros(5), "no dimension of latents"),
        ({"x_latent": np.zeros((300, 10, 3))}, "group_by_chain=True"),  # a plate of 10
        ({"x": np.zeros((2, 50, 3)), "x_latent": np.zeros((2, 50, 3))}, "Name them, var_names"),
        (
            {"a": np.zeros((2, 50, 3)), "b": np.zeros((2, 50))},
            "cannot distinguish chains from draws",
        ),
    ],
)
def test_mistakes_in_draws(draws, match):
    with pytest.raises(ValueError, match=match):
        posterior_collapse(draws)


def test_directions_of_another_size():
    draws = np.random.default_rng(6).normal(size=(2, 50, 3))
    with pytest.raises(ValueError, match="Directions of the wrong size"):
        posterior_collapse(draws, directions=np.ones((1, 2)))
