"""Ranks of truths among the draws of many data sets, thinned until they are nearly independent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from numpyro_genprior.diagnostics.calibration.convergence import Health, effective, unmixed
from numpyro_genprior.diagnostics.calibration.experiment import Batch
from numpyro_genprior.diagnostics.calibration.inference import MAX_RANKED_DRAWS, MIN_DRAWS, Method
from numpyro_genprior.diagnostics.calibration.ranks import rank
from numpyro_genprior.errors import message

SHORT = 0.1  # share of replications that may have fewer effective draws than ranks


@dataclass(frozen=True)
class Ranked:
    """Ranks, and how the runs went.

    Attributes
    ----------
    ranks
        Of shape ``(replications, quantities)``, from 0 to `num_draws`; those with finite draws.
    num_draws
        Draws that each truth was ranked among.
    health
        What went wrong.
    """

    ranks: np.ndarray
    num_draws: int
    health: Health

    def uniform(self, seed: int = 1) -> np.ndarray:
        """Ranks as numbers between 0 and 1, uniform when the ranks are: jittered within a rank."""
        chance = np.random.default_rng(seed).uniform(size=self.ranks.shape)
        return (self.ranks + chance) / (self.num_draws + 1)


def ranked(batches: Iterable[Batch], truth: np.ndarray, method: Method, *, name: str) -> Ranked:
    """Rank the truths among evenly spaced draws.

    Of independent draws all count. Of a chain, as many as possible of `num_draws`, half of that, a
    quarter of it ... such that nine in ten replications have that many effective draws of every
    quantity.

    Raises
    ------
    ValueError
        When no replication has finite draws; `name` is the diagnostic's, for the message.
    """
    rng, independent = np.random.default_rng(0), method.independent
    num_draws = min(MAX_RANKED_DRAWS, method.num_draws)
    ladder = [num_draws]
    while not independent and (ladder[-1] + 1) // 2 - 1 >= MIN_DRAWS:
        ladder.append((ladder[-1] + 1) // 2 - 1)
    ranks, ess, bad, diverging, mixed = [], [], [], [], []
    for batch in batches:
        values, at = batch.values.reshape(len(batch.rows), -1, truth.shape[1]), truth[batch.rows]
        rungs = []
        for rung in ladder:
            kept = np.linspace(0, values.shape[1] - 1, rung).round().astype(int)
            rungs.append(rank(values[:, kept], at, rng.uniform(size=at.shape)))
        ranks.append(np.stack(rungs, axis=1))
        bad.append(~np.isfinite(values).all((1, 2)) | ~np.isfinite(at).all(1))
        diverging.append(batch.num_divergences > 0)
        if not independent:
            ess.append(effective(batch.values, at))
            mixed.append(unmixed(batch.values))
    finite = ~np.concatenate(bad)
    every = np.concatenate(ranks)
    if not finite.any():
        raise ValueError(
            message(
                f"{name}: no replication has finite draws",
                remedy="run the method once on simulated data and look at it",
            )
        )
    choice, num_short, least = 0, 0, float(num_draws)
    if not independent:
        sizes = np.concatenate(ess)[finite]
        share = [(sizes < rung).mean(0).max() for rung in ladder]
        choice = next((i for i, s in enumerate(share) if s <= SHORT), len(ladder) - 1)
        num_short = int((sizes < ladder[choice]).sum(0).max())
        least = float(np.median(sizes.min(1)))
    health = Health(
        num_replications=len(finite),
        num_nonfinite=int((~finite).sum()),
        num_diverging=int(np.concatenate(diverging).sum()),
        num_unmixed=int((np.concatenate(mixed) & finite).sum()) if mixed else 0,
        num_short=num_short,
        ess=least,
    )
    return Ranked(every[finite, choice], ladder[choice], health)
