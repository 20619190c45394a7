"""Every result keeps the interface of `numpyro_genprior.results.Result`.

A new result is one line in `RESULTS`: a name, and a function that makes a small one.
"""

import inspect
import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import numpyro_genprior as ngp
from numpyro_genprior import diagnostics
from numpyro_genprior.diagnostics.calibration.convergence import Convergence
from numpyro_genprior.diagnostics.calibration.ranks import Ranks
from numpyro_genprior.infer import Posterior
from numpyro_genprior.infer.smc.result import SMCResult
from numpyro_genprior.infer.tempering.report import TemperingReport
from numpyro_genprior.results import Result
from numpyro_genprior.traces.moments import EventMoments

KEY = jax.random.key(0)
LINE = np.linspace(-1, 1, 8)


def images(z):
    return jnp.outer(jnp.asarray(LINE, z.dtype), z)


@ngp.latent
def seen_in_part(prior, y):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x[:2], 0.1).to_event(2), obs=y)


@ngp.latent
def two_events(y):
    x = numpyro.sample("x", ngp.GANPrior(images, 2))
    u = numpyro.sample("u", ngp.GANPrior(jnp.sin, 2))
    numpyro.sample("y", dist.Normal(x[0] + u, 0.1).to_event(1), obs=y)


def no_event(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


def sensitivity(rank=None):
    values = {"x_latent": jnp.ones(3)}
    return diagnostics.sensitivity(
        seen_in_part, values, ngp.GANPrior(images, 3), jnp.zeros((2, 3)), rank=rank
    )


def sensitivity_of_two_events():
    values = {"x_latent": jnp.zeros(2), "u_latent": jnp.zeros(2)}
    return diagnostics.sensitivity(two_events, values, jnp.zeros(2))


def sensitivity_without_events():
    return diagnostics.sensitivity(no_event, {"z": jnp.zeros(())}, jnp.zeros(()))


def adequacy(verdict, residual, *, structure=0.5):
    direction = jax.tree.map(lambda r: r / 2, residual)
    return diagnostics.Adequacy(
        verdict, 12.0, 10.0, 0.999, 0.4, 2.0, 2, 0.4, 0.9, 1.0, 0.4, structure, 2.0, residual,
        direction, {},
    )  # fmt: skip


def decoder_collapse(sensitivity, kl=None):
    s, kl = np.asarray(sensitivity, float), None if kl is None else jnp.asarray(kl)
    active = jnp.asarray(s > 0.1)
    return diagnostics.DecoderCollapse(
        jnp.asarray(s), jnp.asarray(np.sort(s)[::-1]), jnp.eye(len(s)), active, kl, True, 0.5
    )


def chain_modes(labels, r_hat=1.0):
    labels = np.asarray(labels)
    apart = np.where(labels[:, None] == labels, 0.5, 1.0)
    return diagnostics.ChainModes(labels, np.arange(len(labels)) + 1.5, apart, r_hat)


def posterior_collapse(draws=400, scale=1.0):
    z = np.random.default_rng(0).normal(size=(2, draws, 3)) * [scale, 1.0, 1.0]
    z = z if draws > 10 else np.cumsum(z, axis=1)
    draws = {"x_latent": z, "sigma": z[..., 0] ** 2}
    return diagnostics.posterior_collapse(draws, var_names=["x_latent"])


def event_scale(shape, decoder_scale=None):
    residuals = np.random.default_rng(0).normal(size=(6, *shape))
    return diagnostics.EventScale(
        0.3, 0.02, jnp.ones(shape), jnp.arange(1.0, 7.0), jnp.asarray(residuals),
        (0.5,) * len(shape), decoder_scale,
    )  # fmt: skip


def calibration(kind, narrow=False):
    rng = np.random.default_rng(0)
    ranks = (rng.beta(0.3, 0.3, (200, 2)) * 20).astype(int) if narrow else rng.integers(
        0, 20, (200, 2)
    )  # fmt: skip
    convergence = Convergence(200, 0, 30 if narrow else 0, 0, 0, 19.0)
    return kind.from_ranks(Ranks(ranks, 19, convergence), ["x[0]", "x[1]"], 0.05)


def coverage(inside=(0.5, 0.9)):
    share, error = {"x": np.array(inside)}, {"x": np.full(2, 0.02)}
    convergence = Convergence(50, 0, 0, 0, 0, 100.0)
    return diagnostics.Coverage(np.array([0.5, 0.9]), share, error, {}, 50, 100, 0.05, convergence)


def contraction(power=1.0, spread=1.0):
    noise = np.array([0.1, 0.01, 0.001])
    error = noise[:, None] ** power * np.linspace(1, 1.1, 4)
    zeros = np.zeros(3, int)
    return diagnostics.Contraction("noise", noise, error, spread * error, zeros, zeros, 0)


def map_estimate():
    return ngp.infer.find_map(no_event, KEY, jnp.array(1.0), num_starts=2, progress_bar=False)


def event_moments(shape, draws=100):
    ones = np.ones(shape)
    return EventMoments(ones, ones, np.stack([ones, ones]), (0.05, 0.5), draws, len(shape))


def tempering_report():
    rates, ones = np.full((2, 3), 0.6), np.ones(2)
    betas = np.tile([0.0, 0.02, 0.2, 1.0], (2, 1))
    return TemperingReport(
        100, betas, rates, rates, rates, rates.sum(1), 20 * ones, 20 * ones, -ones, ones, 0 * ones
    )


def smc_result(warnings=()):
    stages, posterior = np.array([0.1, 0.5, 0.6]), Posterior(no_event, (jnp.zeros(()),))
    temperatures = np.array([0.0, 0.1, 0.5, 1.0])
    return SMCResult(
        -1.0, 0.1, temperatures, 100 * stages, stages, stages, stages, stages, 50, warnings,
        jnp.zeros((200, 1)), posterior,
    )  # fmt: skip


def mgvi_result():
    return ngp.infer.MGVI(no_event, progress_bar=False).run(KEY, 2, jnp.zeros(()))


def fit_result(warnings=()):
    losses = {"train": [2.0, 1.0], "val": [2.1, 1.1]}
    prior = ngp.GANPrior(images, 2)
    return ngp.train.FitResult(prior, losses, "patience", 2, {"loss": 1.1}, warnings)


RESULTS = {
    "Sensitivity": sensitivity,
    "Sensitivity, too low a rank": lambda: sensitivity(rank=1),
    "Sensitivity, two events": sensitivity_of_two_events,
    "Sensitivity, no event": sensitivity_without_events,
    "Adequacy, adequate": lambda: adequacy("adequate", jnp.ones((4, 4))),
    "Adequacy, two sites": lambda: adequacy(
        "out_of_range", {"y": jnp.ones(4), "u": jnp.ones(())}, structure=None
    ),
    "Adequacy, noise": lambda: adequacy("noise_too_small", jnp.ones(5)),
    "DecoderCollapse": lambda: decoder_collapse([1.0, 2.0]),
    "DecoderCollapse, some": lambda: decoder_collapse([1.0, 0.0], kl=[0.3, 0.0]),
    "DecoderCollapse, all": lambda: decoder_collapse([0.0, 0.0], kl=[0.0, 0.0]),
    "PosteriorCollapse": lambda: posterior_collapse(scale=0.2),
    "PosteriorCollapse, collapsed": posterior_collapse,
    "PosteriorCollapse, undecided": lambda: posterior_collapse(draws=10),
    "EventScale, vectors": lambda: event_scale((7,)),
    "EventScale, images": lambda: event_scale((4, 5), decoder_scale=0.2),
    "EventScale, colours": lambda: event_scale((4, 5, 3)),
    "Lipschitz": lambda: diagnostics.Lipschitz(jnp.arange(1.0, 9.0), 20.0, "", 3.0),
    "Lipschitz, no bound": lambda: diagnostics.Lipschitz(jnp.ones(4), np.inf, "exp", None),
    "EffectiveDimension": lambda: diagnostics.EffectiveDimension(
        jnp.arange(6.0, 0.0, -1.0).reshape(2, 3), 8, 3, False
    ),
    "EffectiveDimension, flow": lambda: diagnostics.EffectiveDimension(
        jnp.array([[1.0, 1e-8]]), 2, 2, True
    ),
    "ChainModes": lambda: chain_modes([0, 0, 0]),
    "ChainModes, not mixed": lambda: chain_modes([0, 0], r_hat=1.5),
    "ChainModes, separate": lambda: chain_modes([1, 0, 1], r_hat=2.0),
    "ChainModes, one chain": lambda: chain_modes([0]),
    "SBC": lambda: calibration(diagnostics.SBC),
    "SBC, narrow": lambda: calibration(diagnostics.SBC, narrow=True),
    "TARP": lambda: calibration(diagnostics.TARP),
    "Coverage": coverage,
    "Coverage, narrow": lambda: coverage((0.2, 0.5)),
    "Contraction": contraction,
    "Contraction, overconfident": lambda: contraction(spread=0.1),
    "Comparison": lambda: contraction().compare(contraction(power=0.5)),
    "MAPEstimate": map_estimate,
    "SMCResult": smc_result,
    "MGVIResult": mgvi_result,
    "TemperingReport": tempering_report,
    "FitResult": fit_result,
    "EventMoments, vectors": lambda: event_moments((5,)),
    "EventMoments, images": lambda: event_moments((4, 5), draws=10),
}


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


@cache
def made(name):
    return RESULTS[name]()


@pytest.mark.parametrize("name", RESULTS)
def test_words(name):
    result = made(name)
    assert isinstance(result, Result)
    words, short = str(result), repr(result)
    assert len(short) < 100
    assert "\n" not in short
    assert short.startswith(type(result).__name__)
    assert len(words) > len(short)
    if hasattr(result, "verdict"):
        assert re.fullmatch("[a-z_]+", result.verdict)


@pytest.mark.parametrize("name", RESULTS)
def test_warnings(name):
    warnings = made(name).warnings
    assert isinstance(warnings, tuple)
    for sentence in warnings:
        assert re.fullmatch(r"[A-Z0-9].+\.", sentence), sentence
        assert "\n" not in sentence
        assert sentence in str(made(name))


@pytest.mark.parametrize("name", RESULTS)
def test_plot(name):
    result = made(name)
    picture = result.plot()
    figure = picture if isinstance(picture, Figure) else picture.figure
    figure.canvas.draw()  # lays out without a warning
    ax = pyplot.figure().add_subplot()
    if isinstance(picture, Figure):
        with pytest.raises(ValueError, match=r"Call plot\(\) without ax"):
            result.plot(ax)
    else:
        assert isinstance(picture, Axes)
        assert result.plot(ax) is ax
        ax.figure.canvas.draw()


@pytest.mark.parametrize("name", RESULTS)
def test_dataset(name):
    data = made(name).to_dataset()
    assert isinstance(data, xarray.Dataset)
    assert data.data_vars
    assert not [dim for dim in data.dims if re.search(r"dim_\d+$", str(dim))]
    data.load()
    assert all(isinstance(value, str | int | float) for value in data.attrs.values())


def test_every_result_of_a_diagnostic_is_in_the_table():
    names = {name.split(",")[0] for name in RESULTS}
    classes = [getattr(diagnostics, name) for name in diagnostics.__all__]
    results = {c.__name__ for c in classes if inspect.isclass(c) and issubclass(c, Result)}
    assert results <= names


FUNCTIONS = [n for n in diagnostics.__all__ if inspect.isfunction(getattr(diagnostics, n))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_come_in_one_order(name):
    """The object, the key if there is one, arguments of the model, and switches by keyword."""
    parameters = inspect.signature(getattr(diagnostics, name)).parameters
    kinds = [parameter.kind for parameter in parameters.values()]
    names = list(parameters)
    assert kinds[0] is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert "key" not in names[:1] + names[2:]
    for parameter in parameters.values():
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            assert parameter.default is inspect.Parameter.empty, parameter
    if names[0] == "model":
        assert inspect.Parameter.VAR_POSITIONAL in kinds
        assert inspect.Parameter.VAR_KEYWORD in kinds
