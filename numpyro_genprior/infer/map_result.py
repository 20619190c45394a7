"""What `find_map` returns: modes, starts, and what they mean in words."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from numpyro_genprior.infer.mode_clustering import Mode
from numpyro_genprior.infer.posterior import Posterior

CLOSE = 3.0  # nats within which another mode matters
SHOWN = 6  # modes that are printed


@dataclass(frozen=True)
class Starts:
    """What became of each start, in their order.

    Attributes
    ----------
    initial
        Coordinates where they began, of shape ``(num_starts, size)``.
    xi, energy
        Coordinates and energies where they ended.
    gap
        How far each energy lies above its minimum by the local quadratic, in nats. Large where a
        descent stopped though the gradient is not 0: on a crease of a piecewise linear network,
        where the gradient jumps, or in a pit too narrow for the digits, as when a scale runs to 0.
    converged
        Whether each has converged.
    num_steps
        Steps of each.
    num_encoded
        How many, the first ones, began at an encoder's guess and not at a prior draw.
    """

    initial: jax.Array
    xi: jax.Array
    energy: np.ndarray
    gap: np.ndarray
    converged: np.ndarray
    num_steps: np.ndarray
    num_encoded: int

    def __len__(self) -> int:
        return len(self.energy)

    @property
    def finite(self) -> np.ndarray:
        """Whether each energy is finite."""
        return np.isfinite(self.energy)


@dataclass(frozen=True, repr=False)
class MAPEstimate:
    """The modes that `find_map` found. Print it to read what that means.

    Attributes
    ----------
    posterior
        The `Posterior` whose modes these are.
    modes
        Distinct modes, a `Mode` each, best first.
    starts
        What became of each start.
    method
        ``"lm"`` or ``"lbfgs"``.
    """

    posterior: Posterior
    modes: tuple[Mode, ...]
    starts: Starts
    method: str

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
        return tuple(m for m in self.modes if m.energy - self.energy <= CLOSE)

    def __repr__(self) -> str:
        starts, num = self.starts, len(self.starts)
        encoded = f", {starts.num_encoded} by the encoder" if starts.num_encoded else ""
        name = {"lm": "Levenberg-Marquardt", "lbfgs": "L-BFGS"}[self.method]
        lines = [
            f"MAP of {number(self.posterior.size, 'coordinate')} from "
            f"{number(num, 'start')}{encoded}, by {name}: energy {self.energy:.2f} nats.",
            f"{number(len(self.modes), 'mode')}:"
            + ("" if len(self.close) < 2 else f" {len(self.close)} of them within 3 nats,"
               " so that one point does not stand for this posterior."),
        ]  # fmt: skip
        for mode in self.modes[:SHOWN]:
            above = mode.energy - self.energy
            lines.append(
                f"  energy {mode.energy:.2f}" + (f" (+{above:.2f})" if above else "")
                + f", {number(len(mode.starts), 'start')} ({mode.share:.0%})"
            )  # fmt: skip
        if len(self.modes) > SHOWN:
            lines.append(f"  and {len(self.modes) - SHOWN} more, with higher energies")
        lines.append(
            f"{int(starts.converged.sum())} of {num} converged, in {int(starts.num_steps.max())} "
            "steps at most."
        )
        if not starts.finite.all():
            lines.append(f"{int((~starts.finite).sum())} began where the energy is not finite.")
        stuck = int((starts.converged & (starts.gap > 1.0)).sum())
        if stuck:
            lines.append(
                f"{stuck} stopped where the energy fell no further though its gradient is not 0: "
                "on a crease of a piecewise linear network (ReLU), or in a pit too narrow for the "
                "digits (has a scale in .values run to 0?). Curvature there says little."
            )
        others = self.posterior.layout.not_standard_normal
        lines.append(
            "Where a mode lies depends on the coordinates. These are standard normal under the "
            "prior" + (f", but unconstrained for {', '.join(others)}." if others else ".")
        )
        return "\n".join(lines)


def number(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
