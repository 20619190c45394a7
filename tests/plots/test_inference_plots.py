"""Plots of the results of `numpyro_genprior.infer`: what is drawn, and what is refused."""

from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot

import numpyro_genprior as ngp
from numpyro_genprior.infer.mgvi import MGVIResult
from numpyro_genprior.infer.mgvi.step import Settings
from numpyro_genprior.infer.smc import SMCResult
from numpyro_genprior.infer.tempering import TemperingReport


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


def tempering_report():
    betas = np.array([[0.0, 0.02, 0.2, 1.0], [0.0, 0.01, 0.3, 1.0]])
    rates, ones = np.array([[0.6, 0.7, 0.5], [0.5, 0.6, 0.7]]), np.ones(2)
    return TemperingReport(
        num_iterations=100,
        betas=betas,
        swap_rates=rates,
        acceptance=rates + 0.2,
        step_sizes=rates,
        barriers=(1 - rates).sum(1),
        restarts=20 * ones,
        round_trips=20 * ones,
        log_evidences=-ones,
        log_evidence_errors=0.1 * ones,
        nonfinite=0 * ones,
    )


def test_tempering():
    report = tempering_report()
    ax = report.plot()
    lines = ax.get_lines()
    assert len(lines) == 4  # swaps and local moves of two ensembles
    np.testing.assert_array_equal(lines[0].get_ydata(), report.swap_rates[0])
    np.testing.assert_array_equal(lines[3].get_xdata(), report.betas[1, 1:])
    assert report.plot(ax) is ax


def smc_result():
    stages = np.array([0.1, 0.5, 0.6])
    return SMCResult(
        log_evidence=-1.0,
        log_evidence_error=0.1,
        temperatures=np.array([0.0, 0.05, 0.3, 1.0]),
        effective_sample_size=100 * stages,
        acceptance=stages,
        num_moves=stages,
        num_leapfrogs=stages,
        correlation=stages,
        num_ancestors=50,
        warnings=(),
        xi=jnp.zeros((200, 2)),
        posterior=cast("Any", None),
    )


def test_smc():
    result = smc_result()
    ax = result.plot()
    share, acceptance = ax.get_lines()
    np.testing.assert_array_equal(share.get_xdata(), [0.05, 0.3, 1.0])
    np.testing.assert_allclose(share.get_ydata(), [0.05, 0.25, 0.3])
    np.testing.assert_array_equal(acceptance.get_ydata(), result.acceptance)
    assert result.plot(ax) is ax


def mgvi_result():
    steps = np.array([3.0, 0.5, 0.1])
    return MGVIResult(
        xi=jnp.zeros(4),
        kl_before=steps + 10,
        kl=steps,
        moved=steps,
        sampling_iterations=np.ones((3, 2), int),
        newton_steps=np.ones(3, int),
        newton_iterations=np.ones(3, int),
        stopped_early=np.zeros(3, int),
        decrement=steps / 100,
        warnings=(),
        posterior=cast("Any", None),
        settings=Settings(),
    )


def test_mgvi():
    result = mgvi_result()
    ax = result.plot()
    moved, newton, _ = ax.get_lines()
    np.testing.assert_array_equal(moved.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(moved.get_ydata(), result.moved)
    np.testing.assert_array_equal(newton.get_ydata(), result.decrement)
    assert result.plot(ax) is ax


@pytest.mark.parametrize(
    ("plot", "match"),
    [
        (ngp.plots.tempering, r"ngp\.infer\.ParallelTempering\.report\(mcmc\)"),
        (ngp.plots.mgvi, r"ngp\.infer\.MGVI\(model\)\.run"),
        (ngp.plots.smc, r"ngp\.infer\.SMC\(model\)\.run"),
    ],
)
def test_other_objects_are_refused(plot, match):
    with pytest.raises(TypeError, match=match):
        plot(3)
