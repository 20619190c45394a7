"""Ranks of the truths among posterior draws, thinned until these are nearly independent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from numpyro_genprior.diagnostics.calibration.convergence import (
    MAX_SHORT_SHARE,
    Convergence,
    effective_draws,
    unmixed,
)
from numpyro_genprior.diagnostics.calibration.experiment import Batch
from numpyro_genprior.diagnostics.calibration.inference import MAX_RANKED_DRAWS, MIN_DRAWS
from numpyro_genprior.errors import message
from numpyro_genprior.infer.methods import Method


@dataclass(frozen=True)
class Ranks:
    """Ranks of the truths of all replications.

    Attributes
    ----------
    ranks
        Of shape ``(replications, quantities)``, from 0 to `num_draws`; of the replications whose
        draws are finite.
    num_draws
        Number of draws that each truth was ranked among.
    convergence
        Convergence of the inference runs.
    """

    ranks: Int[np.ndarray, "replications quantities"]
    num_draws: int
    convergence: Convergence


def rank(
    values: Float[np.ndarray, "*batch draws quantities"],
    truth: Float[np.ndarray, "*batch quantities"],
    uniform: Float[np.ndarray, "*batch quantities"],
) -> Int[np.ndarray, "*batch quantities"]:
    """How many draws are below the truth, ties broken at random by numbers uniform on [0, 1)."""
    below = (values < truth[..., None, :]).sum(-2)
    ties = (values == truth[..., None, :]).sum(-2)
    return below + np.floor(uniform * (ties + 1)).astype(int)


def rank_truths(
    batches: Iterable[Batch],
    truth: Float[np.ndarray, "replications quantities"],
    method: Method,
    *,
    name: str,
) -> Ranks:
    """Rank the truths among evenly spaced draws.

    Independent draws all count. Draws of chains are thinned evenly to 127 and then, if needed, to
    63, 31 or 15, until nine in ten replications have that many effective draws of every quantity.

    Parameters
    ----------
    batches
        Draws of the quantities.
    truth
        True values of the quantities.
    method
        The method of inference that made the draws.
    name
        Name of the diagnostic, for the message.

    Raises
    ------
    ValueError
        If no replication has finite draws.
    """
    rng = np.random.default_rng(0)
    sizes = _numbers_of_draws(method)
    ranks, ess, finite, diverging, is_unmixed = [], [], [], [], []
    for batch in batches:
        true = truth[batch.rows]
        flat = batch.values.reshape(len(true), -1, batch.values.shape[-1])
        ranks_by_size = []
        for size in sizes:
            kept = np.linspace(0, flat.shape[1] - 1, size).round().astype(int)
            ranks_by_size.append(rank(flat[:, kept], true, rng.uniform(size=true.shape)))
        ranks.append(np.stack(ranks_by_size, axis=1))
        finite.append(np.isfinite(flat).all((1, 2)) & np.isfinite(true).all(1))
        diverging.append(batch.num_divergences > 0)
        if not method.independent:
            ess.append(effective_draws(batch.values, true))
            is_unmixed.append(unmixed(batch.values))
    is_finite = np.concatenate(finite)
    if not is_finite.any():
        raise ValueError(
            message(
                f"{name}: no replication has finite draws",
                remedy="run the method once on simulated data and inspect the draws",
            )
        )
    choice, num_short, num_unmixed, median_ess = 0, 0, 0, float(sizes[0])
    if not method.independent:
        effective = np.concatenate(ess)[is_finite]
        short = np.array([(effective < size).mean(0).max() for size in sizes])
        enough = np.flatnonzero(short <= MAX_SHORT_SHARE)
        choice = int(enough[0]) if len(enough) else len(sizes) - 1
        num_short = int((effective < sizes[choice]).sum(0).max())
        num_unmixed = int((np.concatenate(is_unmixed) & is_finite).sum())
        median_ess = float(np.median(effective.min(1)))
    convergence = Convergence(
        num_replications=len(is_finite),
        num_nonfinite=int((~is_finite).sum()),
        num_diverging=int(np.concatenate(diverging).sum()),
        num_unmixed=num_unmixed,
        num_short=num_short,
        ess=median_ess,
    )
    return Ranks(np.concatenate(ranks)[is_finite, choice], sizes[choice], convergence)


def _numbers_of_draws(method: Method) -> list[int]:
    """Numbers of draws to rank among, the largest first: 127, 63, 31, 15 for chains."""
    sizes = [min(MAX_RANKED_DRAWS, method.num_draws)]
    while not method.independent and (smaller := (sizes[-1] + 1) // 2 - 1) >= MIN_DRAWS:
        sizes.append(smaller)
    return sizes


def jittered(
    ranks: Int[np.ndarray, "*shape"], num_draws: int, *, seed: int = 1
) -> Float[np.ndarray, "*shape"]:
    """Ranks as probability integral transforms in [0, 1], jittered within each rank.

    They are uniform on [0, 1] if the ranks are uniform on ``0 .. num_draws``.
    """
    uniform = np.random.default_rng(seed).uniform(size=ranks.shape)
    return (ranks + uniform) / (num_draws + 1)
