"""`event_moments` of latents and of runs, against NumPy and SciPy."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.stats
from matplotlib import pyplot
from numpyro.infer import MCMC, NUTS
from trace_model import Y, generator, infer, shifted

import numpyro_genprior as ngp


def noisy(z):
    return generator(z), 0.05 + 0.1 * jax.nn.sigmoid(generator(z))


def softplus_scale(events):
    return 0.05 + 0.1 / (1 + np.exp(-events))


@pytest.mark.parametrize("batch_size", [None, 7])
def test_moments_of_a_gan(z, events, batch_size):
    moments = ngp.event_moments(
        ngp.GANPrior(generator, 2), z, quantiles=(0.0, 0.3, 1.0), batch_size=batch_size
    )
    np.testing.assert_allclose(moments.mean, events.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(moments.sd, events.std((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(
        moments.quantiles, np.quantile(events, (0.0, 0.3, 1.0), (0, 1)), atol=1e-6
    )
    assert moments.num_draws == 100


@pytest.mark.parametrize("kind", ["fixed", "given by the decoder"])
def test_moments_with_decoder_noise(z, events, kind):
    if kind == "fixed":
        prior, scale = ngp.VAEPrior(generator, 2, scale=0.2), np.full_like(events, 0.2)
    else:
        prior, scale = ngp.VAEPrior(noisy, 2, scale=None), softplus_scale(events)
    moments = ngp.event_moments(prior, z, quantiles=(0.05, 0.5), batch_size=16)
    total = events.var((0, 1)) + (scale**2).mean((0, 1))
    np.testing.assert_allclose(moments.mean, events.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(moments.sd, np.sqrt(total), rtol=1e-5)
    for level, found in zip((0.05, 0.5), moments.quantiles, strict=True):
        for index in ((0, 0), (2, 3)):
            loc, sd = events[(..., *index)], scale[(..., *index)]
            root = scipy.optimize.brentq(
                lambda q, loc=loc, sd=sd, p=level: scipy.stats.norm.cdf(q, loc, sd).mean() - p,
                -9,
                9,
            )
            assert found[index] == pytest.approx(root, abs=1e-4)
    without = ngp.event_moments(prior, z, noise=False)
    np.testing.assert_allclose(without.sd, events.std((0, 1)), rtol=1e-5)
    assert without.quantiles.shape == (0, 3, 4)


def test_quantiles_by_blocks(z, events, monkeypatch):
    target = "numpyro_genprior.traces.streaming_moments.MAX_BLOCK_ELEMENTS"
    monkeypatch.setattr(target, 500)  # 5 entries of 12
    moments = ngp.event_moments(ngp.GANPrior(generator, 2), z, quantiles=0.5, batch_size=30)
    np.testing.assert_allclose(moments.quantiles[0], np.median(events, (0, 1)), atol=1e-6)


def test_moments_keep_the_batch(z, events):
    wide = ngp.GANPrior(generator, 2).expand([50])
    np.testing.assert_allclose(ngp.event_moments(wide, z).mean, events.mean(0), atol=1e-6)
    two = ngp.GANPrior(shifted, 2, condition=jnp.arange(2.0))
    moments = ngp.event_moments(two, z.transpose(1, 0, 2), batch_size=16)
    expected = events.mean(1) + np.arange(2.0)[:, None, None]
    np.testing.assert_allclose(moments.mean, expected, atol=1e-5)


def test_moments_with_a_condition_for_each_draw(z, events, rng):
    prior = ngp.GANPrior(shifted, 2, condition=0.0)
    c = rng.normal(size=(2, 50)).astype(np.float32)
    moments = ngp.event_moments(prior, z, condition=c, batch_size=16)
    np.testing.assert_allclose(moments.sd, (events + c[..., None, None]).std((0, 1)), rtol=1e-5)
    with pytest.raises(ValueError, match="condition="):
        ngp.event_moments(prior.given(c), z)


def test_moments_of_a_flow(rng):
    affine = dist.transforms.LowerCholeskyAffine(jnp.arange(3.0), 2 * jnp.eye(3))
    flow = ngp.FlowPrior(affine, latent=3)
    z = rng.normal(size=(40, 3)).astype(np.float32)
    moments = ngp.event_moments(flow, z, batch_size=16)
    np.testing.assert_allclose(moments.mean, np.arange(3.0) + 2 * z.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.sd, 2 * z.std(0), rtol=1e-5)


def test_a_small_spread_about_a_large_offset(rng):
    prior = ngp.GANPrior(lambda z: 4096.0 + z, 3)
    z = rng.normal(size=(20_000, 3)).astype(np.float32)
    moments = ngp.event_moments(prior, z, batch_size=999)
    seen = (np.float32(4096.0) + z).astype(float)
    np.testing.assert_allclose(moments.sd, seen.std(0), rtol=1e-5)
    np.testing.assert_allclose(moments.mean, seen.mean(0), rtol=1e-7)


MEMORY = """
import resource, sys
import jax.numpy as jnp, numpy as np, numpyro_genprior as ngp
ramp = jnp.linspace(0.0, 1.0, 2**18).reshape(512, 512)
prior = ngp.VAEPrior(lambda z: z[0] + z[1] * ramp, 2, scale=0.1)
z = np.random.default_rng(0).normal(size=(4, 100, 2)).astype(np.float32)
unit = 1024 if sys.platform == "darwin" else 1  # bytes there, kilobytes elsewhere
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit / 1024
ngp.event_moments(prior, z[:, :2], batch_size=8)
before = peak()
moments = ngp.event_moments(prior, z, batch_size=8)
np.testing.assert_allclose(moments.mean[0, 0], z[..., 0].mean(), atol=1e-5)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource usage there")
def test_memory_never_holds_all_events():
    """400 draws of 2¹⁸ numbers are 400 MiB; a batch of 8 and the sums of an event are below 40."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True, timeout=240
    )
    assert float(done.stdout) < 100  # MiB


# ---- runs ----------------------------------------------------------------------------------------


def test_moments_of_the_event_that_a_run_recorded(mcmc):
    moments = ngp.event_moments(ngp.GANPrior(generator, 2), mcmc, quantiles=(0.1, 0.9))
    x = np.asarray(mcmc.get_samples()["x"])
    assert moments.num_draws == len(x)
    np.testing.assert_allclose(moments.mean, x.mean(0), atol=1e-6)
    np.testing.assert_allclose(moments.sd, x.std(0), rtol=1e-5)
    np.testing.assert_allclose(moments.quantiles, np.quantile(x, (0.1, 0.9), 0), atol=1e-6)


def noisy_model(prior, other, y=None):
    a = numpyro.sample("a", prior)
    b = numpyro.sample("b", other)
    numpyro.sample("y", dist.Normal(a[0] + b[0], 0.1).to_event(1), obs=y)


@pytest.fixture(scope="module")
def noisy_run():
    priors = ngp.VAEPrior(generator, 2, scale=0.3), ngp.GANPrior(generator, 2)
    return priors, infer(ngp.latent(noisy_model), *priors, Y[0], chains=1)


@pytest.mark.slow
def test_moments_with_the_noise_that_a_run_inferred(noisy_run):
    (prior, _), mcmc = noisy_run
    a, latent = mcmc.get_samples()["a"], mcmc.get_samples()["a_latent"]
    moments = ngp.event_moments(prior, mcmc, site="a")
    np.testing.assert_allclose(moments.sd, np.asarray(a).std(0), rtol=1e-5)
    without = ngp.event_moments(prior, mcmc, site="a", noise=False)
    np.testing.assert_allclose(without.mean, ngp.decode(prior, latent).mean(0), atol=1e-5)


def test_events_of_a_run_are_told_apart(noisy_run):
    (prior, _), mcmc = noisy_run
    with pytest.raises(ValueError, match="site= one of a, b"):
        ngp.event_moments(prior, mcmc)
    with pytest.raises(ValueError, match="site= one of a, b"):
        ngp.event_moments(prior, mcmc, site="y")
    with pytest.raises(ValueError, match=r"(?i)name another by site="):
        ngp.event_moments(ngp.GANPrior(lambda z: z, 2), mcmc, site="b")


def test_events_that_a_run_did_not_record():
    """In a plate of the model: each row has moments of its own."""

    def plated(prior, y=None):
        with numpyro.plate("epoch", 2):
            x = numpyro.sample("x", prior)
            numpyro.sample("y", dist.Normal(x[:, 0], 0.1).to_event(1), obs=y)

    prior = ngp.GANPrior(generator, 2)
    mcmc = infer(ngp.latent(plated, record=False), prior, Y, chains=1)
    moments = ngp.event_moments(prior, mcmc)
    x = ngp.decode(prior.expand([2]), mcmc.get_samples()["x_latent"])
    assert "x" not in mcmc.get_samples()
    np.testing.assert_allclose(moments.mean, x.mean(0), atol=1e-5)
    assert dict(moments.to_dataset().sizes) == {"batch_dim_0": 2, "row": 3, "col": 4}


# ---- the result ----------------------------------------------------------------------------------


def test_words_and_numbers_of_the_result(z):
    prior = ngp.GANPrior(generator, 2)
    moments = ngp.event_moments(prior, z, quantiles=(0.01, 0.5))
    assert len(repr(moments)) < 100
    assert "shape (3, 4) over 100 draws" in str(moments)
    assert len(moments.warnings) == 1
    assert "quantiles at 0.01" in moments.warnings[0]
    assert moments.warnings[0] in str(moments)
    assert ngp.event_moments(prior, z, quantiles=(0.1, 0.5)).warnings == ()
    table = moments.to_dataset()
    assert table["quantiles"].dims == ("probability", "row", "col")
    np.testing.assert_array_equal(table["mean"], moments.mean)
    assert table.attrs["num_draws"] == 100
    with np.errstate(all="ignore"):
        broken = ngp.event_moments(ngp.GANPrior(lambda z: z / 0.0, 2), z)
    assert "not finite at 2 of 2" in broken.warnings[0]


def test_pictures_of_the_result(z):
    image = ngp.event_moments(ngp.GANPrior(generator, 2), z)
    figure = image.plot()
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["mean", "standard deviation"]
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), image.sd)
    curve = ngp.event_moments(ngp.GANPrior(lambda z: generator(z).ravel(), 2), z, quantiles=0.5)
    axes = pyplot.figure().add_subplot()
    assert curve.plot(axes) is axes
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(lines["mean"], curve.mean)
    np.testing.assert_allclose(lines["50%"], curve.quantiles[0])
    with pytest.raises(ValueError, match="without ax"):
        image.plot(axes)
    with pytest.raises(ValueError, match=r"(?i)plot parts of"):
        ngp.event_moments(ngp.GANPrior(lambda z: jnp.ones((2, 2, 2)), 2), z).plot()
    pyplot.close("all")


@pytest.mark.parametrize(
    ("call", "error", "remedy"),
    [
        (lambda p: ngp.event_moments(p, np.zeros(2)), ValueError, "pass all draws"),
        (lambda p: ngp.event_moments(p, np.zeros((5, 2)), quantiles=(5, 95)), ValueError, r"0\.05"),
        (lambda p: ngp.event_moments(p, np.zeros((5, 2)), site="x"), ValueError, "MCMC object"),
        (lambda p: ngp.event_moments(p, {"x_latent": np.zeros((5, 2))}), TypeError, "one site"),
        (lambda p: ngp.event_moments(dist.Normal(), np.zeros((5, 2))), TypeError, "prior first"),
        (
            lambda p: ngp.event_moments(p, MCMC(NUTS(noisy_model), num_warmup=1, num_samples=1)),
            ValueError,
            r"Call mcmc\.run",
        ),
    ],
)
def test_mistakes(call, error, remedy):
    with pytest.raises(error, match=f"(?i){remedy}"):
        call(ngp.GANPrior(generator, 2))
