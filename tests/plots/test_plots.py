"""`posterior_images`: the contents of the figure, and its error messages."""

import sys

import numpy as np
import pytest
from matplotlib import pyplot

import numpyro_genprior as ngp


@pytest.fixture
def draws(rng):
    return rng.uniform(size=(4, 30, 8, 6))


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_panels_match_their_titles(draws):
    truth, data = draws[0, 0], np.full((8, 6), np.nan)
    data[:4] = truth[:4]
    figure = ngp.plots.posterior_images(
        draws, truth=truth, data=data, residual=data - truth, title="a digit", caption="word " * 60
    )
    shown = panels(figure)
    for name, values in {
        "truth": truth,
        "posterior mean": draws.mean((0, 1)),
        "posterior sd": draws.std((0, 1)),
    }.items():
        np.testing.assert_allclose(shown[name].images[0].get_array(), values)
    assert shown["data"].images[0].get_array().mask[4:].all()  # hidden pixels
    assert len([t for t in titles(figure) if t.startswith("draw")]) == 6
    assert figure.get_suptitle() == "a digit"
    assert figure.get_supxlabel().replace("\n", " ").split() == ["word"] * 60
    figure.canvas.draw()  # lays out without a warning


def test_draws_come_from_all_chains(draws):
    for number in (2, 4, 6, 9):
        figure = ngp.plots.posterior_images(draws, num_draws=number)
        named = [t.split()[-1] for t in titles(figure) if t.startswith("draw")]
        assert len(named) == number
        assert len(set(named)) == min(number, 4)


def test_few_draws_given_moments_and_colours(rng):
    mean, sd = np.zeros((8, 8)), np.ones((8, 8))
    figure = ngp.plots.posterior_images(
        rng.uniform(size=(3, 8, 8)), mean=mean, sd=sd, data=rng.normal(size=20)
    )
    assert titles(figure).count("draw") == 3
    np.testing.assert_array_equal(panels(figure)["posterior mean"].images[0].get_array(), mean)
    colour = ngp.plots.posterior_images(rng.uniform(size=(10, 8, 8, 3)), event_ndim=3)
    assert panels(colour)["draw"].images[0].get_array().shape == (8, 8, 3)
    colour.canvas.draw()


def test_events_that_are_not_images(rng):
    with pytest.raises(ValueError, match="Reshape the events"):
        ngp.plots.posterior_images(rng.normal(size=(8, 8)))


def test_without_matplotlib(draws, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install numpyro_genprior\[plots\]"):
        ngp.plots.posterior_images(draws)


def test_limits_of_constant_and_broken_images(draws):
    """Constant, infinite and missing pixels: the scale is that of the finite ones."""
    constant = np.ones((5, 8, 6))
    assert panels(ngp.plots.posterior_images(constant))["posterior mean"].images[0].norm.vmin == 0.5
    broken = draws[0].copy()
    broken[:, 0, 0], broken[:, 1, 1] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        norm = panels(ngp.plots.posterior_images(broken))["posterior mean"].images[0].norm
    assert np.isfinite([norm.vmin, norm.vmax]).all()


def test_curves(rng):
    curves, truth = rng.normal(size=(4, 20, 30)), rng.normal(size=30)
    figure = ngp.plots.posterior_images(
        curves, event_ndim=1, truth=truth, data=truth, residual=truth, caption="one place"
    )
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["posterior mean"], curves.mean((0, 1)))
    np.testing.assert_allclose(lines["truth"], truth)
    assert len(figure.axes) == 2
