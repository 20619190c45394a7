"""`MAPEstimate`: the modes that `find_map` found, and the ends of all its starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np

from numpyro_genprior.errors import message
from numpyro_genprior.infer.mode_clustering import Mode
from numpyro_genprior.infer.optimize.minimise import Solver
from numpyro_genprior.infer.optimize.minimiser import AbstractModeFinder
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.results import Result, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

MAX_COMPETING_GAP = 3.0  # nats above the best mode, up to which another mode matters
MAX_LISTED = 6  # modes that are printed


@dataclass(frozen=True, eq=False)
class Starts:
    """The end of each start, in their order.

    Attributes
    ----------
    initial
        Coordinates where they began, of shape ``(num_starts, size)``.
    xi, energy
        Coordinates and energies where they ended.
    gap
        How far each energy lies above its minimum according to the local quadratic, in nats. Large
        where a minimisation stopped though the gradient is not 0: at a kink of a piecewise linear
        network, where the gradient jumps, or in a minimum narrower than floating-point resolution,
        e.g. if a scale tends to 0.
    converged
        Whether each has converged.
    num_steps
        Steps of each.
    num_encoded
        Number of starts, the first in order, that began at an encoding of the data.
    reasons
        Why each stopped, in optimistix's words; empty for those that converged.
    """

    initial: jax.Array
    xi: jax.Array
    energy: np.ndarray
    gap: np.ndarray
    converged: np.ndarray
    num_steps: np.ndarray
    num_encoded: int
    reasons: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.energy)

    def __repr__(self) -> str:
        return f"Starts({len(self)}, {int(self.converged.sum())} converged)"

    @property
    def finite(self) -> np.ndarray:
        """Whether each energy is finite."""
        return np.isfinite(self.energy)

    @property
    def diverged(self) -> np.ndarray:
        """Whether each was moved to a point where the energy is not finite."""
        return ~self.finite & (np.asarray(self.xi) != np.asarray(self.initial)).any(-1)


@dataclass(frozen=True, repr=False, eq=False)
class MAPEstimate(Result):
    """The modes that `find_map` found. Print it for the findings in sentences.

    Attributes
    ----------
    posterior
        The `Posterior` whose modes these are.
    modes
        Distinct modes, a `Mode` each, best first.
    starts
        The end of each start.
    solver
        The solver that minimised the energy.
    """

    posterior: Posterior
    modes: tuple[Mode, ...]
    starts: Starts
    solver: Solver
    _remedy: str  # how to give minimisations more steps

    @property
    def xi(self) -> jax.Array:
        """Coordinates of the best mode."""
        return self.modes[0].xi

    @property
    def values(self) -> dict[str, jax.Array]:
        """All sites at the best mode: latents, events and other deterministic sites."""
        return self.modes[0].values

    @property
    def energy(self) -> float:
        """Minus the log joint density of coordinates and data at the best mode, in nats."""
        return self.modes[0].energy

    @property
    def close(self) -> tuple[Mode, ...]:
        """Modes within 3 nats of the best, the best included."""
        return tuple(m for m in self.modes if m.energy - self.energy <= MAX_COMPETING_GAP)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Starts that failed, and modes that compete with the best."""
        return tuple(sentence for _, sentence in self.categorised_warnings())

    def categorised_warnings(self) -> list[tuple[type[Warning], str]]:
        """The warnings with the categories in which `find_map` issues them."""
        found: list[tuple[type[Warning], str]] = []
        found += [(RuntimeWarning, sentence) for sentence in self._failures()]
        if len(self.close) > 1:
            found.append((UserWarning, self._competing_modes()))
        return found

    def _failures(self) -> list[str]:
        starts, total = self.starts, f"of {len(self.starts)} starts"
        found = []
        failed = starts.finite & ~starts.converged
        reasons = {starts.reasons[i] for i in np.flatnonzero(failed)}
        for reason in sorted(reasons):
            same = failed & np.array([other == reason for other in starts.reasons])
            steps = int(starts.num_steps[same].max())
            what = f"{int(same.sum())} {total} did not converge in {number(steps, 'step')}"
            if "maximum number of steps" not in reason:
                what += f" ({reason.strip().rstrip('.')})"
            found.append(message(what, remedy=self._remedy))
        num_began = int((~starts.finite & ~starts.diverged).sum())
        if num_began:
            what = f"{num_began} {total} have an energy that is not finite, and were left out"
            remedy = "look for parameters whose likelihood overflows at draws from the prior"
            found.append(message(what, remedy=remedy))
        diverged = int(starts.diverged.sum())
        if diverged:
            what = f"{diverged} {total} diverged: the solver ended where the energy is not finite"
            remedy = "use a solver with damping or a line search, e.g. solver=ngp.infer.LBFGS()"
            found.append(message(what, remedy=remedy))
        return found

    def _competing_modes(self) -> str:
        close = self.close
        listed = [f"{m.energy:.2f} ({m.share:.0%} of starts)" for m in close[:MAX_LISTED]]
        more = "" if len(close) <= MAX_LISTED else f" and {len(close) - MAX_LISTED} more"
        return message(
            f"{len(close)} distinct modes lie within 3 nats: energies {', '.join(listed)}{more}",
            remedy="do not report one of them as the answer: sample with ParallelTempering or SMC, "
            "which weight modes by their probability, or add data that distinguish them",
        )

    def __repr__(self) -> str:
        return (
            f"MAPEstimate(energy={self.energy:.2f}, {number(len(self.modes), 'mode')}, "
            f"{number(len(self.starts), 'start')}, {self._solver_name})"
        )

    @property
    def _solver_name(self) -> str:
        name = type(self.solver).__name__
        return name if isinstance(self.solver, AbstractModeFinder) else f"optimistix.{name}"

    def __str__(self) -> str:
        starts, total = self.starts, len(self.starts)
        encoded = f", {starts.num_encoded} by the encoder" if starts.num_encoded else ""
        lines = [
            f"MAP of {number(self.posterior.size, 'coordinate')} from "
            f"{number(total, 'start')}{encoded}, by {self._solver_name}: "
            f"energy {self.energy:.2f} nats.",
            f"{number(len(self.modes), 'mode')}:"
            + ("" if len(self.close) < 2 else f" {len(self.close)} of them within 3 nats,"
               " so that one point does not represent this posterior."),
        ]  # fmt: skip
        for mode in self.modes[:MAX_LISTED]:
            above = mode.energy - self.energy
            lines.append(
                f"  energy {mode.energy:.2f}" + (f" (+{above:.2f})" if above else "")
                + f", {number(len(mode.starts), 'start')} ({mode.share:.0%})"
            )  # fmt: skip
        if len(self.modes) > MAX_LISTED:
            lines.append(f"  and {len(self.modes) - MAX_LISTED} more, with higher energies")
        lines.append(
            f"{int(starts.converged.sum())} of {total} converged, in {int(starts.num_steps.max())} "
            "steps at most."
        )
        lines += self._caveats()
        return "\n".join(lines)

    def _caveats(self) -> list[str]:
        starts, found = self.starts, []
        num_began = int((~starts.finite & ~starts.diverged).sum())
        if num_began:
            found.append(f"{num_began} began where the energy is not finite.")
        if starts.diverged.any():
            found.append(f"{int(starts.diverged.sum())} diverged.")
        stuck = int((starts.converged & (starts.gap > 1.0)).sum())
        if stuck:
            found.append(
                f"{stuck} stopped where the energy fell no further though its gradient is not 0: "
                "at a kink of a piecewise linear network (ReLU), or in a minimum narrower than "
                "floating-point resolution (does a scale in .values tend to 0?). Curvature there "
                "is uninformative."
            )
        others = self.posterior.layout.not_standard_normal
        found.append(
            "The location of a mode depends on the coordinates. These are standard normal under "
            "the prior" + (f", but unconstrained for {', '.join(others)}." if others else ".")
        )
        return found

    def plot(self, ax: Axes | None = None) -> Axes:
        """The energy at the end of each start above that of the best mode, by mode."""
        from numpyro_genprior.plots.energies import start_energies

        return start_energies(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """Starts and modes, with dimensions ``start``, ``mode`` and ``coordinate``."""
        starts, modes = self.starts, self.modes
        found = np.full(len(starts), -1)
        for i, mode in enumerate(modes):
            found[list(mode.starts)] = i
        return dataset(
            {
                "initial_xi": (("start", "coordinate"), starts.initial),
                "xi": (("start", "coordinate"), starts.xi),
                "energy": (("start",), starts.energy),
                "gap": (("start",), starts.gap),
                "converged": (("start",), starts.converged),
                "num_steps": (("start",), starts.num_steps),
                "mode_of_start": (("start",), found),
                "mode_xi": (("mode", "coordinate"), np.stack([m.xi for m in modes])),
                "mode_energy": (("mode",), [m.energy for m in modes]),
                "mode_share": (("mode",), [m.share for m in modes]),
            },
            attrs={"solver": self._solver_name},
        )


def number(count: int, what: str) -> str:
    """A number with its noun, in the plural unless it is 1."""
    return f"{count} {what}" + ("" if count == 1 else "s")
