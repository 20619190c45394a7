"""Exponents of power laws, from curves of many replications."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, repr=False)
class Rate:
    """An exponent.

    Attributes
    ----------
    exponent
        Of the argument.
    error
        Its standard error over replications.
    local
        Exponents from step to step.
    local_error
        Their standard errors.
    falling
        Whether the argument falls along the ladder, as noise does.
    """

    exponent: float
    error: float
    local: np.ndarray
    local_error: np.ndarray
    falling: bool

    @property
    def speed(self) -> float:
        """The exponent of contraction: positive when the curve falls along the ladder."""
        return self.exponent if self.falling else -self.exponent

    @property
    def bent(self) -> bool:
        """Whether the first and the last step differ, by three standard errors and by 0.1."""
        if len(self.local) < 2:
            return False
        apart = abs(self.local[0] - self.local[-1])
        error = np.hypot(self.local_error[0], self.local_error[-1])
        return bool(apart > 3 * error and apart > 0.1)

    def __repr__(self) -> str:
        return f"{self.exponent:.2f} ± {self.error:.2f}"


def fit_rate(values: np.ndarray, curve: np.ndarray) -> Rate:
    """Weighted least squares of log curve in log argument, one slope for each replication.

    Parameters
    ----------
    values
        The argument, of shape ``(steps,)``.
    curve
        Of shape ``(steps, replications)``. A curve that is 0 somewhere (an error that Monte Carlo
        covers) is lifted to a thousandth of the others.
    """
    log = np.log(values)
    least = 1e-3 * np.sqrt(np.mean(curve**2, axis=1, keepdims=True))
    height = np.log(np.maximum(curve, np.maximum(least, np.finfo(float).tiny)))
    number = curve.shape[1]
    variance = height.var(axis=1, ddof=1)
    weights = 1 / (variance + 1e-4 + 1e-3 * variance.mean())
    centred = log - np.sum(weights * log) / weights.sum()
    slopes = (weights * centred) @ height / np.sum(weights * centred**2)
    local = np.diff(height, axis=0) / np.diff(log)[:, None]
    return Rate(
        float(slopes.mean()),
        float(slopes.std(ddof=1) / np.sqrt(number)),
        local.mean(1),
        local.std(1, ddof=1) / np.sqrt(number),
        bool(values[-1] < values[0]),
    )
