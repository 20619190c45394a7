"""`Contraction` and `Comparison`: posterior radius along a schedule, and rates side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from numpyro_genprior.diagnostics.calibration.convergence import MAX_R_HAT
from numpyro_genprior.diagnostics.calibration.power_law import NUM_STANDARD_ERRORS, Rate, fit_rate
from numpyro_genprior.errors import message
from numpyro_genprior.results import Result, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

CONTRACTS, OVERCONFIDENT, STALLS = "contracts", "overconfident", "stalls"
MAX_RATIO = 1.4  # of error to spread at the last step; more is overconfident
MIN_RATIO = 0.7


@dataclass(frozen=True, repr=False, eq=False)
class Contraction(Result):
    """Posterior spread and error along a schedule, with their rates.

    `error` and `spread` are root mean squares over the entries of the quantity.

    Attributes
    ----------
    argument
        The model's argument that changes along the schedule.
    values
        Its values, of shape ``(steps,)``.
    error
        Distance of the posterior mean from the truth, of shape ``(steps, replications)``.
    spread
        Posterior standard deviation, of the same shape.
    num_divergences
        Divergent transitions of all chains, at each step.
    num_unmixed
        Replications with a split r_hat above 1.1, at each step.
    num_nonfinite
        Replications that are left out because draws are not finite at some step.
    """

    argument: str
    values: Float[np.ndarray, " steps"]
    error: Float[np.ndarray, "steps replications"]
    spread: Float[np.ndarray, "steps replications"]
    num_divergences: Int[np.ndarray, " steps"]
    num_unmixed: Int[np.ndarray, " steps"]
    num_nonfinite: int

    @property
    def radius(self) -> Float[np.ndarray, "steps replications"]:
        """Root mean square distance of draws from the truth: ``(error² + spread²)^(1/2)``."""
        return np.sqrt(self.error**2 + self.spread**2)

    @property
    def rates(self) -> dict[str, Rate]:
        """Exponents of ``"radius"``, ``"error"`` and ``"spread"`` in the argument."""
        curves = {"radius": self.radius, "error": self.error, "spread": self.spread}
        return {name: fit_rate(self.values, curve) for name, curve in curves.items()}

    @property
    def verdict(self) -> str:
        """``"contracts"``, ``"overconfident"`` or ``"stalls"``.

        Overconfident if at the last step the error is more than 1.4 times the spread; stalls if
        the radius does not fall along the schedule, by three standard errors.
        """
        rate = self.rates["radius"]
        if rate.speed <= NUM_STANDARD_ERRORS * rate.error:
            return STALLS
        return OVERCONFIDENT if self._last_ratio > MAX_RATIO else CONTRACTS

    @property
    def warnings(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Reasons to doubt the rates, one sentence each."""
        sentences = []
        if self.num_nonfinite:
            sentences.append(
                f"{self.num_nonfinite} further replications had draws that are not finite, and "
                "are left out."
            )
        if self.num_divergences.any():
            sentences.append(
                f"Divergent transitions at each step: {self.num_divergences.tolist()}."
            )
        if self.num_unmixed.any():
            sentences.append(
                f"Replications with a split r_hat above {MAX_R_HAT:g} at each step: "
                f"{self.num_unmixed.tolist()}; raise num_warmup and num_samples."
            )
        if self.rates["radius"].exponent_changes:
            sentences.append(
                "The exponent changes along the schedule: no single rate describes this range."
            )
        return tuple(sentences)

    def compare(self, other: Contraction) -> Comparison:
        """Which of two priors contracts faster; `other` has the same argument.

        Raises
        ------
        ValueError
            If the arguments of the schedules differ.
        """
        if self.argument != other.argument:
            raise ValueError(
                message(
                    "The schedules have different arguments",
                    expected=self.argument,
                    got=other.argument,
                    remedy="run both along one schedule",
                )
            )
        return Comparison(self, other)

    def __repr__(self) -> str:
        steps, replications = self.error.shape
        return (
            f"Contraction(verdict={self.verdict!r}, {self.argument}^({self.rates['radius']}), "
            f"steps={steps}, replications={replications})"
        )

    def __str__(self) -> str:
        rates, argument = self.rates, self.argument
        radius, ratio = rates["radius"], self._last_ratio
        lines = [
            f"The posterior contracts like {argument}^({radius}), for {argument} from "
            f"{self.values[0]:.3g} to {self.values[-1]:.3g}.",
            f"  its spread like {argument}^({rates['spread']}), the error of its mean like "
            f"{argument}^({rates['error']})",
            f"  radius {', '.join(f'{r:.3g}' for r in _rms(self.radius))}",
            f"  exponents between steps: {', '.join(f'{s:.2f}' for s in radius.local_exponents)}",
            f"  {self.error.shape[1]} replications",
        ]
        lines += [f"  {warning}" for warning in self.warnings]
        if not MIN_RATIO < ratio < MAX_RATIO:
            confidence = "overconfident" if ratio > 1 else "less confident than it could be"
            lines.append(
                f"At the last step the error is {ratio:.2g} times the spread: the posterior is "
                f"{confidence} about these truths."
            )
        lines.append(
            "This holds for this range and these truths; the asymptotic rate may differ, and a "
            "rate does not include the constant."
        )
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw radius, error and spread along the schedule."""
        from numpyro_genprior.plots import contraction

        return contraction(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """Radius, error and spread, with the argument and the replication as dimensions."""
        dims, steps = (self.argument, "replication"), (self.argument,)
        return dataset(
            {
                "radius": (dims, self.radius),
                "error": (dims, self.error),
                "spread": (dims, self.spread),
                "num_divergences": (steps, self.num_divergences),
                "num_unmixed": (steps, self.num_unmixed),
            },
            coords={self.argument: self.values},
            attrs={"num_nonfinite": self.num_nonfinite, "verdict": self.verdict},
        )

    @property
    def _last_ratio(self) -> float:
        """Error over spread at the last step; infinite for a posterior without spread."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(_rms(self.error)[-1] / _rms(self.spread)[-1])


@dataclass(frozen=True, repr=False, eq=False)
class Comparison(Result):
    """The rates of two priors side by side.

    Attributes
    ----------
    first, second
        The results that are compared.
    """

    first: Contraction
    second: Contraction

    @property
    def rates(self) -> tuple[Rate, Rate]:
        """Rates of the radius of both."""
        return self.first.rates["radius"], self.second.rates["radius"]

    @property
    def difference(self) -> float:
        """How much faster the first contracts: the difference of the two speeds."""
        first, second = self.rates
        return first.speed - second.speed

    @property
    def error(self) -> float:
        """Standard error of the difference, for independent replications."""
        first, second = self.rates
        return float(np.hypot(first.error, second.error))

    @property
    def verdict(self) -> str:
        """``"faster"`` or ``"slower"`` (the first, by three standard errors), or ``"alike"``."""
        if abs(self.difference) <= NUM_STANDARD_ERRORS * self.error:
            return "alike"
        return "faster" if self.difference > 0 else "slower"

    @property
    def warnings(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The warnings of both results."""
        both = (("First", self.first), ("Second", self.second))
        return tuple(f"{name}: {warning}" for name, one in both for warning in one.warnings)

    def __repr__(self) -> str:
        return (
            f"Comparison(verdict={self.verdict!r}, difference={self.difference:.2f} ± "
            f"{self.error:.2f})"
        )

    def __str__(self) -> str:
        first, second = self.rates
        finding = {"alike": "The rates of the two are equal to within their errors"}.get(
            self.verdict, f"The first contracts {self.verdict} than the second"
        )
        lines = [
            f"{finding}: exponents {first} and {second}, difference {self.difference:.2f} ± "
            f"{self.error:.2f}. This holds for this schedule; constants may matter more than "
            "exponents."
        ]
        return "\n".join(lines + [f"  {warning}" for warning in self.warnings])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the radius of both along the schedule."""
        from numpyro_genprior.plots import contraction

        return contraction({"first": self.first, "second": self.second}, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """Exponents and their standard errors, with dimension ``result``."""
        dims = ("result",)
        return dataset(
            {
                "exponent": (dims, [rate.exponent for rate in self.rates]),
                "error": (dims, [rate.error for rate in self.rates]),
            },
            coords={"result": ["first", "second"]},
            attrs={
                "difference": self.difference,
                "difference_error": self.error,
                "verdict": self.verdict,
            },
        )


def _rms(curves: Float[np.ndarray, "steps replications"]) -> Float[np.ndarray, " steps"]:
    return np.sqrt(np.mean(curves**2, axis=1))
