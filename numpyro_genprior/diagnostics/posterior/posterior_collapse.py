"""`posterior_collapse`: directions of the latents along which the posterior equals the prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Shaped
from numpyro.infer import MCMC
from scipy import stats

from numpyro_genprior.diagnostics.multiple_testing import holm
from numpyro_genprior.diagnostics.posterior.draws import coordinates_of_run
from numpyro_genprior.errors import message
from numpyro_genprior.infer.map_result import number
from numpyro_genprior.results import Result, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

MAX_ERROR = 0.2  # Monte Carlo standard error of the mean above which a direction is undecided
MAX_LISTED = 8  # names that are printed
INFORMED, PRIOR, UNDECIDED = "informed", "prior", "undecided"


@dataclass(frozen=True, repr=False, eq=False)
class PosteriorCollapse(Result):
    """Along which directions the posterior differs from the prior. Print it to read the finding.

    Attributes
    ----------
    names
        Name of each direction.
    mean, sd
        Posterior moments along each direction, in standard deviations of the prior.
    p_value
        p-value of the test that the posterior along each direction is the prior's standard normal.
    error
        Monte Carlo standard error of the mean along each direction: what the test can resolve.
    state
        For each direction ``"informed"`` (the test rejects, at `level` over all directions),
        ``"prior"`` or ``"undecided"`` (too few effective draws).
    level
        Probability of calling any direction informed if none is.
    left_out
        Sites that were not examined, because they are not known to be standard normal under the
        prior.
    """

    names: tuple[str, ...]
    mean: Float[np.ndarray, " directions"]
    sd: Float[np.ndarray, " directions"]
    p_value: Float[np.ndarray, " directions"]
    error: Float[np.ndarray, " directions"]
    state: Shaped[np.ndarray, " directions"]
    level: float
    left_out: tuple[str, ...] = ()

    @property
    def informed(self) -> np.ndarray:
        """Whether the data changed each direction."""
        return self.state == INFORMED

    @property
    def collapsed(self) -> np.ndarray:
        """Whether the posterior along each direction is indistinguishable from the prior."""
        return self.state == PRIOR

    @property
    def num_informed(self) -> int:
        """Number of informed directions."""
        return int(self.informed.sum())

    @property
    def shrinkage(self) -> np.ndarray:
        """Posterior variance over the prior's, along each direction."""
        return self.sd**2

    @property
    def verdict(self) -> str:
        """``"informed"``, ``"partly_collapsed"``, ``"collapsed"`` or ``"undecided"``."""
        if (self.state == UNDECIDED).any():
            return UNDECIDED
        if self.informed.all():
            return INFORMED
        return "partly_collapsed" if self.informed.any() else "collapsed"

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence if some directions have too few effective draws."""
        undecided = self._named(self.state == UNDECIDED)
        if not undecided:
            return ()
        return (
            f"Too few effective draws to decide about {_listed(undecided)}: run longer, or look at "
            "r_hat.",
        )

    def _named(self, which: np.ndarray) -> list[str]:
        return [self.names[i] for i in np.flatnonzero(which)]

    def __str__(self) -> str:
        lines = [
            f"The data changed {self.num_informed} of {number(len(self.names), 'direction')} "
            f"(level {self.level:g} over all)."
        ]
        collapsed = self._named(self.collapsed)
        if collapsed:
            shift = 3 * self.error[self.collapsed].max()
            lines.append(
                f"  posterior = prior, as far as these draws can tell (a shift of {shift:.2f} "
                f"prior sd would be visible): {_listed(collapsed)}"
            )
        lines += self.warnings
        if self.verdict == "collapsed":
            lines.append(
                "The posterior is the prior: check that the likelihood depends on the event, and "
                "decoder_collapse(prior, key)."
            )
        elif collapsed:
            lines.append("What events show along these directions comes from the prior alone.")
        if self.left_out:
            lines.append(
                f"Not examined: {_listed(self.left_out)}, not known to be standard normal under "
                "the prior."
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"PosteriorCollapse({self.verdict!r}, num_informed={self.num_informed} of "
            f"{len(self.names)})"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw `numpyro_genprior.plots.latent_shrinkage`."""
        from numpyro_genprior import plots

        return plots.latent_shrinkage(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """Moments, p-values and states by ``direction``, whose coordinates are the names."""
        columns = {
            "mean": self.mean,
            "sd": self.sd,
            "p_value": self.p_value,
            "error": self.error,
            "state": self.state,
        }
        return dataset(
            {name: (("direction",), column) for name, column in columns.items()},
            coords={"direction": list(self.names)},
            attrs={
                "verdict": self.verdict,
                "level": self.level,
                "left_out": ", ".join(self.left_out),
            },
        )


def posterior_collapse(
    samples_or_mcmc: MCMC | Mapping[str, ArrayLike] | ArrayLike,
    *,
    var_names: Sequence[str] | None = None,
    directions: ArrayLike | None = None,
    level: float = 0.01,
) -> PosteriorCollapse:
    """Test along which directions the posterior equals the prior, allowing for Monte Carlo error.

    Coordinates are standard normal under the prior. Along a direction, the means over draws of the
    Hermite polynomials ``h_1 .. h_4`` (orthonormal under N(0, 1)) are compared with 0, each with
    its effective sample size (Geyer, by ArviZ): if posterior and prior agree, the sum of squares
    is χ² with 4 degrees of freedom. Higher moments matter: modes at ±1 have the prior's mean and
    variance. Holm's procedure keeps the level over all directions.

    Parameters
    ----------
    samples_or_mcmc
        A NumPyro `MCMC` after ``run``: its latents are examined in standard normal coordinates,
        and those without any (a Dirichlet, for example) are left out. Or draws of standard normal
        latents of shape ``(chains, draws, size)`` (``(draws, size)`` is one chain), as an array or
        a dictionary by site. An `MCMC` knows which of its sites are standard normal under the
        prior; for a dictionary, give them as `var_names`.
    var_names
        Names of the sites to examine, latents and decoder noise (``("x_latent", "x_noise")``).
        None: all of them.
    directions
        Directions of shape ``(k, size)`` to examine, for example
        ``sensitivity(...).latent_directions``; rows are scaled to unit length. None: each
        coordinate.
    level
        Probability of calling any direction informed if none is.

    Returns
    -------
    PosteriorCollapse
        ``.state`` by direction, ``.verdict``; ``print`` states the finding.

    Raises
    ------
    TypeError
        If the kernel of the `MCMC` has no model.
    ValueError
        If there are no draws or too few, or `directions` have another size; if the sites of a
        dictionary differ in chains and draws, or have more chains than draws (draws of a plate
        without ``group_by_chain``).

    Notes
    -----
    **Fails when** chains have not mixed: the effective sample size is then too large, or, because
    ArviZ reduces it for chains that disagree, close to 1 ("undecided").

    References
    ----------
    Neyman, Smooth test for goodness of fit, 1937. Geyer, Practical Markov chain Monte Carlo, 1992.
    Holm, A simple sequentially rejective multiple test procedure, 1979.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro_genprior as ngp
    >>> draws = jax.random.normal(jax.random.key(0), (4, 500, 2)) * jnp.array([1.0, 0.3])
    >>> ngp.diagnostics.posterior_collapse(draws)
    PosteriorCollapse('partly_collapsed', num_informed=1 of 2)
    """
    draws, names, left_out = _draws(samples_or_mcmc, var_names)
    chains, length, size = draws.shape
    if chains * length < 8 or length < 4:
        raise ValueError(
            message(
                "posterior_collapse: too few draws",
                expected="at least 4 of each chain",
                got=f"{length} of {chains}",
                remedy="raise num_samples",
            )
        )
    if not np.isfinite(draws).all():
        raise ValueError(message("posterior_collapse: draws are not finite", remedy="drop them"))
    if directions is not None:
        rows = _unit_rows(directions, size)
        draws, names = draws @ rows.T, tuple(f"direction {i}" for i in range(len(rows)))
    statistic, error = _statistic(draws)
    p_value = stats.chi2.sf(statistic, 4)
    informed = holm(p_value) <= level
    state = np.where(informed, INFORMED, np.where(error > MAX_ERROR, UNDECIDED, PRIOR))
    return PosteriorCollapse(
        names, draws.mean((0, 1)), draws.std((0, 1)), p_value, error, state, level, left_out
    )


def _unit_rows(directions: ArrayLike, size: int) -> Float[np.ndarray, "k size"]:
    rows = np.atleast_2d(np.asarray(directions, float))
    if rows.ndim != 2 or rows.shape[1] != size:
        raise ValueError(
            message(
                "Directions of the wrong size",
                expected=f"(k, {size})",
                got=np.shape(directions),
                remedy="give rows in the coordinates of the draws",
            )
        )
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _statistic(
    draws: Float[np.ndarray, "chains draws k"],
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """The sum of squares of four standardised moments, and the standard error of the first."""
    z = draws
    hermite = [
        z,
        (z**2 - 1) / np.sqrt(2),
        (z**3 - 3 * z) / np.sqrt(6),
        (z**4 - 6 * z**2 + 3) / np.sqrt(24),
    ]
    total, error = np.zeros(z.shape[-1]), np.ones(z.shape[-1])
    for degree, h in enumerate(hermite):
        ess = _ess(h)
        total += ess * h.mean((0, 1)) ** 2
        if degree == 0:
            error = 1 / np.sqrt(ess)
    return total, error


def _ess(values: Float[np.ndarray, "chains draws k"]) -> Float[np.ndarray, " k"]:
    """Effective sample size for a mean, clipped to between 1 and the number of draws."""
    import arviz as az

    data = az.convert_to_dataset({"z": values})
    with np.errstate(all="ignore"):
        ess = np.asarray(az.ess(data, method="mean")["z"])
    num_draws = values.shape[0] * values.shape[1]
    return np.clip(np.nan_to_num(ess, nan=1.0), 1.0, num_draws)


Draws = tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]
"""Draws of shape ``(chains, draws, size)``, the names of coordinates, and sites left out."""


def _draws(
    samples: MCMC | Mapping[str, ArrayLike] | ArrayLike, var_names: Sequence[str] | None
) -> Draws:
    if isinstance(samples, MCMC):
        return _draws_of_run(samples, var_names)
    if isinstance(samples, Mapping):
        return _draws_of_sites(samples, _chosen(samples, var_names), by_site=True)
    return _draws_of_sites({"z": samples}, ["z"], by_site=False)


def _draws_of_run(mcmc: MCMC, var_names: Sequence[str] | None) -> Draws:
    posterior, xi = coordinates_of_run(mcmc, "posterior_collapse")
    slices = posterior.layout.slices
    if not any(site_slice.rule.standard_normal for site_slice in slices):
        posterior.require_standard_normal("posterior_collapse")
    chosen = [p.rule.standard_normal and (not var_names or p.name in var_names) for p in slices]
    others = tuple(p.name for p, keep in zip(slices, chosen, strict=True) if not keep)
    keep = np.flatnonzero(np.repeat(chosen, [p.size for p in slices]))
    names = tuple(posterior.layout.labels[i] for i in keep)
    return np.asarray(xi, float)[..., keep], names, others


def _draws_of_sites(
    samples: Mapping[str, ArrayLike], kept: Sequence[str], *, by_site: bool
) -> Draws:
    parts, names = {}, []
    for name in kept:
        array = np.asarray(jax.device_get(samples[name]), float)
        if array.ndim < 2:
            raise ValueError(
                message(
                    f"Draws of {name!r} have no dimension of latents",
                    expected="(chains, draws, size), or (draws, size)",
                    got=array.shape,
                    remedy="pass mcmc itself, or mcmc.get_samples(group_by_chain=True)['x_latent']",
                )
            )
        array = array[None] if array.ndim == 2 else array
        parts[name] = array.reshape(*array.shape[:2], -1)
        names += [f"{name}[{i}]" for i in range(parts[name].shape[-1])]
    if not parts:
        raise ValueError(message("posterior_collapse: no draws", remedy="pass the MCMC itself"))
    shapes = {name: part.shape[:2] for name, part in parts.items()}
    chains, draws = next(iter(shapes.values()))
    if len(set(shapes.values())) > 1 or (by_site and chains > draws):
        raise ValueError(
            message(
                "posterior_collapse cannot distinguish chains from draws",
                expected="sites of shape (chains, draws, ...), with more draws than chains",
                got=f"(chains, draws) {shapes}",
                remedy="pass mcmc itself, or mcmc.get_samples(group_by_chain=True); an array of "
                "shape (chains, draws, size) may have many chains",
            )
        )
    left_out = tuple(name for name in samples if name not in kept)
    return np.concatenate(list(parts.values()), axis=-1), tuple(names), left_out


def _chosen(samples: Mapping[str, ArrayLike], var_names: Sequence[str] | None) -> list[str]:
    """The sites of a dictionary to examine."""
    missing = [name for name in var_names or () if name not in samples]
    events = [] if var_names else [name for name in samples if f"{name}_latent" in samples]
    if missing or events:
        what = f"there are no draws of {missing[0]!r}" if missing else (
            f"{events[0]!r} is an event, and not standard normal under the prior"
        )  # fmt: skip
        raise ValueError(
            message(
                f"posterior_collapse: {what}",
                expected="latents and decoder noise",
                got=list(samples),
                remedy='name them, var_names=("x_latent",), or pass the MCMC itself',
            )
        )
    return list(var_names or samples)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
