"""Convergence of the inference runs: the number of replications in which it is in doubt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

MAX_R_HAT = 1.1  # split r_hat above which chains have not mixed
MAX_FAILED_SHARE = 0.05  # of replications whose draws are not finite or whose chains did not mix
MAX_SHORT_SHARE = 0.1  # of replications with fewer effective draws than ranks


@dataclass(frozen=True)
class Convergence:
    """Convergence of the inference runs of all replications.

    Attributes
    ----------
    num_replications
        Number of replications.
    num_nonfinite
        How many had draws that were not finite; they are left out of the result.
    num_diverging
        How many had a divergent transition.
    num_unmixed
        How many had a split r_hat above 1.1 for some quantity.
    num_short
        How many had fewer effective draws than ranks, for the quantity that had the fewest.
    ess
        Median over replications of the smallest effective sample size of a quantity.
    """

    num_replications: int
    num_nonfinite: int
    num_diverging: int
    num_unmixed: int
    num_short: int
    ess: float

    @property
    def acceptable(self) -> bool:
        """Whether at most 5 % of the replications failed and at most 10 % were too short."""
        failed = max(self.num_nonfinite, self.num_unmixed)
        return (
            failed <= MAX_FAILED_SHARE * self.num_replications
            and self.num_short <= MAX_SHORT_SHARE * self.num_replications
        )

    def warnings(self, num_draws: int) -> tuple[str, ...]:
        """Reasons to doubt the runs, one sentence each.

        `num_draws` is the number of draws that each truth was ranked among.
        """
        counts = {
            "had draws that are not finite, and are left out": self.num_nonfinite,
            "had divergent transitions": self.num_diverging,
            f"had a split r_hat above {MAX_R_HAT:g}": self.num_unmixed,
            f"had fewer than {num_draws} effective draws of the slowest quantity": self.num_short,
        }
        sentences = [
            f"{count} of {self.num_replications} replications {what}."
            for what, count in counts.items()
            if count
        ]
        if not self.acceptable and (self.num_unmixed or self.num_short):
            sentences.append(
                "Chains that are too short look like a wrong posterior: raise num_warmup and "
                "num_samples before you blame the model or the method."
            )
        return tuple(sentences)


def effective_draws(
    values: Float[np.ndarray, "datasets chains draws quantities"],
    truth: Float[np.ndarray, "datasets quantities"],
) -> Float[np.ndarray, "datasets quantities"]:
    """Effective sample sizes, by Geyer's initial monotone sequence over all chains.

    A quantity constant at the truth gets the number of draws; one constant elsewhere gets 1.
    """
    datasets, chains, draws, size = values.shape
    with np.errstate(all="ignore"):
        ess = np.asarray(effective_sample_size(_chains_first(values))).reshape(datasets, size)
    first = values[:, 0, 0]
    constant = (values == first[:, None, None]).all((1, 2))
    ess = np.clip(np.nan_to_num(ess, nan=1.0), 1, chains * draws)
    return np.where(constant, np.where(first == truth, chains * draws, 1), ess)


def unmixed(
    values: Float[np.ndarray, "datasets chains draws quantities"],
) -> Bool[np.ndarray, " datasets"]:
    """For each data set, whether split r_hat is above 1.1 for some quantity."""
    with np.errstate(all="ignore"):
        r_hat = np.asarray(split_gelman_rubin(_chains_first(values)))
    r_hat = r_hat.reshape(values.shape[0], values.shape[-1])
    return np.any(np.nan_to_num(r_hat, nan=1.0) > MAX_R_HAT, axis=1)


def _chains_first(values: np.ndarray) -> np.ndarray:
    datasets, chains, draws, size = values.shape
    return np.asarray(values, float).transpose(1, 2, 0, 3).reshape(chains, draws, datasets * size)
