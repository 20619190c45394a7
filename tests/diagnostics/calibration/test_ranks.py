"""Ranks of truths among draws, the tests of their uniformity, and the thinning of chains."""

import numpy as np
import pytest
from numpyro.infer import NUTS
from scipy import stats

from numpyro_genprior.diagnostics.calibration.convergence import effective_draws, unmixed
from numpyro_genprior.diagnostics.calibration.experiment import Batch
from numpyro_genprior.diagnostics.calibration.ranks import jittered, rank, rank_truths
from numpyro_genprior.diagnostics.calibration.uniformity_test import (
    chi_squared,
    simultaneous_bands,
)
from numpyro_genprior.diagnostics.multiple_testing import holm
from numpyro_genprior.infer import MCMCMethod


@pytest.mark.parametrize(("replications", "draws"), [(64, 63), (200, 15)])
def test_tests_of_uniform_ranks_have_their_level(rng, replications, draws):
    sets = {str(i): rng.integers(0, draws + 1, replications) for i in range(800)}
    found = simultaneous_bands(sets, draws, 0.1)
    rate = np.array(
        [
            np.mean(list(found.outside.values())),
            np.mean([p <= 0.1 for p in found.p_values.values()]),
            np.mean([chi_squared(r, draws) <= 0.1 for r in sets.values()]),
        ]
    )
    assert np.abs(rate - 0.1).max() < 4 * np.sqrt(0.1 * 0.9 / 800) + 0.005  # discrete
    leaves = [
        bool(((d < found.lower - 1e-9) | (d > found.upper + 1e-9)).any())
        for d in found.difference.values()
    ]
    assert leaves == list(found.outside.values())


def test_ties_are_broken_at_random(rng):
    values = np.array([0.0, 1.0, 1.0, 1.0, 2.0])[None, :, None] * np.ones((4000, 1, 1))
    ranks = rank(values, np.ones((4000, 1)), rng.uniform(size=(4000, 1)))[:, 0]
    assert np.abs(np.bincount(ranks, minlength=6)[1:5] / 1000 - 1).max() < 0.12
    assert set(ranks) == {1, 2, 3, 4}


def test_holm():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.9])), [0.04, 0.09, 0.09, 0.9])


def test_chains_are_thinned_to_what_their_effective_draws_allow(rng):
    """An autoregression with coefficient 0.9 has an effective draw in 19."""
    step, chains = rng.normal(size=(80, 1, 1024, 1)), np.zeros((80, 1, 1024, 1))
    chains[:, :, 0] = step[:, :, 0]
    for t in range(1, 1024):
        chains[:, :, t] = 0.9 * chains[:, :, t - 1] + np.sqrt(1 - 0.81) * step[:, :, t]
    truth = rng.normal(size=(80, 1))
    assert abs(np.median(effective_draws(chains, truth)) / (1024 / 19) - 1) < 0.25
    chains[3, 0, 5] = np.nan
    batches = [Batch(np.arange(40), chains[:40], np.zeros(40, int))]
    batches.append(Batch(np.arange(40, 80), chains[40:], np.ones(40, int)))
    found = rank_truths(batches, truth, MCMCMethod(NUTS, num_samples=1024), name="sbc")
    assert found.num_draws == 31
    assert found.ranks.shape == (79, 1)
    assert (found.convergence.num_nonfinite, found.convergence.num_diverging) == (1, 40)
    assert stats.kstest(jittered(found.ranks, 31)[:, 0], "uniform").pvalue > 0.01


def test_chains_in_different_modes_have_not_mixed(rng):
    """Each chain alone has a split r_hat near 1; together they do not."""
    values = rng.normal(size=(5, 2, 400, 1))
    assert not unmixed(values).any()
    values[3, 1] += 3.0
    assert unmixed(values).tolist() == [False, False, False, True, False]
    truth = np.zeros((5, 1))
    ess = effective_draws(values, truth)[:, 0]
    assert ess[3] < 10
    assert np.all(np.abs(np.delete(ess, 3) / 800 - 1) < 0.5)
