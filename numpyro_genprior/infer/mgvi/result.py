"""`MGVIResult`: the Gaussian found by MGVI, its draws, and the history of its steps."""

from __future__ import annotations

import math
import warnings as python_warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np

from numpyro_genprior.infer.host_batching import MAX_BATCH_ELEMENTS, host_values
from numpyro_genprior.infer.mgvi.step import (
    Settings,
    Step,
    jit_sample_residuals,
)
from numpyro_genprior.infer.posterior import Posterior, site_values
from numpyro_genprior.results import Result, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

MAX_SOLVES = 64  # linear systems that are solved together
MAX_LAST_MOVE = 0.3  # of the mean in the last step, in posterior standard deviations


@dataclass(frozen=True, repr=False, eq=False)
class MGVIResult(Result):
    """A Gaussian approximation of the posterior, N(ξ̄, M⁻¹).

    Attributes
    ----------
    xi
        Its mean ξ̄ in standard normal coordinates, of shape ``(size,)``.
    kl_before, kl
        For each step, the mean energy (minus the log joint density) of the samples, before and
        after the mean moved. This is the Kullback-Leibler divergence from the posterior, up to the
        log evidence and the entropy of the Gaussian, which are constant within a step. Different
        steps have different samples and cannot be compared.
    moved
        For each step, how far the mean moved, in posterior standard deviations (root mean square
        over as many directions as the data can inform). Decreases to the Monte Carlo noise of the
        samples.
    sampling_iterations
        Iterations of conjugate gradients, of shape ``(steps, num_samples)``.
    newton_steps, newton_iterations, stopped_early
        For each step: number of Newton steps, their iterations of conjugate gradients together,
        and number of linear systems that were not solved to the tolerance.
    decrement
        For each step, the length of the last full Newton step, in the unit of `moved`.
    warnings
        Reasons to doubt the result, one sentence each.
    posterior
        The model and its arguments.
    settings
        Settings of the run.

    Notes
    -----
    **Fails when** the posterior is far from Gaussian, which `warnings` does not detect: see `MGVI`.
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
    warnings: tuple[str, ...]
    posterior: Posterior
    settings: Settings

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
            Draw pairs ξ̄ ± s, one after the other. For the same cost, means of latents
            have no Monte Carlo error and those of events less; but the draws of a pair are not
            independent, and variances are as uncertain as from half as many draws. False: all
            draws are independent.

        Returns
        -------
        dict
            All sites of the model, deterministic ones (events) included, as arrays on the host of
            shape ``shape + site_shape``.

        Warns
        -----
        RuntimeWarning
            If conjugate gradients stopped early: the draws are then too close to draws of the
            prior in some directions.
        """
        number, parts, num_failed = math.prod(shape), [], 0
        needed = -(-number // 2) if antithetic else number
        batch = max(1, min(needed, MAX_SOLVES, MAX_BATCH_ELEMENTS // self.posterior.size))
        for first in range(0, needed, batch):
            draws = jit_sample_residuals(
                jax.random.fold_in(key, first), self.posterior, self.xi, batch, self.settings
            )
            num_failed += int((~draws.converged).sum())
            s = np.asarray(draws.s)
            s = np.stack([s, -s], 1).reshape(-1, s.shape[1]) if antithetic else s
            parts.append(np.asarray(self.xi)[None, :] + s)
        if num_failed:
            num_solves = -(-needed // batch) * batch
            text = "MGVI: " + _stopped_early(num_failed, num_solves, self.settings)
            python_warnings.warn(text, RuntimeWarning, stacklevel=2)
        empty = np.zeros((0, self.posterior.size), self.xi.dtype)
        xi = np.concatenate([*parts, empty])[:number]
        sites = host_values(self.posterior, xi)
        return {name: value.reshape((*shape, *value.shape[1:])) for name, value in sites.items()}

    def __str__(self) -> str:
        num_steps, num_samples = self.sampling_iterations.shape
        lines = [
            f"Metric Gaussian variational inference: a Gaussian in {self.xi.size} coordinates "
            f"after {num_steps} steps of {num_samples} pairs of samples.",
            "In the last step the mean energy fell by "
            f"{self.kl_before[-1] - self.kl[-1]:.3g} and the mean moved by {self.moved[-1]:.2g} "
            "posterior standard deviations.",
            f"Iterations of conjugate gradients: {self.sampling_iterations.sum()} for samples, "
            f"{self.newton_iterations.sum()} for {self.newton_steps.sum()} Newton steps.",
        ]
        return "\n".join([*lines, *(f"Warning: {text}" for text in self.warnings)])

    def __repr__(self) -> str:
        return (
            f"MGVIResult({self.xi.size} coordinates, {len(self.kl)} steps, "
            f"moved {self.moved[-1]:.2g} sd in the last)"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """How far the mean moved in each step.

        See `numpyro_genprior.plots.mgvi`.
        """
        from numpyro_genprior.plots import mgvi

        return mgvi(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """The mean ξ̄, with dimension ``coordinate``, and the history, with dimension ``step``.

        The iterations of conjugate gradients for samples have dimension ``pair`` as well. Draws
        come from `sample_posterior` or `numpyro_genprior.to_arviz`.
        """
        history = {
            name: (("step", "pair")[: getattr(self, name).ndim], getattr(self, name))
            for name in Step._fields
        }
        return dataset({"xi": (("coordinate",), np.asarray(self.xi)), **history})


def run_warnings(history: Mapping[str, np.ndarray], settings: Settings) -> tuple[str, ...]:
    """Reasons to doubt a run, in words, from the history of its steps."""
    num_steps, num_samples = history["sampling_iterations"].shape
    num_infinite = int((~np.isfinite(history["kl"])).sum())
    num_failed, num_solves = history["stopped_early"].sum(), history["newton_steps"].sum()
    decrement, moved = history["decrement"][-1], history["moved"][-1]
    found = []
    if num_infinite:
        found.append(
            f"In {num_infinite} of {num_steps} steps the mean energy of the samples was not "
            "finite, and the mean stayed where it was: give init= values nearer to the posterior, "
            "e.g. find_map(model, key, ...).values, and look for overflow at draws of the prior."
        )
    elif num_failed:
        num_solves = int(num_solves) + num_steps * num_samples
        found.append(_stopped_early(int(num_failed), num_solves, settings))
    if np.isfinite(history["kl"][-1]):
        if not decrement <= 10 * settings.tolerance:
            found.append(
                "In the last step the mean had not converged (the next Newton step was "
                f"{decrement:.2g} posterior standard deviations long): raise max_newton_steps, or "
                "look for kinks in the model."
            )
        if not moved <= MAX_LAST_MOVE:
            found.append(
                f"The mean moved by {moved:.2g} posterior standard deviations in the last step: "
                "raise num_steps, or num_samples if it moves as far in every step."
            )
    return tuple(found)


def _stopped_early(num_failed: int, num_solves: int, settings: Settings) -> str:
    return (
        f"Conjugate gradients stopped short of the tolerance in {num_failed} of {num_solves} "
        f"solves (after {settings.max_cg_steps} iterations, if all is finite): raise max_cg_steps, "
        "or tolerance."
    )
