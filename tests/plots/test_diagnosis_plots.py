"""Pictures of diagnostics: what is drawn are the numbers of the result."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from matplotlib import pyplot

import numpyro_genprior as ngp


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def sensitivity():
    @ngp.latent
    def model(y):
        x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.outer(z, jnp.ones(4)), 3))
        loc = jnp.array([10.0, 2.0, 0.1]) * x[:, 0]
        numpyro.sample("y", dist.Normal(loc, 1.0).to_event(1), obs=y)

    return ngp.diagnostics.sensitivity(model, {"x_latent": jnp.zeros(3)}, jnp.zeros(3))


def test_sensitivity_spectrum(sensitivity):
    ax = ngp.plots.sensitivity_spectrum(sensitivity)
    _, seen, unseen = ax.lines
    np.testing.assert_allclose(seen.get_ydata(), [10, 2], rtol=1e-5)
    np.testing.assert_allclose(unseen.get_ydata(), [0.1], rtol=1e-5)
    assert [text.get_text() for text in ax.get_legend().texts] == [
        "identified: 2",
        "left to the prior: 1",
    ]
    given = pyplot.figure().add_subplot()
    assert ngp.plots.sensitivity_spectrum(sensitivity, ax=given) is given


def test_latent_shrinkage(sensitivity, rng):
    ax = ngp.plots.latent_shrinkage(sensitivity)
    heights = [patch.get_height() for patch in ax.patches]
    np.testing.assert_allclose(heights, 1 / np.sqrt(1 + np.array([10, 2, 0.1]) ** 2), rtol=1e-5)
    draws = rng.normal(size=(4, 200, 2)) * [1.0, 0.2]
    ax = ngp.plots.latent_shrinkage(ngp.diagnostics.posterior_collapse({"z": draws}))
    assert {"informed", "prior"} <= {text.get_text() for text in ax.get_legend().texts}


def test_event_directions(sensitivity):
    seen = np.array([[True] * 4, [True] * 4, [False] * 4])
    figure = ngp.plots.event_directions(sensitivity, num_directions=2, observed=seen)
    shown = [axes for axes in figure.axes if axes.images]
    titles = [axes.get_title() for axes in shown]
    assert titles == ["1\ndetermined, s = 10", "2\ndetermined, s = 2", "3\nundetermined, s = 0.1"]
    np.testing.assert_allclose(np.abs(shown[2].images[0].get_array()[2]), 1.0, rtol=1e-5)
    limits = {axes.images[0].get_clim() for axes in shown}  # one scale, symmetric about 0
    np.testing.assert_allclose(list(limits), [(-1.0, 1.0)], rtol=1e-5)
    assert [axes.get_ylabel() for axes in figure.axes][-1] == "change per prior sd"
    edges = {tuple(map(tuple, line.get_xydata())) for line in shown[0].lines}
    assert len(edges) == 12  # around two rows of four pixels
    assert ((-0.5, 1.5), (0.5, 1.5)) in edges
    figure.canvas.draw()
    with pytest.raises(ValueError, match="Pass a boolean array"):
        ngp.plots.event_directions(sensitivity, observed=seen[:2])


def test_decoder_collapse_and_jacobian_spectrum(key):
    prior = ngp.VAEPrior(lambda z: jnp.stack([z[0], 2 * z[1], z[0]]), 3, scale=0.1)
    ax = ngp.plots.decoder_collapse(ngp.diagnostics.decoder_collapse(prior, key, num_draws=3))
    assert {text.get_text() for text in ax.get_legend().texts} == {"active: 2", "collapsed: 1"}
    found = ngp.diagnostics.effective_dimension(prior, key, num_draws=3)
    ax = ngp.plots.jacobian_spectrum(found)
    np.testing.assert_allclose(ax.lines[0].get_ydata()[:2], [2, np.sqrt(2)], rtol=1e-5)


def test_lipschitz():
    values = jnp.array([3.0, 1.0, 2.0])
    ax = ngp.plots.lipschitz(ngp.diagnostics.Lipschitz(values, 20.0, "", None))
    curve, largest, bound = ax.lines
    np.testing.assert_allclose(np.unique(curve.get_xdata()), [1, 2, 3])
    np.testing.assert_allclose(np.unique(curve.get_ydata()), [0, 1 / 3, 2 / 3, 1], atol=1e-12)
    assert (largest.get_xdata()[0], bound.get_xdata()[0]) == (3, 20)
    ax = ngp.plots.lipschitz(ngp.diagnostics.Lipschitz(values, np.inf, "exp", None))
    assert "no upper bound (exp)" in [text.get_text() for text in ax.get_legend().texts]


@pytest.mark.parametrize("shape", [(4, 5), (7,), (4, 5, 3), (2, 3, 4, 5)])
def test_event_scale(shape, rng):
    entries, errors = rng.uniform(size=shape), rng.uniform(size=6)
    found = ngp.diagnostics.EventScale(
        0.3, 0.02, entries, errors, rng.normal(size=(6, *shape)), (0.0,) * len(shape), 0.25
    )
    figure = ngp.plots.event_scale(found)
    left, right = figure.axes[:2]
    if len(shape) in (2, 3):
        shown = entries if len(shape) == 2 else np.sqrt(np.mean(entries**2, -1))
        np.testing.assert_allclose(left.images[0].get_array(), shown)
    else:
        np.testing.assert_allclose(left.lines[0].get_ydata(), entries.ravel())
    points, line, own = right.lines
    np.testing.assert_allclose(points.get_ydata(), np.sort(errors))
    assert (line.get_ydata()[0], own.get_ydata()[0]) == (0.3, 0.25)
    figure.canvas.draw()


def test_chain_modes():
    labels = np.array([1, 0, 1])
    separation = np.array([[0.5, 0.99, 0.6], [0.99, 0.5, 1.0], [0.6, 1.0, 0.5]])
    found = ngp.diagnostics.ChainModes(labels, np.array([5.0, 1.0, 6.0]), separation, 2.0)
    ax = ngp.plots.chain_modes(found)
    order = [1, 0, 2]  # by mode, that of the lowest energy first
    np.testing.assert_allclose(ax.images[0].get_array(), separation[np.ix_(order, order)])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "0", "2"]
    squares = [line.get_xydata() for line in ax.lines]
    assert [float(np.ptp(square[:, 0])) for square in squares] == [1.0, 2.0]
    energies = [text.get_text() for text in ax.child_axes[0].get_yticklabels()]
    assert energies == ["energy 1.0", "energy 5.5"]
    assert ax.get_title() == "2 separate modes, r_hat 2"


@pytest.mark.parametrize(
    "name",
    ["sensitivity_spectrum", "latent_shrinkage", "decoder_collapse", "jacobian_spectrum",
     "event_directions", "contraction", "adequacy", "coverage", "sbc_ranks",
     "event_scale", "lipschitz", "chain_modes"],
)  # fmt: skip
def test_another_object_is_refused(name):
    with pytest.raises(TypeError, match=r"Pass ngp\.diagnostics\."):
        getattr(ngp.plots, name)(np.zeros(3))


def test_calibration(rng):
    from numpyro_genprior.diagnostics import SBC, Coverage
    from numpyro_genprior.diagnostics.calibration.convergence import Convergence
    from numpyro_genprior.diagnostics.calibration.ranks import Ranks

    convergence = Convergence(256, 0, 0, 0, 0, 127.0)
    narrow = (rng.beta(0.4, 0.4, 256) * 128).astype(int)
    ranks = np.stack([rng.integers(0, 128, 256), narrow], axis=1)
    found = SBC.from_ranks(Ranks(ranks, 127, convergence), ["good", "narrow"], 0.05)
    ax = ngp.plots.sbc_ranks(found)
    good, bad, _ = ax.lines
    np.testing.assert_allclose(good.get_ydata()[1:-1], found.simultaneous.difference["good"])
    assert (good.get_label(), bad.get_label()) == ("1 that pass", "narrow")
    levels, part = np.array([0.5, 0.9]), {"x": np.array([0.2, 0.5])}
    covered = Coverage(levels, part, {"x": np.full(2, 0.02)}, {}, 50, 127, 0.05, convergence)
    ax = ngp.plots.coverage(covered)
    np.testing.assert_allclose(ax.containers[0].lines[0].get_ydata(), [0.2, 0.5])


def test_contraction():
    from numpyro_genprior.diagnostics import Contraction

    noise, ones = np.array([0.1, 0.01, 0.001]), np.ones((3, 4)) * [1.0, 1.01, 1.02, 1.03]
    zeros = np.zeros(3, int)
    quick = Contraction("noise", noise, 3 * noise[:, None] * ones, 4 * noise[:, None] * ones,
                        zeros, zeros, 0)  # fmt: skip
    slow = Contraction("noise", noise, noise[:, None] ** 0.5 * ones, 0 * ones, zeros, zeros, 0)
    ax = ngp.plots.contraction(quick, theory=0.5)
    radius, error, spread, theory = ax.lines
    rms = np.sqrt(np.mean(ones[0] ** 2))
    np.testing.assert_allclose(radius.get_ydata(), 5 * noise * rms)
    np.testing.assert_allclose(error.get_ydata(), 3 * noise * rms)
    np.testing.assert_allclose(spread.get_ydata(), 4 * noise * rms)
    assert radius.get_label() == "radius, noise$^{1.00}$"
    drawn = theory.get_ydata()
    np.testing.assert_allclose(drawn[1:] / drawn[:-1], 10**-0.5)
    assert ax.get_xlim()[0] > ax.get_xlim()[1]  # less noise to the right
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.1", "0.01", "0.001"]
    given = pyplot.figure().add_subplot()
    assert ngp.plots.contraction({"a": quick, "b": slow}, ax=given) is given
    assert [line.get_label()[0] for line in given.lines] == ["a", "b"]
    np.testing.assert_allclose(given.lines[1].get_ydata(), noise**0.5 * rms)
    given.figure.canvas.draw()
    both = quick.compare(slow).plot()
    assert [line.get_label()[:5] for line in both.lines] == ["first", "secon"]
    ax = ngp.plots.contraction({"a": quick, "b": slow}, theory={"a": 1.0, "b": 0.5})
    labels = [line.get_label() for line in ax.lines[2:]]
    assert labels == ["theory: a, noise$^{1.00}$", "theory: b, noise$^{0.50}$"]


@pytest.mark.parametrize("shape", [(28, 28), (50,), (3, 4, 5), (), (400, 4)])
def test_adequacy(shape, rng):
    from numpyro_genprior.diagnostics import Adequacy

    residual, direction = rng.normal(size=shape), rng.normal(size=shape)
    n = residual.size

    def found(residual, direction, verdict="adequate"):
        return Adequacy(verdict, 1.2 * n, 0.9 * n, 0.3, 0.4, 2.0, 2, 0.4, 0.9, 1.0, 0.4, None,
                        None, residual, direction, {})  # fmt: skip

    figure = ngp.plots.adequacy(found(residual, direction))
    assert figure.get_suptitle() == "Adequate"
    assert figure.axes[1].get_title() == "part that no latent reaches"
    outside = ngp.plots.adequacy(found(residual, direction, "out_of_range"))
    assert outside.axes[1].get_title() == "direction out of range"
    for panel, values in zip(figure.axes, (residual, direction), strict=False):
        image = min(shape, default=0) > 1 and len(shape) == 2
        shown = panel.images[0].get_array() if image else panel.lines[-1].get_ydata()
        np.testing.assert_allclose(shown, values if image else values.ravel())
    figure.canvas.draw()
    given = pyplot.figure().add_subplot()
    several = found({"y": residual, "u": 90 * direction}, {"y": direction, "u": residual})
    assert ngp.plots.adequacy(several, site="u", ax=given) is given
    with pytest.raises(ValueError, match="Pass site='y'"):
        ngp.plots.adequacy(several)
