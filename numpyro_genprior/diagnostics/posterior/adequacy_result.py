"""`Adequacy`: the result of `adequacy`, and its finding in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_genprior.infer.map_result import number
from numpyro_genprior.results import Result, axis_names, dataset, refuse_axes

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ADEQUATE, NOISE, OUTSIDE = "adequate", "noise_too_small", "out_of_range"
MIN_P_VALUE = 0.01  # of χ²
MIN_LATENT_P_VALUE = 1e-3
MIN_STRUCTURE_P_VALUE = 1e-3  # below it the residual is not noise
MIN_EXPLAINED = 0.5  # share of the data's variance


@dataclass(frozen=True, repr=False, eq=False)
class Adequacy(Result):
    """Whether any event of the prior explains the data. Print it to read the finding.

    Attributes
    ----------
    verdict
        ``"adequate"``, ``"noise_too_small"`` or ``"out_of_range"``.
    chi2
        Pearson's χ² of the data at the mode.
    degrees
        Its expected value: the number of data minus ``Σ s²/(1+s²)``, which the latents fitted.
    p_value
        Share of replicates with a larger χ². A replicate is data drawn at the mode and fitted to
        first order.
    predictive_p_value
        The posterior predictive p-value: χ² of replicates against χ² of the data, over draws of
        the Gaussian posterior at the mode. Conservative: small values are too rare.
    latent_distance
        ``Σ (v·ẑ)² (1+s²)/s²`` over identified directions (s > 1): how far out the latent lies. Its
        distribution under the prior is χ² with `num_identified` degrees of freedom.
    num_identified
        Number of these directions.
    latent_p_value
        Probability of a larger distance.
    explained
        Share of the data's variance about the prior predictive mean that the mode explains, in
        units of the noise; of the refit if there was one.
    inflation
        Factor on the noise at which χ² of the refit is as expected; 1 if the fit was adequate.
    refit_latent_p_value
        `latent_p_value` of that refit.
    structure_p_value
        p-value of the hypothesis that the refit's residual is only noise. It uses the correlation
        of neighbours, along the axes of data in which those of the prior are smooth, and the mean.
        None if no data are smooth.
    residual_ratio
        Size of that residual relative to that expected from noise and `event_scale`; None without
        an event scale.
    residual
        Pearson residual at the mode, data-shaped (a dictionary if several sites are observed).
    direction
        The part of it that no movement of the latent reaches, to first order, scaled to unit
        length: where in the data to look for what the prior lacks.
    values
        All sites at the mode.
    """

    verdict: str
    chi2: float
    degrees: float
    p_value: float
    predictive_p_value: float
    latent_distance: float
    num_identified: int
    latent_p_value: float
    explained: float
    inflation: float
    refit_latent_p_value: float
    structure_p_value: float | None
    residual_ratio: float | None
    residual: jax.Array | dict[str, jax.Array]
    direction: jax.Array | dict[str, jax.Array]
    values: Mapping[str, jax.Array]

    @property
    def noise_factor(self) -> float:
        """``√(χ² / degrees)``: size of the residuals at the mode in units of the noise."""
        return math.sqrt(self.chi2 / self.degrees)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences if the noise is too large, or indistinguishable from structure."""
        sentences = []
        if self.p_value > 1 - MIN_P_VALUE:
            sentences.append("The noise scale of the model is larger than the residuals show.")
        if self.verdict != ADEQUATE and self.structure_p_value is None:
            sentences.append(
                "No axis of these data is smooth, so strong noise and an event out of range "
                "cannot be distinguished by the residual's structure."
            )
        return tuple(sentences)

    def __str__(self) -> str:
        lines = [
            self._headline(),
            *(f"  {line}" for line in self.evidence),
            f"  {self.explained:.0%} of the data's variance about the prior's mean is explained",
        ]
        if self.verdict != ADEQUATE:
            lines.append(
                f"  with noise {self.inflation:.3g} times as large the fit is as expected; "
                f"its latent has p {_p(self.refit_latent_p_value)}, its residual "
                + self._structure()
            )
        if self.residual_ratio is not None:
            lines.append(
                f"  the residual is {self.residual_ratio:.2g} times what noise and event_scale "
                "explain"
            )
        return "\n".join([*lines, *self.warnings, self._remedy()])

    @property
    def evidence(self) -> tuple[str, str]:
        """Two clauses: on χ² of the data, and on the distance of the latent."""
        return (
            f"χ² is {self.chi2:.4g} where {self.degrees:.4g} is expected (p {_p(self.p_value)}): "
            f"residuals are {self.noise_factor:.3g} times the noise",
            f"the latent's squared distance is {self.latent_distance:.4g} along "
            f"{number(self.num_identified, 'identified direction')}, a χ² of as many degrees of "
            f"freedom under the prior (p {_p(self.latent_p_value)})",
        )

    def _headline(self) -> str:
        if self.verdict == ADEQUATE:
            return "Adequate: an event of the prior explains the data as well as expected."
        if self.verdict == NOISE:
            return (
                "Noise too small: the prior has an event like this one, but not to within the "
                "noise."
            )
        improbable = self.refit_latent_p_value < MIN_LATENT_P_VALUE
        if self.explained >= MIN_EXPLAINED and improbable:
            return (
                "Out of range: the event that explains these data is extremely improbable under "
                "the prior."
            )
        return "Out of range: no event of the prior explains these data."

    def _structure(self) -> str:
        if self.structure_p_value is None:
            return "cannot be tested for structure"
        is_noise = self.structure_p_value >= MIN_STRUCTURE_P_VALUE
        return f"{'looks like noise' if is_noise else 'has structure'} (p " + (
            f"{_p(self.structure_p_value)})"
        )

    def _remedy(self) -> str:
        if self.verdict == NOISE:
            return (
                "The posterior of this model is overconfident. Observe with "
                "ngp.operators.MarginalNormal and the scale of "
                "ngp.diagnostics.estimate_event_scale, or make the noise scale a latent site."
            )
        if self.verdict == OUTSIDE:
            return (
                "Do not read this posterior as if it described the truth: look at direction and "
                "residual, check the forward model and the units, and use a prior for such events."
            )
        return "This does not say that the explanation is right, only that nothing contradicts it."

    def __repr__(self) -> str:
        return (
            f"Adequacy({self.verdict!r}, chi2={self.chi2:.3g}, degrees={self.degrees:.3g}, "
            f"explained={self.explained:.0%})"
        )

    def plot(self, ax: Axes | None = None, *, site: str | None = None) -> Figure | Axes:
        """Draw `numpyro_genprior.plots.adequacy`, which has several panels.

        Parameters
        ----------
        ax
            Must be None.
        site
            Which data to draw. None: if several sites are observed, those with the largest mean
            squared residual.
        """
        from numpyro_genprior import plots

        refuse_axes(ax, "an Adequacy")
        if site is None and isinstance(self.residual, dict):
            site = max(self.residual, key=lambda name: float(np.mean(self.residual[name] ** 2)))
        return plots.adequacy(self, site=site)

    def to_dataset(self) -> xarray.Dataset:
        """Residual and direction by the dimensions of the data, and the numbers without any.

        If several sites are observed, the variables are ``residual_<site>`` and
        ``direction_<site>``, each with its own dimensions.
        """
        arrays = {}
        for what, parts in (("residual", self.residual), ("direction", self.direction)):
            if not isinstance(parts, dict):
                arrays[what] = (axis_names(jnp.ndim(parts)), parts)
                continue
            for name, part in parts.items():
                arrays[f"{what}_{name}"] = (axis_names(jnp.ndim(part), name), part)
        numbers = {
            "chi2": self.chi2,
            "degrees": self.degrees,
            "p_value": self.p_value,
            "predictive_p_value": self.predictive_p_value,
            "latent_distance": self.latent_distance,
            "num_identified": self.num_identified,
            "latent_p_value": self.latent_p_value,
            "explained": self.explained,
            "inflation": self.inflation,
            "refit_latent_p_value": self.refit_latent_p_value,
            "structure_p_value": self.structure_p_value,
            "residual_ratio": self.residual_ratio,
        }
        known = {name: ((), value) for name, value in numbers.items() if value is not None}
        return dataset({**arrays, **known}, attrs={"verdict": self.verdict})


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-4 else "< 0.0001"
