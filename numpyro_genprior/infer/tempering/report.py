"""`TemperingReport`: what an ensemble of replicas says of itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from numpyro_genprior.errors import message
from numpyro_genprior.infer.tempering.accumulators import log_evidence

FEW = 10  # round trips of an ensemble, below which modes have hardly been compared
MANY = 0.6  # mean rejection of swaps
LOW = 0.5  # mean acceptance of local moves


@dataclass(frozen=True)
class TemperingReport:
    """Findings on the sampling phase of `ParallelTempering`, for c ensembles of n replicas.

    Attributes
    ----------
    num_rounds
        Rounds of sampling, thinned ones included.
    betas
        Inverse temperatures, of shape ``(c, n)``.
    swap_rates
        Mean acceptance of swaps between neighbours, of shape ``(c, n - 1)``. Equal rates mean that
        the schedule has been adapted.
    acceptance, step_sizes
        Mean acceptance probabilities and step sizes of the local moves, ``(c, n - 1)``.
    barriers
        Communication barrier of each ensemble, the sum of the rejections: ``(c,)``.
    restarts
        Journeys from the prior to the posterior, ``(c,)``: each has brought an independent draw.
    round_trips
        Journeys from the prior to the posterior and back, ``(c,)``.
    log_evidences, log_evidence_errors
        Of each ensemble, ``(c,)``.
    nonfinite
        Number of log likelihoods that were NaN or +∞, ``(c,)``.
    """

    num_rounds: int
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
    def wanted_replicas(self) -> int:
        """Replicas at which about half of the swaps are accepted: twice the barrier, and one."""
        return math.ceil(2 * self.barrier) + 1

    @property
    def best_round_trips(self) -> float:
        """Round trips of an ensemble, had the replicas forgotten their past between swaps."""
        rejection = np.minimum(1 - self.swap_rates, 1 - 1e-6)
        rates = 1 / (2 + 2 * (rejection / (1 - rejection)).sum(axis=1))
        return float(self.num_rounds * rates.mean())

    @property
    def log_evidence(self) -> float:
        """Mean of the ensembles' log evidences."""
        return float(self.log_evidences.mean())

    @property
    def log_evidence_error(self) -> float:
        """Its standard error: within ensembles, or between them, whichever is larger."""
        count = len(self.log_evidences)
        within = float(np.sqrt(np.sum(self.log_evidence_errors**2)) / count)
        if count < 4:  # too few to tell a spread
            return within
        return max(within, float(self.log_evidences.std(ddof=1)) / math.sqrt(count))

    @property
    def warnings(self) -> list[str]:
        """What stands against trusting the draws, in words; empty when nothing does."""
        found = []
        n = self.betas.shape[1]
        if self.barrier > MANY * (n - 1):
            found.append(
                f"{n} replicas are few for a barrier of {self.barrier:.1f}: "
                f"give num_replicas={self.wanted_replicas}."
            )
        if self.round_trips.min() < FEW:
            found.append(
                f"An ensemble made {self.round_trips.min()} round trips: shares of modes are not "
                "to be trusted. Run longer, with more warm-up or with more replicas."
            )
        if self.acceptance.min() < LOW:
            found.append(
                f"Local moves are accepted with probability {self.acceptance.min():.2f} at some "
                "temperature: warm up for longer."
            )
        if self.nonfinite.sum():
            found.append(
                f"{self.nonfinite.sum()} log likelihoods were no numbers and were rejected: find "
                "out where the model gives NaN or infinity."
            )
        return found

    def __str__(self) -> str:
        count, n = self.betas.shape
        lines = [
            f"Parallel tempering: {count} ensemble{'s' if count > 1 else ''} of {n} replicas, "
            f"{self.num_rounds} rounds.",
            f"Communication barrier {self.barrier:.1f}; swaps accepted "
            f"{self.swap_rates.mean():.0%} ({self.swap_rates.min():.0%} to "
            f"{self.swap_rates.max():.0%}); local moves {self.acceptance.mean():.0%}.",
            f"Round trips {', '.join(map(str, self.round_trips))} (at best "
            f"{self.best_round_trips:.0f}); draws of the prior that reached the posterior "
            f"{', '.join(map(str, self.restarts))}.",
            f"Log evidence {self.log_evidence:.2f} ± {self.log_evidence_error:.2f}.",
        ]
        lines += [f"Warning: {text}" for text in self.warnings]
        return "\n".join(lines)


def read_report(state: Any) -> TemperingReport:
    """The report of a state, with or without a leading dimension of chains.

    Raises
    ------
    ValueError
        When nothing has been sampled.
    """
    if state is not None and np.ndim(state.i) == 0:
        state = jax.tree.map(lambda x: x[None], state)
    if state is None or np.any(state.i <= state.num_warmup):
        raise ValueError(
            message("There are no draws to report on", remedy="call mcmc.run before the report")
        )
    tally = state.tally
    count = np.asarray(tally.count)[:, None]
    evidence, error = map(np.asarray, jax.vmap(log_evidence)(tally))
    rejection = np.asarray(tally.rejection) / count
    return TemperingReport(
        num_rounds=int(count[0, 0]),
        betas=np.asarray(state.betas),
        swap_rates=1 - rejection,
        acceptance=np.asarray(tally.acceptance) / count,
        step_sizes=np.asarray(state.step_size),
        barriers=rejection.sum(axis=1),
        restarts=np.asarray(tally.restarts),
        round_trips=np.asarray(tally.round_trips),
        log_evidences=evidence,
        log_evidence_errors=error,
        nonfinite=np.asarray(tally.nonfinite),
    )
