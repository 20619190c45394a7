"""`TemperingReport`: swap rates, round trips and the evidence of a run of `ParallelTempering`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np

from numpyro_genprior.errors import message
from numpyro_genprior.infer.tempering.accumulators import log_evidence
from numpyro_genprior.results import Result, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from numpyro_genprior.infer.tempering.kernel import TemperingState

MIN_ROUND_TRIPS = 10  # of an ensemble; with fewer, the weights of modes are unreliable
MAX_MEAN_REJECTION = 0.6  # of swaps
MIN_ACCEPTANCE = 0.5  # mean, of local moves
MIN_ENSEMBLES = 4  # to estimate the error of the evidence from the spread between ensembles


@dataclass(frozen=True, repr=False, eq=False)
class TemperingReport(Result):
    """Findings on the sampling phase of `ParallelTempering`, for c ensembles of n replicas.

    Attributes
    ----------
    num_iterations
        Number of iterations after warm-up, thinned ones included.
    betas
        Inverse temperatures, of shape ``(c, n)``.
    swap_rates
        Mean acceptance of swaps between neighbours, of shape ``(c, n - 1)``. Equal rates mean that
        the schedule is well adapted.
    acceptance, step_sizes
        Mean acceptance probabilities and step sizes of the local moves, of shape ``(c, n - 1)``.
    barriers
        Communication barrier of each ensemble, the sum of the rejections, of shape ``(c,)``.
    restarts
        How often a replica went from the prior to the posterior, ``(c,)``: each such journey
        brought an independent draw.
    round_trips
        How often a replica went from the prior to the posterior and back, ``(c,)``.
    log_evidences, log_evidence_errors
        Log evidence by each ensemble, and its standard error, ``(c,)``.
    nonfinite
        Number of log likelihoods that were NaN or +∞, ``(c,)``.

    Notes
    -----
    **Fails when** no replica ever reached some mode: nothing in the report then shows it.
    """

    num_iterations: int
    betas: np.ndarray
    swap_rates: np.ndarray
    acceptance: np.ndarray
    step_sizes: np.ndarray
    barriers: np.ndarray
    restarts: np.ndarray
    round_trips: np.ndarray
    log_evidences: np.ndarray
    log_evidence_errors: np.ndarray
    nonfinite: np.ndarray

    @property
    def barrier(self) -> float:
        """Mean communication barrier."""
        return float(self.barriers.mean())

    @property
    def recommended_replicas(self) -> int:
        """Number of replicas with which about half of the swaps are accepted, ``2 Λ + 1``."""
        return math.ceil(2 * self.barrier) + 1

    @property
    def ideal_round_trips(self) -> float:
        """Round trips of an ensemble if local moves forgot the past between any two swaps."""
        rejection = np.minimum(1 - self.swap_rates, 1 - 1e-6)
        rates = 1 / (2 + 2 * (rejection / (1 - rejection)).sum(axis=1))
        return float(self.num_iterations * rates.mean())

    @property
    def log_evidence(self) -> float:
        """Mean of the ensembles' log evidences."""
        return float(self.log_evidences.mean())

    @property
    def log_evidence_error(self) -> float:
        """Standard error of `log_evidence`: within or between ensembles, whichever is larger."""
        count = len(self.log_evidences)
        within = float(np.sqrt(np.sum(self.log_evidence_errors**2)) / count)
        if count < MIN_ENSEMBLES:
            return within
        return max(within, float(self.log_evidences.std(ddof=1)) / math.sqrt(count))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the draws or the evidence, one sentence each."""
        found = []
        n = self.betas.shape[1]
        if self.barrier > MAX_MEAN_REJECTION * (n - 1):
            found.append(
                f"{n} replicas are few for a barrier of {self.barrier:.1f}: "
                f"pass num_replicas={self.recommended_replicas}."
            )
        if self.round_trips.min() < MIN_ROUND_TRIPS:
            found.append(
                f"An ensemble made {self.round_trips.min()} round trips, too few to trust the "
                "weights of modes. Run longer, with more warm-up or with more replicas."
            )
        if self.acceptance.min() < MIN_ACCEPTANCE:
            found.append(
                f"Local moves are accepted with probability {self.acceptance.min():.2f} at some "
                "temperature: warm up for longer."
            )
        if self.nonfinite.sum():
            found.append(
                f"{self.nonfinite.sum()} log likelihoods were NaN or infinite and were rejected: "
                "look for parameters of the model whose likelihood overflows."
            )
        return tuple(found)

    def __str__(self) -> str:
        count, n = self.betas.shape
        lines = [
            f"Parallel tempering: {count} ensemble{'s' if count > 1 else ''} of {n} replicas, "
            f"{self.num_iterations} iterations.",
            f"Communication barrier {self.barrier:.1f}; swaps accepted "
            f"{self.swap_rates.mean():.0%} ({self.swap_rates.min():.0%} to "
            f"{self.swap_rates.max():.0%}); local moves accepted {self.acceptance.mean():.0%}.",
            f"Round trips {', '.join(map(str, self.round_trips))} (at best "
            f"{self.ideal_round_trips:.0f}); prior draws that reached the posterior "
            f"{', '.join(map(str, self.restarts))}.",
            f"Log evidence {self.log_evidence:.2f} ± {self.log_evidence_error:.2f}.",
        ]
        lines += [f"Warning: {text}" for text in self.warnings]
        return "\n".join(lines)

    def __repr__(self) -> str:
        count, n = self.betas.shape
        return (
            f"TemperingReport({count} x {n} replicas, barrier {self.barrier:.1f}, "
            f"log evidence {self.log_evidence:.2f} ± {self.log_evidence_error:.2f})"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Acceptance of swaps and of local moves by inverse temperature.

        See `numpyro_genprior.plots.tempering`.
        """
        from numpyro_genprior.plots import tempering

        return tempering(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """The numbers as an `xarray.Dataset` with dimensions ``chain``, ``replica`` and ``pair``.

        Pair i is that of replicas i and i + 1; the local moves at ``pair`` i are those of replica
        i + 1.
        """
        by_pair, by_chain = ("chain", "pair"), ("chain",)
        return dataset(
            {
                "beta": (("chain", "replica"), self.betas),
                "swap_rate": (by_pair, self.swap_rates),
                "acceptance": (by_pair, self.acceptance),
                "step_size": (by_pair, self.step_sizes),
                "barrier": (by_chain, self.barriers),
                "restarts": (by_chain, self.restarts),
                "round_trips": (by_chain, self.round_trips),
                "log_evidence": (by_chain, self.log_evidences),
                "log_evidence_error": (by_chain, self.log_evidence_errors),
                "nonfinite": (by_chain, self.nonfinite),
            },
            attrs={"num_iterations": self.num_iterations},
        )


def read_report(state: TemperingState | None) -> TemperingReport:
    """The report of a state, with or without a leading dimension of chains.

    Raises
    ------
    ValueError
        If nothing has been sampled.
    """
    if state is not None and np.ndim(state.i) == 0:
        state = jax.tree.map(lambda x: x[None], state)
    if state is None or np.any(state.i <= state.num_warmup):
        raise ValueError(
            message("There are no draws to report on", remedy="call mcmc.run before the report")
        )
    sums = state.accumulators
    count = np.asarray(sums.count)[:, None]
    evidences, errors = map(np.asarray, jax.vmap(log_evidence)(sums))
    rejection = np.asarray(sums.rejection) / count
    return TemperingReport(
        num_iterations=int(count[0, 0]),
        betas=np.asarray(state.betas),
        swap_rates=1 - rejection,
        acceptance=np.asarray(sums.acceptance) / count,
        step_sizes=np.asarray(state.step_size),
        barriers=rejection.sum(axis=1),
        restarts=np.asarray(sums.restarts),
        round_trips=np.asarray(sums.round_trips),
        log_evidences=evidences,
        log_evidence_errors=errors,
        nonfinite=np.asarray(sums.nonfinite),
    )
