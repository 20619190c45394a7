"""`SMCResult`: draws, evidence and the history of the stages of a run of `SMC`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np

from numpyro_genprior.infer.host_batching import host_values
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.infer.smc.state import ParticleState, Settings, Stage
from numpyro_genprior.results import Result, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

MIN_ANCESTORS = 10
MIN_ACCEPTANCE = 0.1
MAX_ERROR = 0.5  # of the log evidence, nats
HISTORY = (
    "effective_sample_size",
    "acceptance",
    "num_moves",
    "num_leapfrogs",
    "correlation",
)


@dataclass(frozen=True, repr=False, eq=False)
class SMCResult(Result):
    """Draws, evidence and history of a run of `SMC`.

    Attributes
    ----------
    log_evidence
        Estimate of ``log p(y)``, natural logarithm. Its exponential is unbiased if the
        temperatures are fixed, and consistent with adaptive ones, as here.
    log_evidence_error
        Standard error of `log_evidence` over repeated runs, from the ancestry of the particles
        (Lee and Whiteley 2018). It is itself an estimate, and a rough one if `num_ancestors` is
        small.
    temperatures
        Exponents β of the likelihood, from 0 to 1, of shape ``(stages + 1,)``.
    effective_sample_size, acceptance, num_moves, num_leapfrogs, correlation
        For each stage, of shape ``(stages,)``: effective sample size of the weights; mean
        acceptance of the last move; number of moves of each particle; leapfrog steps of these
        together (HMC); and the correlation, 0 to 1, between the particles before and after the
        moves. A high correlation is expected if modes are separate: particles then stay in their
        modes, whose weights resampling has set.
    num_ancestors
        Number of draws from the prior that have descendants in the end.
    warnings
        Reasons to doubt the result, one sentence each.
    xi
        Coordinates of the draws, of shape ``(num_particles, size)``.
    posterior
        The model and its arguments.

    Notes
    -----
    **Fails when** a mode was never reached, which `warnings` does not detect: see `SMC`.
    """

    log_evidence: float
    log_evidence_error: float
    temperatures: np.ndarray
    effective_sample_size: np.ndarray
    acceptance: np.ndarray
    num_moves: np.ndarray
    num_leapfrogs: np.ndarray
    correlation: np.ndarray
    num_ancestors: int
    warnings: tuple[str, ...]
    xi: jax.Array
    posterior: Posterior

    @property
    def num_particles(self) -> int:
        """Number of draws."""
        return self.xi.shape[0]

    def get_samples(self) -> dict[str, np.ndarray]:
        """Draws from the posterior, of equal weight, by site.

        Returns
        -------
        dict
            All sites of the model, deterministic ones (events) included, as arrays on the host of
            shape ``(num_particles, *site_shape)``. Events are decoded a batch of draws at a time.
        """
        return host_values(self.posterior, self.xi)

    def __str__(self) -> str:
        lines = [
            f"Sequential Monte Carlo: {self.num_particles} draws after {len(self.acceptance)} "
            f"temperatures, from {self.num_ancestors} draws of the prior.",
            f"Effective sample sizes {self.effective_sample_size.min():.0f} to "
            f"{self.effective_sample_size.max():.0f}; moves accepted "
            f"{self.acceptance.min():.0%} to {self.acceptance.max():.0%}, "
            f"{self.num_moves.min()} to {self.num_moves.max()} in a stage.",
            f"Log evidence {self.log_evidence:.2f} ± {self.log_evidence_error:.2f}.",
        ]
        return "\n".join([*lines, *(f"Warning: {text}" for text in self.warnings)])

    def __repr__(self) -> str:
        return (
            f"SMCResult({self.num_particles} draws, {len(self.acceptance)} temperatures, "
            f"log evidence {self.log_evidence:.2f} ± {self.log_evidence_error:.2f})"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Effective sample size and acceptance along the temperatures.

        See `numpyro_genprior.plots.smc`.
        """
        from numpyro_genprior.plots import smc

        return smc(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """Draws by site, and the history of the stages.

        Sites have dimensions ``chain`` (one), ``draw`` and ``<site>_dim_<i>``. The history, with
        dimension ``stage``, has variables ``stage_temperature`` (after the stage),
        ``stage_acceptance`` and so on. The log evidence and its error are attributes.
        `numpyro_genprior.to_arviz` names the dimensions of events and plates as well.
        """
        variables = {}
        for name, draws in self.get_samples().items():
            site_dims = tuple(f"{name}_dim_{i}" for i in range(draws.ndim - 1))
            variables[name] = (("chain", "draw", *site_dims), draws[None])
        variables["stage_temperature"] = (("stage",), self.temperatures[1:])
        for name in HISTORY:
            variables[f"stage_{name}"] = (("stage",), getattr(self, name))
        return dataset(
            variables,
            attrs={
                "log_evidence": self.log_evidence,
                "log_evidence_error": self.log_evidence_error,
                "num_ancestors": self.num_ancestors,
            },
        )


def make_result(
    posterior: Posterior,
    particles: ParticleState,
    stages: list[Stage],
    settings: Settings,
    max_stages: int,
) -> SMCResult:
    """The result of a run, from its last particles and all stages."""
    history = {name: np.array([getattr(s, name) for s in stages]) for name in Stage._fields}
    number = settings.num_particles
    error = evidence_error(number, len(stages), float(history["collision"][-1]))
    num_ancestors = len(np.unique(np.asarray(particles.eves)))
    return SMCResult(
        log_evidence=float(np.sum(history["log_increment"].astype(np.float64))),
        log_evidence_error=error,
        temperatures=np.concatenate([[0.0], history["temperature"]]),
        num_ancestors=num_ancestors,
        warnings=_warnings(history, num_ancestors, error, settings, max_stages),
        xi=particles.xi,
        posterior=posterior,
        **{name: history[name] for name in HISTORY},
    )


def _warnings(
    history: Mapping[str, np.ndarray],
    num_ancestors: int,
    error: float,
    settings: Settings,
    max_stages: int,
) -> tuple[str, ...]:
    number, found = settings.num_particles, []
    if history["effective_sample_size"][-1] < 0.5 * settings.target_ess * number:
        found.append(
            f"The posterior was not reached within {max_stages} temperatures, and the last one "
            "was set to 1: raise max_stages, or check that the noise scale is meant to be so small."
        )
    if (history["acceptance"] < MIN_ACCEPTANCE).any():
        found.append(
            f"Moves were hardly accepted (mean probability {history['acceptance'].min():.2g}): "
            "raise max_moves, and check the model for kinks and for priors far wider than the data."
        )
    if num_ancestors < MIN_ANCESTORS:
        found.append(
            f"All particles descend from {num_ancestors} of {number} draws from the prior, so that "
            "modes may be lost and log_evidence_error is rough: raise num_particles."
        )
    if error > MAX_ERROR:
        found.append(
            f"The log evidence is uncertain by {error:.2g}: raise num_particles or target_ess."
        )
    return tuple(found)


def evidence_error(num_particles: int, num_stages: int, collision: float) -> float:
    """Standard error of the log evidence, from the ancestry of the particles.

    With C, the probability `collision` that two weighted particles of the last stage have the same
    ancestor in the prior, ``V = 1 - (N / (N - 1))^T (1 - C)`` is an unbiased estimate of the
    relative variance of the evidence (Lee and Whiteley 2018, with multinomial resampling). The
    error of its logarithm is ``√log(1 + V)``.
    """
    growth = num_stages * math.log(num_particles / (num_particles - 1))
    variance = -math.expm1(growth + math.log1p(-collision)) if collision < 1 else 1.0
    return math.sqrt(math.log1p(max(variance, 0.0)))
