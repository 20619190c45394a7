"""What `MGVI` returns, and what makes it doubtful."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

import jax
import numpy as np

from numpyro_genprior.infer.host_batching import host_values
from numpyro_genprior.infer.mgvi import step as mgvi_step
from numpyro_genprior.infer.mgvi.step import Settings
from numpyro_genprior.infer.posterior import Posterior, site_values

SOLVES = 64  # draws that are solved for at a time, at most
FAR = 0.3  # posterior standard deviations that the mean may move in the last step


@dataclass(frozen=True)
class MGVIResult:
    """A Gaussian approximation of the posterior, N(ξ̄, M⁻¹).

    Attributes
    ----------
    xi
        Its mean ξ̄ in standard normal coordinates, shape ``(size,)``.
    kl_before, kl
        For each step, the mean energy (minus the log joint density) over the samples, before and
        after the mean moved: the Kullback-Leibler divergence from the posterior, less the log
        evidence and the entropy of the Gaussian, which stay while the samples are held. Compare
        within a step; between steps the samples are others.
    moved
        For each step, how far the mean moved, in posterior standard deviations (root mean square
        over as many directions as the data can inform). Falls to what other samples make of it.
    sampling_iterations
        Iterations of conjugate gradients, shape ``(steps, num_samples)``.
    newton_steps, newton_iterations, stopped_early
        For each step: Newton steps, their iterations of conjugate gradients together, and how many
        systems were not solved to the tolerance.
    decrement
        For each step, the length of the last Newton step asked for, in the unit of `moved`.
    messages
        What makes the result doubtful; empty when nothing does.
    posterior
        The model and its arguments.
    """

    xi: jax.Array
    kl_before: np.ndarray
    kl: np.ndarray
    moved: np.ndarray
    sampling_iterations: np.ndarray
    newton_steps: np.ndarray
    newton_iterations: np.ndarray
    stopped_early: np.ndarray
    decrement: np.ndarray
    messages: tuple[str, ...]
    posterior: Posterior = field(repr=False)
    _settings: Settings = field(repr=False)

    @property
    def values(self) -> dict[str, jax.Array]:
        """All sites at the mean ξ̄. The value of a site there is not the mean of the site."""
        return site_values(self.posterior, self.xi)

    def sample_posterior(
        self, key: jax.Array, shape: tuple[int, ...] = (), *, antithetic: bool = True
    ) -> dict[str, np.ndarray]:
        """Draws from the approximation, by site.

        Parameters
        ----------
        key
            PRNG key of either kind.
        shape
            Leading dimensions of the draws.
        antithetic
            Take draws ξ̄ ± s in pairs, one after the other. For the same work, means of latents
            have no Monte Carlo error and those of events less; but draws in a pair are not
            independent, and variances are known as by half as many draws. False: all independent.

        Returns
        -------
        dict
            All sites of the model, deterministic ones (events) included, as arrays on the host of
            shape ``shape + site_shape``.

        Warns
        -----
        RuntimeWarning
            When conjugate gradients stopped early: the draws are then too close to the prior's
            in some directions.
        """
        number, parts, failed = math.prod(shape), [], 0
        needed = -(-number // 2) if antithetic else number
        batch = max(1, min(needed, SOLVES, mgvi_step.AT_ONCE // self.posterior.size))
        for first in range(0, needed, batch):
            draws = mgvi_step.draw(
                jax.random.fold_in(key, first), self.posterior, self.xi, batch, self._settings
            )
            failed += int((~draws.converged).sum())
            s = np.asarray(draws.s)
            s = np.stack([s, -s], 1).reshape(-1, s.shape[1]) if antithetic else s
            parts.append(np.asarray(self.xi)[None, :] + s)
        if failed:
            solves = -(-needed // batch) * batch
            text = "MGVI: " + _stopped(failed, solves, self._settings)
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        empty = np.zeros((0, self.posterior.size), self.xi.dtype)
        xi = np.concatenate([*parts, empty])[:number]
        sites = host_values(self.posterior, xi)
        return {name: value.reshape((*shape, *value.shape[1:])) for name, value in sites.items()}


def doubts_of(columns: dict[str, np.ndarray], settings: Settings) -> list[str]:
    """What makes a run doubtful, in words, from the history of its steps."""
    num_steps, num_samples = columns["sampling_iterations"].shape
    infinite = int((~np.isfinite(columns["kl"])).sum())
    failed, solves = columns["stopped_early"].sum(), columns["newton_steps"].sum()
    decrement, moved = columns["decrement"][-1], columns["moved"][-1]
    doubts = []
    if infinite:
        doubts.append(
            f"In {infinite} of {num_steps} steps the mean energy of the samples was not finite, "
            "and the mean stayed where it was: give init= values nearer to the posterior, e.g. "
            "find_map(model, key, ...).values, and look for what overflows at draws of the prior."
        )
    elif failed:
        doubts.append(_stopped(int(failed), int(solves) + num_steps * num_samples, settings))
    if np.isfinite(columns["kl"][-1]):
        if not decrement <= 10 * settings.tolerance:
            doubts.append(
                "In the last step the mean had not settled (the next Newton step was "
                f"{decrement:.2g} posterior standard deviations long): raise max_newton_steps, or "
                "look for kinks in the model."
            )
        if not moved <= FAR:
            doubts.append(
                f"The mean moved by {moved:.2g} posterior standard deviations in the last step: "
                "raise num_steps, or num_samples if it moves as far in every step."
            )
    return doubts


def _stopped(failed: int, solves: int, settings: Settings) -> str:
    return (
        f"Conjugate gradients stopped short of the tolerance in {failed} of {solves} solves (after "
        f"{settings.max_cg_steps} iterations, if all is finite): raise max_cg_steps, or tolerance."
    )
