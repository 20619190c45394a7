"""Exponents of power laws, fitted to curves of many replications."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

MIN_EXPONENT_CHANGE = 0.1  # difference of two local exponents that counts as a change
NUM_STANDARD_ERRORS = 3  # standard errors beyond which a difference counts


@dataclass(frozen=True, repr=False)
class Rate:
    """The exponent of a power law fitted to curves, ``curve ~ argument^exponent``.

    Attributes
    ----------
    exponent
        Exponent of the argument.
    error
        Its standard error over replications.
    local_exponents
        Exponents between neighbouring steps of the schedule.
    local_errors
        Their standard errors.
    argument_falls
        Whether the argument decreases along the schedule, as noise does.
    """

    exponent: float
    error: float
    local_exponents: Float[np.ndarray, " steps-1"]
    local_errors: Float[np.ndarray, " steps-1"]
    argument_falls: bool

    @property
    def speed(self) -> float:
        """The exponent, signed to be positive if the curve falls along the schedule."""
        return self.exponent if self.argument_falls else -self.exponent

    @property
    def exponent_changes(self) -> bool:
        """Whether the first and last local exponents differ, by 3 standard errors and by 0.1."""
        if len(self.local_exponents) < 2:
            return False
        difference = abs(self.local_exponents[0] - self.local_exponents[-1])
        error = np.hypot(self.local_errors[0], self.local_errors[-1])
        return bool(difference > NUM_STANDARD_ERRORS * error and difference > MIN_EXPONENT_CHANGE)

    def __repr__(self) -> str:
        return f"{self.exponent:.2f} ± {self.error:.2f}"


def fit_rate(
    values: Float[np.ndarray, " steps"], curves: Float[np.ndarray, "steps replications"]
) -> Rate:
    """Weighted least squares of log curve on log argument, one slope for each replication.

    Parameters
    ----------
    values
        The argument along the schedule.
    curves
        The curve of each replication. One that is 0 somewhere (an error below the Monte Carlo
        error) is raised to a thousandth of the root mean square of the others.
    """
    log_values = np.log(values)
    floor = 1e-3 * np.sqrt(np.mean(curves**2, axis=1, keepdims=True))
    log_curves = np.log(np.maximum(curves, np.maximum(floor, np.finfo(float).tiny)))
    number = curves.shape[1]
    variance = log_curves.var(axis=1, ddof=1)
    weights = 1 / (variance + 1e-4 + 1e-3 * variance.mean())
    centred = log_values - np.sum(weights * log_values) / weights.sum()
    slopes = (weights * centred) @ log_curves / np.sum(weights * centred**2)
    local = np.diff(log_curves, axis=0) / np.diff(log_values)[:, None]
    return Rate(
        float(slopes.mean()),
        float(slopes.std(ddof=1) / np.sqrt(number)),
        local.mean(1),
        local.std(1, ddof=1) / np.sqrt(number),
        bool(values[-1] < values[0]),
    )
