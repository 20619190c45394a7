"""`coverage`: how often intervals contain the truth, for events that the prior has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float
from numpyro.infer.mcmc import MCMCKernel
from scipy import stats

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.calibration.convergence import Convergence
from numpyro_genprior.diagnostics.calibration.experiment import prepare
from numpyro_genprior.diagnostics.calibration.inference import choose_method, limit_draws
from numpyro_genprior.diagnostics.calibration.ranked_quantities import (
    Functional,
    Quantities,
    event_entries,
)
from numpyro_genprior.diagnostics.calibration.ranks import Ranks, jittered, rank_truths
from numpyro_genprior.diagnostics.calibration.simulation import Sites
from numpyro_genprior.diagnostics.multiple_testing import holm
from numpyro_genprior.errors import message
from numpyro_genprior.infer.methods import Method
from numpyro_genprior.results import Result, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

COVERS, NARROW, WIDE, UNDECIDED = "covers", "too_narrow", "too_wide", "undecided"
MAX_PIXELS = 1024  # entries of an event that are examined by default


@dataclass(frozen=True, repr=False, eq=False)
class Coverage(Result):
    """How often central intervals contain the truth.

    Attributes
    ----------
    levels
        Nominal probabilities of the intervals, of shape ``(levels,)``.
    coverage
        For each quantity, the share of truths inside, over events and entries, of shape
        ``(levels,)``.
    error
        Standard errors of `coverage`; events count as independent, entries of one event do not.
    entries
        For each quantity, the coverage of each of its entries, of shape ``(levels, *shape)``.
    num_events
        Number of events with finite draws.
    num_draws
        Number of draws that intervals are computed from, after thinning.
    level
        Probability of calling any interval wrong if all are right.
    convergence
        Convergence of the inference runs.
    """

    levels: Float[np.ndarray, " levels"]
    coverage: dict[str, Float[np.ndarray, " levels"]]
    error: dict[str, Float[np.ndarray, " levels"]]
    entries: dict[str, np.ndarray]
    num_events: int
    num_draws: int
    level: float
    convergence: Convergence

    @property
    def p_values(self) -> dict[str, Float[np.ndarray, " levels"]]:
        """p-values of nominal coverage, adjusted for all quantities and levels (Holm)."""
        z = [np.abs(self.coverage[name] - self.levels) / self.error[name] for name in self.coverage]
        raw = 2 * stats.t.sf(np.concatenate(z), self.num_events - 1)
        rows = holm(raw).reshape(len(self.coverage), len(self.levels))
        return dict(zip(self.coverage, rows, strict=True))

    @property
    def failing(self) -> dict[str, str]:
        """``"too_narrow"`` or ``"too_wide"``, for the quantities that fail at some level."""
        deviations = {}
        for name, p in self.p_values.items():
            if p.min() <= self.level:
                worst = int(np.argmin(p))
                below = self.coverage[name][worst] < self.levels[worst]
                deviations[name] = NARROW if below else WIDE
        return deviations

    @property
    def verdict(self) -> str:
        """``"covers"``, ``"too_narrow"``, ``"too_wide"`` or ``"undecided"``.

        Too narrow if intervals are too narrow for any quantity; undecided if no interval is found
        wrong, but inference was unreliable.
        """
        failing = self.failing.values()
        if failing:
            return NARROW if NARROW in failing else WIDE
        return COVERS if self.convergence.acceptable else UNDECIDED

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the inference runs, one sentence each."""
        return self.convergence.warnings(self.num_draws)

    def __repr__(self) -> str:
        return (
            f"Coverage(verdict={self.verdict!r}, quantities={len(self.coverage)}, "
            f"failing={len(self.failing)}, events={self.num_events})"
        )

    def __str__(self) -> str:
        failing, p_values = self.failing, self.p_values
        head = {
            COVERS: f"Coverage is nominal, as far as {self.num_events} events can tell.",
            NARROW: "Intervals are too narrow.",
            WIDE: "Intervals are too wide.",
            UNDECIDED: "Undecided: no interval is found wrong, but inference was unreliable.",
        }[self.verdict]
        width = max(12, *(len(name) for name in self.coverage))
        nominal = "".join(f"{100 * level:>12.3g} %" for level in self.levels)
        lines = [f"{head}", f"  {'nominal':<{width}}{nominal}"]
        for name, covered in self.coverage.items():
            cells = "".join(
                f"{f'{100 * c:.1f} ± {100 * e:.1f}':>14}"
                for c, e in zip(covered, self.error[name], strict=True)
            )
            remark = ""
            if name in failing:
                worst = 100 * self.levels[int(np.argmin(p_values[name]))]
                what = "misses too often" if failing[name] == NARROW else "too wide"
                remark = f"   {what}, most clearly at {worst:.3g} %"
            lines.append(f"  {name:<{width}}{cells}{remark}")
        lines.append(
            f"  {self.num_events} events, one data set each; intervals from {self.num_draws} draws"
        )
        lines += [f"  {warning}" for warning in self.warnings]
        lines.append(
            "Averages over events and entries: single pixels may be far off (`.entries`). The data "
            "are simulated, so that errors of the forward model or the noise go undetected."
        )
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the share of truths inside against the nominal level."""
        from numpyro_genprior.plots import coverage

        return coverage(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """Coverage by quantity and level, and that of single entries (``"x_entries"``)."""
        dims = ("quantity", "level")
        variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
            name: (dims, np.stack(list(values.values())))
            for name, values in (
                ("coverage", self.coverage), ("error", self.error), ("p_value", self.p_values)
            )
        }  # fmt: skip
        for name, values in self.entries.items():
            if values.ndim > 1:
                entry_dims = tuple(f"{name}_dim_{i}" for i in range(values.ndim - 1))
                variables[f"{name}_entries"] = (("level", *entry_dims), values)
        attrs = {"num_events": self.num_events, "num_draws": self.num_draws}
        return dataset(
            variables,
            coords={"quantity": list(self.coverage), "level": self.levels},
            attrs={**attrs, "verdict": self.verdict},
        )


def coverage(
    model: Callable[..., Any],
    key: jax.Array,
    *args: Any,
    events: ArrayLike,
    site: str | None = None,
    method: Method | None = None,
    kernel: Callable[..., MCMCKernel] | None = None,
    guide: Callable[..., Any] | None = None,
    levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95),
    functionals: Mapping[str, Functional] | None = None,
    observed: str | tuple[str, ...] | None = None,
    level: float = 0.05,
    batch_size: int | None = None,
    progress_bar: bool = True,
    **kwargs: Any,
) -> Coverage:
    """How often do posterior intervals contain the truth, for real events?

    Each event replaces a draw from the prior; data are drawn from the likelihood;
    inference is run on each data set, vmapped, and the central intervals of pixels and functionals
    are compared with the event. If the prior is wrong about events, intervals do not cover, however
    exact the inference: `sbc` assumes that the prior is right, and this does not.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` if it has priors without an
        exact density.
    key
        Random key.
    args, kwargs
        The model's arguments, including data of the right shape, whose values do not matter.
    events
        Events that training has not seen, of shape ``(number, *shape of the site)``.
    site
        Name of the event's site. None: the only one there is.
    method, kernel, guide, observed
        As for `sbc`.
    levels
        Probabilities of the intervals.
    functionals
        Quantities of interest by name, each a function of a dictionary of sites. The event's own
        latents have no true value. None: the event's entries (at most 1024 of them, evenly
        spaced), their mean and their root mean square.
    level
        Probability of calling any interval wrong if all are right.
    batch_size, progress_bar
        As for `sbc`.

    Returns
    -------
    Coverage
        ``.verdict``, ``.coverage``, ``.error``, ``.entries``.

    Raises
    ------
    TypeError, ValueError
        As `sbc` does, and if the shape of the events differs from their site's.

    Notes
    -----
    A truth is inside the central interval of probability c if its rank among the draws, as a
    number between 0 and 1, is within c/2 of 1/2; ties are broken at random. Entries of one event
    are not independent: standard errors are those of the mean over events of their shares, with
    the binomial variance of one event added, so that none is zero. Latents other than the event's
    are drawn from their prior.

    **Fails when** there are few events, or they differ from those to come. A prior that is right on
    average over events may be wrong about each kind of them: look at `entries`, and test each kind.

    References
    ----------
    Dawid, The well-calibrated Bayesian, JASA 1982. Säilynoja et al. 2022, see `sbc`.

    Examples
    --------
    A prior that is right, and one that is too narrow:

    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> import numpyro_genprior as ngp
    >>> @ngp.latent
    ... def model(scale, y):
    ...     x = numpyro.sample("x", ngp.GANPrior(lambda z: scale * z, 3))
    ...     numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)
    >>> events = jax.random.normal(jax.random.key(0), (200, 3))
    >>> for scale in (1.0, 0.2):
    ...     result = ngp.diagnostics.coverage(
    ...         model,
    ...         jax.random.key(1),
    ...         jnp.array(scale),
    ...         jnp.zeros(3),
    ...         events=events,
    ...         guide=ngp.infer.AutoFisherLaplace,
    ...         progress_bar=False,
    ...     )
    ...     print(result.verdict)
    covers
    too_narrow
    """
    held_out = jnp.asarray(events)
    nominal = np.atleast_1d(np.asarray(levels, float))
    if not ((nominal > 0) & (nominal < 1)).all():
        raise ValueError(
            message(
                "coverage: levels are probabilities",
                expected="numbers between 0 and 1",
                got=list(levels),
                remedy="leave levels=(0.5, 0.8, 0.9, 0.95)",
            )
        )
    method = limit_draws(choose_method("coverage", method, kernel, guide))
    number = len(held_out) if held_out.ndim else 0
    experiment = prepare("coverage", model, args, kwargs, observed, number, method)
    name = event_site(experiment.sites, site, held_out.shape[1:])
    data_key, run_key = jax.random.split(validation.random_key(key))
    simulated = experiment.simulate(data_key, number, given={name: held_out})
    if functionals is None:
        functionals = event_entries(experiment.sites, name, MAX_PIXELS)
    shapes = {k: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for k, v in simulated.items()}
    quantities = Quantities(functionals, shapes)
    truth = np.asarray(jax.vmap(quantities)(simulated))
    batches = experiment.run(
        run_key, simulated, quantities, batch_size=batch_size, progress_bar=progress_bar
    )
    ranked = rank_truths(batches, truth, method, name="coverage")
    return _summarise(quantities, ranked, nominal, level)


def event_site(sites: Sites, site: str | None, shape: tuple[int, ...]) -> str:
    """The name of the site whose values are events of this shape.

    Raises
    ------
    ValueError
        If there is no such site, or several, or if its shape differs.
    """
    if site is None and len(sites.events) != 1:
        raise ValueError(
            message(
                "coverage does not know which site the events belong to",
                expected="one recorded event of a prior",
                got=list(sites.events) or "none",
                remedy='name it, site="x"; under ngp.latent leave record=True',
            )
        )
    name = sites.events[0] if site is None else site
    if name not in sites.shapes:
        raise ValueError(
            message(
                f"coverage: there is no site {name!r}",
                expected=f"one of {sorted(sites.shapes)}",
                remedy="name a recorded event",
            )
        )
    if shape != sites.shapes[name]:
        raise ValueError(
            message(
                f"coverage: the shape of the events differs from that of site {name!r}",
                expected=f"(number, {', '.join(map(str, sites.shapes[name]))})",
                got=f"(number, {', '.join(map(str, shape))})",
                remedy="stack events along the first dimension",
            )
        )
    return name


def _summarise(
    quantities: Quantities, ranked: Ranks, levels: Float[np.ndarray, " levels"], level: float
) -> Coverage:
    distance = np.abs(jittered(ranked.ranks, ranked.num_draws) - 0.5)
    inside = distance[None] < levels[:, None, None] / 2  # (levels, events, quantities)
    number = distance.shape[0]
    covered, error, entries = {}, {}, {}
    for name, part in quantities.split(inside).items():
        entries[name] = part.mean(1)
        share_by_event = part.reshape(len(levels), number, math.prod(part.shape[2:])).mean(-1)
        covered[name] = share_by_event.mean(1)
        squares = ((share_by_event - covered[name][:, None]) ** 2).sum(1) + levels * (1 - levels)
        error[name] = np.sqrt(squares / (number * (number - 1)))
    return Coverage(
        levels, covered, error, entries, number, ranked.num_draws, level, ranked.convergence
    )
