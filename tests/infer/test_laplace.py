"""`AutoFisherLaplace` against closed forms: exact where the posterior is Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.reparam import NeuTraReparam
from scipy.stats import multivariate_normal, norm

import numpyro_genprior as ngp

W = np.random.default_rng(0).normal(size=(5, 3))
A = np.random.default_rng(1).normal(size=(4, 5))
Y = np.array([0.3, -1.0, 2.0, 0.5])
SIGMA = 0.5


@ngp.latent
def linear(y, slope):
    """y ~ N(A W z + b · slope, σ²): one prior's latent and one ordinary normal site."""
    x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.asarray(W) @ z, 3))
    b = numpyro.sample("b", dist.Normal(1.0, 2.0))
    loc = jnp.asarray(A) @ x + b * slope
    numpyro.sample("y", dist.Normal(loc, SIGMA).to_event(1), obs=y)


SLOPE = np.array([1.0, 0.0, -1.0, 0.5])


def closed_form():
    """Mean and covariance of (x_latent, b), and the log evidence."""
    forward = np.concatenate([A @ W, SLOPE[:, None]], 1)
    prior_mean, prior = np.array([0, 0, 0, 1.0]), np.diag([1, 1, 1, 4.0])
    precision = np.linalg.inv(prior) + forward.T @ forward / SIGMA**2
    covariance = np.linalg.inv(precision)
    mean = prior_mean + covariance @ forward.T @ (Y - forward @ prior_mean) / SIGMA**2
    marginal = multivariate_normal(
        forward @ prior_mean, forward @ prior @ forward.T + 0.25 * np.eye(4)
    )
    return mean, covariance, marginal.logpdf(Y)


def fitted(rank=None):
    with jax.numpy_rank_promotion("allow"):
        estimate = ngp.infer.find_map(
            linear, jax.random.key(0), jnp.asarray(Y), jnp.asarray(SLOPE), progress_bar=False
        )
        return ngp.infer.AutoFisherLaplace.from_map(estimate, rank=rank)


def in_order(guide, vector):
    """The closed form's coordinates (latent, b) in the guide's order."""
    parts = {"x_latent": vector[..., :3], "b": vector[..., 3:]}
    return np.concatenate([parts[name] for name in guide._init_locs], -1)


@pytest.mark.float64
@pytest.mark.parametrize("rank", [None, 4])
def test_closed_form(rank):
    mean, covariance, evidence = closed_form()
    guide = fitted(rank)
    transform = guide.get_transform()
    np.testing.assert_allclose(transform.loc, in_order(guide, mean), rtol=1e-6, atol=1e-6)
    expected = in_order(guide, in_order(guide, covariance).T)
    if rank is None:
        found = transform.scale_tril @ transform.scale_tril.T
        assert np.array_equal(np.tril(transform.scale_tril), transform.scale_tril)
    else:
        found = transform.covariance()
        np.testing.assert_allclose(transform.variance(), np.diag(expected), rtol=1e-9)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(guide.log_evidence(), evidence, rtol=1e-9)
    events = guide.event_covariance("x")
    pushed = W @ covariance[:3, :3] @ W.T
    np.testing.assert_allclose(events.dense(), pushed, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(events.diagonal(batch_size=3), np.diag(pushed), rtol=1e-9)
    np.testing.assert_allclose(events.matvec(jnp.ones(5)), pushed.sum(1), rtol=1e-9)
    np.testing.assert_allclose(events.mean, W @ mean[:3], rtol=1e-6, atol=1e-6)


@pytest.mark.float64
def test_evidence_of_a_low_rank_counts_what_is_left_out():
    """200 latents of known information: the closed form, met by rank 20."""
    eigenvalues = 30.0 * 0.75 ** np.arange(200)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(200, 200)))[0]
    forward = np.sqrt(eigenvalues)[:, None] * turn
    y = jnp.asarray(np.random.default_rng(4).normal(size=200) * np.sqrt(1 + eigenvalues))

    def model(y):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(200), 1.0).to_event(1))
        numpyro.sample("y", dist.Normal(jnp.asarray(forward) @ z, 1.0).to_event(1), obs=y)

    with jax.numpy_rank_promotion("allow"):  # NumPyro's own, in init_to_median
        estimate = ngp.infer.find_map(model, jax.random.key(0), y, num_starts=1, progress_bar=False)
        guide = ngp.infer.AutoFisherLaplace.from_map(estimate, rank=20)
        narrow = ngp.infer.AutoFisherLaplace.from_map(estimate, rank=5)
    rest = np.log1p(eigenvalues[20:]).sum()
    low, high = guide.spectrum().log_det_discarded(200)
    assert low < rest < high
    evidence = norm.logpdf(np.asarray(y), scale=np.sqrt(1 + eigenvalues)).sum()
    assert abs(guide.log_evidence() - evidence) <= 0.25 * (high - low) < 0.25 * rest
    with (
        pytest.warns(UserWarning, match="leaves out directions"),
        pytest.warns(UserWarning, match=r"evidence .* may be wrong by .* Raise rank"),
    ):
        narrow.log_evidence()


@pytest.mark.slow
def test_draws_quantiles_and_median():
    mean, covariance, _ = closed_form()
    guide = fitted()
    draws = guide.sample_posterior(jax.random.key(1), sample_shape=(4000,))
    draws = jax.tree.map(np.asarray, draws)
    assert draws["x"].shape == (4000, 5)
    sd = np.sqrt(np.diag(covariance))
    latents = np.concatenate([draws["x_latent"], draws["b"][:, None]], 1)
    assert (np.abs(latents.mean(0) - mean) < 5 * sd / np.sqrt(4000)).all()
    assert (np.abs(latents.std(0) - sd) < 5 * sd / np.sqrt(8000)).all()
    np.testing.assert_allclose(draws["x"], draws["x_latent"] @ W.T, rtol=1e-4, atol=1e-4)
    quantiles = guide.quantiles(quantiles=[0.025, 0.975])
    assert sorted(quantiles) == ["b", "x_latent"]
    np.testing.assert_allclose(
        quantiles["b"], mean[3] + 1.959964 * sd[3] * np.array([-1, 1]), rtol=1e-3
    )
    np.testing.assert_allclose(guide.median()["x"], W @ mean[:3], rtol=1e-3, atol=1e-3)
    linearised = np.asarray(guide.event_covariance("x").sample(jax.random.key(2), (4000,)))
    spread = np.sqrt(np.diag(W @ covariance[:3, :3] @ W.T))
    assert (np.abs(linearised.std(0) - spread) < 5 * spread / np.sqrt(8000)).all()


def test_under_svi_and_neutra():
    """As NumPyro's AutoLaplaceApproximation: SVI finds the mode, NeuTra samples from there."""
    mean, covariance, _ = closed_form()
    args = jnp.asarray(Y), jnp.asarray(SLOPE)
    guide = ngp.infer.AutoFisherLaplace(linear)
    with jax.numpy_rank_promotion("allow"):
        svi = SVI(linear, guide, numpyro.optim.Adam(0.05), Trace_ELBO())
        result = svi.run(jax.random.key(0), 1500, *args, progress_bar=False)
        np.testing.assert_allclose(
            result.params["auto_loc"], in_order(guide, mean), rtol=1e-2, atol=1e-2
        )
        model = NeuTraReparam(guide, result.params).reparam(linear)
        mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=500, progress_bar=False)
        mcmc.run(jax.random.key(1), *args)
    draws = mcmc.get_samples()["b"]
    assert abs(draws.mean() - mean[3]) < 6 * np.sqrt(covariance[3, 3] / 300)


def test_a_point_that_is_no_mode_is_warned_of():
    guide = fitted()
    params = {"auto_loc": guide.params["auto_loc"] + 1.0}
    with pytest.warns(UserWarning, match="is not at a mode.*Run SVI for longer, or start"):
        guide.get_transform(params)
    guide.params = params  # as if find_map had ended there
    with pytest.warns(UserWarning, match="is not at a mode.*Give find_map more steps"):
        guide.get_transform()


def test_directions_beyond_the_rank_are_warned_of():
    with pytest.warns(UserWarning, match="Raise rank"):
        fitted(rank=1).get_transform()


def test_without_parameters():
    with pytest.raises(ValueError, match="from_map"):
        ngp.infer.AutoFisherLaplace(linear).get_transform()


def test_a_site_that_is_not_there():
    with pytest.raises(ValueError, match="record=True"):
        fitted().event_covariance("z")
