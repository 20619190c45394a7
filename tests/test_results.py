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
from numpyro_genprior.results import Result

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


def event_scale(shape, own_scale=None):
    residuals = np.random.default_rng(0).normal(size=(6, *shape))
    return diagnostics.EventScale(
        0.3, 0.02, jnp.ones(shape), jnp.arange(1.0, 7.0), jnp.asarray(residuals),
        (0.5,) * len(shape), own_scale,
    )  # fmt: skip


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
    "EventScale, images": lambda: event_scale((4, 5), own_scale=0.2),
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
        assert re.fullmatch(r"[A-Z].+\.", sentence), sentence
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
