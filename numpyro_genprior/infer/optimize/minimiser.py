"""`AbstractModeFinder`: minimisers of an energy that stop by a tolerance in nats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Bool, Float, Int, PyTree

WINDOW = 10  # steps over which the energy has to fall

Y = Float[Array, " latent"]
EnergyFn = Callable[[Y, Any], tuple[Float[Array, ""], Any]]
SolverState = TypeVar("SolverState")


class Progress(eqx.Module):
    """What is known at the current point of a minimisation.

    Attributes
    ----------
    energy
        The energy, in nats.
    gap
        How far it lies above its minimum according to the local quadratic, in nats; infinite
        before the first step. It belongs to the point before the last step.
    converged
        Whether the minimisation is done.
    num_steps
        Steps taken.
    window_energy
        The energy at the beginning of the current window of ten steps.
    """

    energy: Float[Array, ""]
    gap: Float[Array, ""]
    converged: Bool[Array, ""]
    num_steps: Int[Array, ""]
    window_energy: Float[Array, ""]

    @classmethod
    def first(cls, energy: jax.Array) -> Progress:
        """Before the first step."""
        zero = jnp.zeros((), int)
        return cls(energy, jnp.full_like(energy, jnp.inf), zero > 0, zero, energy)

    def after_step(
        self,
        energy: jax.Array,
        gap: jax.Array,
        *,
        at_minimum: jax.Array,
        may_stall: jax.Array,
        tolerance: jax.Array,
    ) -> Progress:
        """After a step that led to `energy`.

        Parameters
        ----------
        energy, gap
            As in the class.
        at_minimum
            Whether the local quadratic says that this is the minimum.
        may_stall
            Whether ten steps without progress count as convergence.
        tolerance
            Progress to be made in ten steps, in nats.
        """
        num_steps = self.num_steps + 1
        window_ends = num_steps % WINDOW == 0
        required = jnp.maximum(tolerance, rounding_error(energy))
        stalled = window_ends & (self.window_energy - energy < required)
        stalled = stalled & may_stall & jnp.isfinite(gap)
        window_energy = jnp.where(window_ends, energy, self.window_energy)
        return Progress(energy, gap, at_minimum | stalled, num_steps, window_energy)


class ModeFinderState(eqx.Module, Generic[SolverState]):
    """The state of an `AbstractModeFinder`: its progress and its memory."""

    progress: Progress
    memory: SolverState
    aux: PyTree


class AbstractModeFinder(optimistix.AbstractMinimiser[Y, Any, ModeFinderState[Any]]):
    """An optimistix minimiser that stops when it is within a tolerance of the minimum, in nats.

    It has converged when the local quadratic puts the energy less than ``atol + rtol * |energy|``
    above its minimum, or when ten steps lowered it by less (at a kink of a piecewise linear
    network, or by rounding). An energy that is not finite at the start ends the solve at once.

    Attributes
    ----------
    rtol, atol
        The tolerance, relative to the energy and in nats.
    """

    norm: ClassVar[Callable[[PyTree], jax.Array]] = staticmethod(optimistix.two_norm)

    def tolerance(self, energy: jax.Array) -> jax.Array:
        """``atol + rtol * |energy|``."""
        return self.atol + self.rtol * jnp.abs(energy)

    def terminate(
        self,
        fn: EnergyFn,
        y: Y,
        args: PyTree,
        options: dict[str, Any],
        state: ModeFinderState[Any],
        tags: frozenset[object],
    ) -> tuple[Bool[Array, ""], optimistix.RESULTS]:
        finite = jnp.isfinite(state.progress.energy)
        results = optimistix.RESULTS
        return state.progress.converged, results.where(
            finite, results.successful, results.nonfinite
        )

    def postprocess(
        self,
        fn: EnergyFn,
        y: Y,
        aux: PyTree,
        args: PyTree,
        options: dict[str, Any],
        state: ModeFinderState[Any],
        tags: frozenset[object],
        result: optimistix.RESULTS,
    ) -> tuple[Y, PyTree, dict[str, Any]]:
        return y, aux, {"energy": state.progress.energy, "gap": state.progress.gap}


def rounding_error(energy: jax.Array) -> jax.Array:
    """The rounding error of an energy, which is a sum of many terms."""
    return 8 * jnp.finfo(energy.dtype).eps * (1 + jnp.abs(energy))
