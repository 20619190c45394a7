"""What chains say of themselves: how many replications had trouble."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

UNMIXED = 1.1  # split r_hat above which a chain has not mixed


@dataclass(frozen=True)
class Health:
    """What went wrong in how many replications.

    Attributes
    ----------
    num_replications
        Of them, all.
    num_nonfinite
        With draws that are not finite; these are left out.
    num_diverging
        With a divergent transition.
    num_unmixed
        With a split r_hat above 1.1 for some quantity.
    num_short
        With fewer effective draws than ranks, for the quantity that has the fewest.
    ess
        Median over replications of the least effective number of draws of a quantity.
    """

    num_replications: int
    num_nonfinite: int
    num_diverging: int
    num_unmixed: int
    num_short: int
    ess: float

    @property
    def sound(self) -> bool:
        """Whether at most a twentieth of the replications failed, and a tenth ran short."""
        failed = max(self.num_nonfinite, self.num_unmixed)
        most = self.num_replications
        return failed <= 0.05 * most and self.num_short <= 0.1 * most

    def lines(self, num_draws: int) -> list[str]:
        """What to say of it; nothing when all is well."""
        said = [
            (self.num_nonfinite, "not finite, and left out"),
            (self.num_diverging, "with divergences"),
            (self.num_unmixed, f"with split r_hat above {UNMIXED:g}"),
            (
                self.num_short,
                f"with fewer than {num_draws} effective draws of the slowest quantity",
            ),
        ]
        parts = [f"{count} {what}" for count, what in said if count]
        if not parts:
            return []
        lines = [f"  trouble in some of {self.num_replications} replications: {'; '.join(parts)}"]
        if not self.sound and (self.num_unmixed or self.num_short):
            lines.append(
                "  chains that are too short look like a wrong posterior: raise num_warmup and "
                "num_samples before you blame the model or the method"
            )
        return lines


def effective(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Effective sample sizes by Geyer's sequence, of shape ``(data sets, quantities)``.

    A quantity constant at the truth gets the number of draws; one constant elsewhere gets 1.

    Parameters
    ----------
    values
        Draws, of shape ``(data sets, chains, draws, quantities)``.
    truth
        Of shape ``(data sets, quantities)``.
    """
    number, chains, draws, size = values.shape
    total = chains * draws
    with np.errstate(all="ignore"):
        ess = np.asarray(effective_sample_size(_chains_first(values))).reshape(number, size)
    first = values[:, 0, 0]
    still = (values == first[:, None, None]).all((1, 2))
    constant = np.where(first == truth, total, 1)
    return np.where(still, constant, np.clip(np.nan_to_num(ess, nan=1.0), 1, total))


def unmixed(values: np.ndarray) -> np.ndarray:
    """For each data set, whether split r_hat is above 1.1 for some quantity.

    `values` has shape ``(data sets, chains, draws, quantities)``.
    """
    with np.errstate(all="ignore"):
        r_hat = np.asarray(split_gelman_rubin(_chains_first(values)))
    r_hat = r_hat.reshape(values.shape[0], values.shape[-1])
    return np.any(np.nan_to_num(r_hat, nan=1.0) > UNMIXED, axis=1)


def _chains_first(values: np.ndarray) -> np.ndarray:
    number, chains, draws, size = values.shape
    return np.asarray(values, float).transpose(1, 2, 0, 3).reshape(chains, draws, number * size)
