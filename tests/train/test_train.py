"""The training loops on data from known distributions."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
import scipy.stats

from numpyro_genprior.flows.architectures import SplineCouplingFlow
from numpyro_genprior.networks.architectures import MLPCritic, MLPDecoder, MLPEncoder
from numpyro_genprior.train import energy_distance, fit_flow, fit_gan, fit_vae, sample_coverage

QUICK = {"batch_size": 64, "max_epochs": 2, "show_progress": False}


def normal_data(rows=600, seed=0, loc=(1.0, -2.0), cov=((1.0, 0.8), (0.8, 2.0))):
    truth = scipy.stats.multivariate_normal(loc, cov)
    return truth, truth.rvs(rows, random_state=seed).astype(np.float32)


def linear(latent_size, event_shape, key):
    return MLPDecoder(latent_size, event_shape, hidden=(), output="identity", key=key)


def small_flow(key, **kwargs):
    return SplineCouplingFlow(2, layers=2, knots=4, width=8, key=key, **kwargs)


def small_gan(key, data, **kwargs):
    decoder_key, critic_key = jr.split(key)
    generator = MLPDecoder(2, (2,), hidden=(16,), output="identity", key=decoder_key)
    critic = MLPCritic((2,), hidden=(16,), key=critic_key)
    settings = {"latent_size": 2, "generator": generator, "critic": critic, **QUICK, **kwargs}
    return fit_gan(key, data, **settings)


@pytest.mark.slow
def test_flow_learns_a_normal():
    truth, data = normal_data(2000)
    flow = small_flow(jr.key(1), loc=data.mean(0), scale=data.std(0))
    settings = {**QUICK, "max_epochs": 40, "learning_rate": 5e-3, "patience": 10}
    result = fit_flow(jr.key(0), data, flow=flow, **settings)
    fresh = truth.rvs(4000, random_state=1).astype(np.float32)
    # The mean gap in log density is the KL divergence, known to a standard error of 0.3 / √4000.
    gap = truth.logpdf(fresh) - jax.jit(result.prior.log_prob)(fresh)
    assert -0.02 < gap.mean() < 0.05
    assert result.stopped in ("patience", "max_epochs")
    best = result.losses["val"][result.best_epoch - 1]
    assert best == min(result.losses["val"])
    assert f"weights of epoch {result.best_epoch}" in str(result)
    assert result.warnings == ()
    assert repr(result).startswith("FitResult(FlowPrior, ")
    assert len(repr(result)) < 100
    numbers = result.to_dataset()
    np.testing.assert_allclose(numbers.val.sel(epoch=result.best_epoch), best)
    assert numbers.attrs["best_epoch"] == result.best_epoch
    lines = result.plot().get_lines()
    np.testing.assert_allclose(lines[1].get_ydata(), result.losses["val"])
    # What standardises the data is marked NonTrainable, and so it stayed.
    np.testing.assert_array_equal(result.prior.flow.bijection[1].loc.tree, data.mean(0))


@pytest.mark.slow
def test_conditional_flow_learns_the_condition():
    rng = np.random.default_rng(0)
    c = rng.normal(size=(1500, 1)).astype(np.float32)
    x = (2.0 * c + rng.normal(size=(1500, 2))).astype(np.float32)
    flow = small_flow(jr.key(1), cond_dim=1, loc=x.mean(0), scale=x.std(0))
    settings = {**QUICK, "max_epochs": 40, "learning_rate": 1e-2}
    result = fit_flow(jr.key(0), x, condition=c, flow=flow, **settings)
    samples = result.prior.given(jnp.asarray([0.7])).sample(jr.key(2), (4000,))
    np.testing.assert_allclose(samples.mean(0), 1.4, atol=0.15)
    np.testing.assert_allclose(samples.std(0), 1.0, atol=0.15)


def test_linear_vae_reaches_the_evidence_of_probabilistic_pca():
    # For a linear decoder and encoder the bound's maximum is the likelihood of probabilistic PCA
    # (Lucas et al. 2019), which Tipping and Bishop (1999) give in closed form.
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(6, 2))
    x = (rng.normal(size=(3000, 2)) @ factor.T + 0.5 * rng.normal(size=(3000, 6))).astype("f4")
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    noise = eigenvalues[2:].mean()
    evidence = -0.5 * (6 * math.log(2 * math.pi) + np.log(eigenvalues[:2]).sum())
    evidence -= 0.5 * (4 * math.log(noise) + 6)

    decoder_key, encoder_key = jr.split(jr.key(1))
    result = fit_vae(
        jr.key(0),
        x,
        latent_size=2,
        decoder=linear(2, (6,), decoder_key),
        encoder=MLPEncoder((6,), 2, hidden=(), key=encoder_key),
        **{**QUICK, "batch_size": 128, "max_epochs": 60, "learning_rate": 1e-2},
    )
    assert result.losses["train"][-1] == pytest.approx(-evidence, abs=0.1)
    assert float(result.prior.scale) == pytest.approx(math.sqrt(noise), rel=0.05)
    # An outside check of the whole prior: its samples have the distribution N(b, W Wᵀ + scale² I).
    weight = np.asarray(result.prior.net.net.dense.layers[0].weight)
    covariance = weight @ weight.T + float(result.prior.scale) ** 2 * np.eye(6)
    np.testing.assert_allclose(covariance, np.cov(x.T), atol=0.2)


@pytest.mark.slow
def test_gan_matches_a_normal():
    truth, data = normal_data(1000)
    result = small_gan(jr.key(0), data, max_epochs=40, learning_rate=3e-3, ema=0.99)
    samples = np.asarray(result.prior.sample(jr.key(1), (2000,)))
    np.testing.assert_allclose(samples.mean(0), truth.mean, atol=0.3)
    np.testing.assert_allclose(np.cov(samples.T), truth.cov, atol=0.6)
    assert result.diagnostics["coverage"] > 0.8
    assert set(result.losses) == {"train", "generator", "val", "distance"}


@pytest.mark.slow
def test_collapsed_generator_warns():
    rng = np.random.default_rng(0)
    modes = rng.integers(0, 2, size=(400, 1)) * 20.0 - 10.0
    data = (modes + rng.normal(size=(400, 2))).astype(np.float32)
    with pytest.warns(RuntimeWarning, match="Modes of the data are missing"):
        result = small_gan(jr.key(0), data, max_epochs=1, learning_rate=1e-9)
    assert result.diagnostics["diversity"] < 0.6
    assert result.to_dataset().attrs["diversity"] == result.diagnostics["diversity"]
    assert "Modes of the data are missing" in result.warnings[0]
    assert result.warnings[0] in str(result)


def test_coverage_figures():
    # Expected of two samples from one distribution: coverage 1 − ∏(n−i)/(2n−i), i = 1..k (Naeem et
    # al. 2020, section 3.3), density 1.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1000, 3)).astype(np.float32)
    expected = 1 - np.prod([(1000 - i) / (2000 - i) for i in range(1, 6)])
    figures = sample_coverage(x, y)
    assert figures["coverage"] == pytest.approx(expected, abs=0.03)
    assert figures["density"] == pytest.approx(1.0, abs=0.1)
    assert figures["diversity"] == pytest.approx(1.0, abs=0.05)
    # One of two modes missing: half of the events are uncovered.
    both = y + np.where(np.arange(1000)[:, None] % 2, 50.0, -50.0).astype(np.float32)
    assert sample_coverage(x - 50.0, both)["coverage"] == pytest.approx(expected / 2, abs=0.05)


def test_energy_distance():
    # For N(0, 1) against N(d, 1), scipy's one-dimensional energy distance is the square root.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1500, 1)).astype(np.float32)
    expected = scipy.stats.energy_distance(x[:, 0], y[:, 0] + 1.0) ** 2
    assert float(energy_distance(x, y + 1.0)) == pytest.approx(expected, abs=0.01)
    assert abs(float(energy_distance(x, y))) < 0.01


def fit(family, key, data, **kwargs):
    settings = {**QUICK, **kwargs}
    if family == "flow":
        return fit_flow(key, data, flow=small_flow(jr.key(1)), **settings)
    if family == "gan":
        return small_gan(key, data, **settings)
    encoder = MLPEncoder((2,), 1, hidden=(4,), key=jr.key(2))
    decoder = linear(1, (2,), jr.key(3))
    return fit_vae(key, data, latent_size=1, decoder=decoder, encoder=encoder, **settings)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The generator has collapsed:RuntimeWarning")
@pytest.mark.parametrize("family", ["vae", "gan"])
def test_key_decides_everything(family):
    _, data = normal_data(200)
    typed = fit(family, jr.key(0), data)
    raw = fit(family, jr.PRNGKey(0), data)
    other = fit(family, jr.key(1), data, max_epochs=1)
    assert typed.losses == raw.losses
    assert typed.losses["train"][0] != other.losses["train"][0]
    assert eqx.tree_equal(jax.tree.leaves(typed.prior), jax.tree.leaves(raw.prior))
    assert typed.stopped == "max_epochs"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The generator has collapsed:RuntimeWarning")
@pytest.mark.parametrize("family", ["flow", "gan"])
def test_non_finite_loss_stops_with_the_reason(family):
    _, data = normal_data(200)

    def poison(updates, count, params):
        return jax.tree.map(lambda u: jnp.where(count >= 3, jnp.nan, 1e-3) * u, updates)

    sgd = optax.stateless_with_tree_map(lambda g, p: -g)
    count = optax.GradientTransformation(
        lambda params: jnp.asarray(0),
        lambda u, n, p=None: (poison(u, n, p), n + 1),
    )
    # 180 training rows, 2 steps an epoch: the weights turn NaN in epoch 2, those of 1 stay.
    with pytest.warns(RuntimeWarning, match="Training stopped: non-finite loss at epoch 2"):
        result = fit(family, jr.key(0), data, max_epochs=5, optimizer=optax.chain(sgd, count))
    assert result.stopped.startswith("non-finite loss at epoch 2")
    assert result.best_epoch == 1
    assert "Training stopped: non-finite loss" in result.warnings[0]
    assert "stopped='non-finite loss'" in repr(result)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(result.prior))


@pytest.mark.slow
def test_patience():
    _, data = normal_data(200)
    result = fit("flow", jr.key(0), data, max_epochs=9, patience=2, learning_rate=0.0)
    assert (result.stopped, result.best_epoch, len(result.losses["val"])) == ("patience", 1, 3)


def _nan(data):
    data = data.copy()
    data[3, 1] = np.nan
    return data


ERRORS = {
    "one dimension": (lambda d: fit("flow", jr.key(0), d[:, 0]), r"reshape to \(rows, 1\)"),
    "integers": (lambda d: fit("vae", jr.key(0), d.astype(int)), "/ 255"),
    "NaN": (lambda d: fit("gan", jr.key(0), _nan(d)), "1 NaN or infinite"),
    "few rows": (lambda d: fit("vae", jr.key(0), d[:40]), "Lower `batch_size`"),
    "no validation": (lambda d: fit("flow", jr.key(0), d, val_fraction=0.0), "0.1 is usual"),
    "no key": (lambda d: fit("flow", None, d), r"jax.random.key\(0\)"),
    "half a batch": (lambda d: fit("flow", jr.key(0), d, batch_size=2.5), "a positive integer"),
    "half a latent": (lambda d: fit_vae(jr.key(0), d, latent_size=2.5), "a positive integer"),
    "learning rate": (lambda d: fit("gan", jr.key(0), d, learning_rate=-1.0), "not be negative"),
    "one value": (
        lambda d: fit("vae", jr.key(0), np.full_like(d, 0.1)),
        r"All elements of `data` are 0\.1",
    ),
    "constant up to rounding": (
        lambda d: fit_flow(jr.key(0), np.full_like(d, 0.1), **QUICK),
        "2 of 2 coordinates",
    ),
    "augmented shape": (
        lambda d: fit("vae", jr.key(0), d, augment=lambda key, x: x[:1]),
        r"shape \(2,\) that it was given, got \(1,\)",
    ),
    "one row to validate a GAN": (
        lambda d: fit("gan", jr.key(0), d[:2], batch_size=1),
        "of which 2 are for validation",
    ),
    "not a key": (lambda d: fit("flow", 3, d), r"jax.random.key\(0\)"),
    "patience": (
        lambda d: fit("flow", jr.key(0), d, patience=0),
        "`patience` must be a positive integer",
    ),
    "constant column": (
        lambda d: fit_flow(jr.key(0), d * np.asarray([1, 0], "f4"), **QUICK),
        "add noise with `augment",
    ),
    "flow of another shape": (
        lambda d: fit_flow(jr.key(0), d, flow=SplineCouplingFlow(3, key=jr.key(0)), **QUICK),
        "leave `flow` out",
    ),
    "conditions of another number": (
        lambda d: fit_flow(jr.key(0), d, condition=d[:5], **QUICK),
        "a row for each",
    ),
    "condition without a conditional flow": (
        lambda d: fit_flow(jr.key(0), d, condition=d, flow=small_flow(jr.key(0)), **QUICK),
        "leave `flow` out",
    ),
    "decoder of another shape": (
        lambda d: fit_vae(jr.key(0), d, latent_size=1, decoder=linear(1, (3,), jr.key(0)), **QUICK),
        "one latent in, one event out",
    ),
    "encoder of another shape": (
        lambda d: fit_vae(
            jr.key(0), d, latent_size=1, encoder=MLPEncoder((2,), 2, key=jr.key(0)), **QUICK
        ),
        "one event in",
    ),
    "scale": (
        lambda d: fit_vae(jr.key(0), d, latent_size=1, scale=-1.0, **QUICK),
        "`scale` must be positive",
    ),
    "two outputs and a scale": (
        lambda d: fit_vae(
            jr.key(0), d, latent_size=2, decoder=lambda z: (z, jnp.exp(z)), scale=1.0, **QUICK
        ),
        "Leave `scale` out",
    ),
    "generator of another shape": (
        lambda d: small_gan(jr.key(0), d, generator=linear(2, (3,), jr.key(0))),
        "one latent in, one event out",
    ),
    "critic with a vector": (
        lambda d: small_gan(jr.key(0), d, critic=lambda x: x),
        "to a scalar",
    ),
    "ema": (lambda d: small_gan(jr.key(0), d, ema=1.0), "0.999 is usual"),
    "penalty": (lambda d: small_gan(jr.key(0), d, penalty=-1.0), "1 is usual"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    act, remedy = ERRORS[name]
    _, data = normal_data(100)
    with pytest.raises(ValueError, match=remedy):
        act(data)


def test_decoder_with_two_outputs_and_augmentation():
    class Decoder(eqx.Module):
        layer: eqx.nn.Linear

        def __call__(self, z):
            loc, raw = jnp.split(self.layer(z), 2)
            return loc, jax.nn.softplus(raw)

    _, data = normal_data(200)
    decoder = Decoder(eqx.nn.Linear(1, 4, key=jr.key(1)))
    result = fit_vae(
        jr.key(0),
        data,
        latent_size=1,
        decoder=decoder,
        augment=lambda key, x: x + 0.01 * jr.normal(key, x.shape),
        **QUICK,
    )
    assert result.prior.scale is None
    assert result.prior.event_shape == (2,)


@pytest.mark.slow
def test_a_fixed_scale_is_not_trained():
    """Weight decay moves every parameter, the untouched ones too: a fixed scale is none."""
    data = 0.1 * jr.normal(jr.key(0), (100, 3))
    optimizer = optax.adamw(1e-2, weight_decay=0.5)
    result = fit_vae(
        jr.key(1),
        data,
        latent_size=1,
        scale=0.1,
        optimizer=optimizer,
        batch_size=32,
        max_epochs=3,
        show_progress=False,
    )
    assert float(result.prior.scale) == pytest.approx(0.1, rel=1e-6)
