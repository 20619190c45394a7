"""`posterior_collapse`: directions of the latents along which the posterior is just the prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpyro.infer import MCMC
from scipy import stats

from numpyro_genprior.diagnostics.posterior.draws import coordinates_of_run
from numpyro_genprior.errors import message
from numpyro_genprior.infer.map_result import number

RESOLVED = 0.2  # Monte Carlo standard error of a moment above which nothing can be said
INFORMED, PRIOR, UNDECIDED = "informed", "prior", "undecided"


@dataclass(frozen=True, repr=False)
class PosteriorCollapse:
    """Along which directions the posterior differs from the prior. Print it to read it.

    Attributes
    ----------
    names
        What each direction is called.
    mean, sd
        Posterior moments along each direction, in standard deviations of the prior.
    p_value
        Of the test that the posterior along a direction is the prior's standard normal.
    error
        Monte Carlo standard error of the mean along each direction: what the test can resolve.
    state
        For each direction ``"informed"`` (the test rejects, at `level` over all directions),
        ``"prior"`` or ``"undecided"`` (too few effective draws).
    level
        Probability of calling any direction informed when none is.
    left_out
        Sites that were not looked at, for they are not known to be standard normal under the prior.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    p_value: np.ndarray
    error: np.ndarray
    state: np.ndarray
    level: float
    left_out: tuple[str, ...] = ()

    @property
    def informed(self) -> np.ndarray:
        """Whether the data changed each direction."""
        return self.state == INFORMED

    @property
    def collapsed(self) -> np.ndarray:
        """Whether the posterior along each direction cannot be told from the prior."""
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

    def __repr__(self) -> str:
        size = len(self.names)
        lines = [
            f"The data changed {self.num_informed} of {number(size, 'direction')} "
            f"(level {self.level:g} over all)."
        ]
        if self.collapsed.any():
            names = [self.names[i] for i in np.flatnonzero(self.collapsed)]
            worst = self.error[self.collapsed].max()
            lines.append(
                f"  posterior = prior, as far as these draws tell (a shift of {3 * worst:.2f} "
                f"prior sd would show): {_listed(names)}"
            )
        if (self.state == UNDECIDED).any():
            names = [self.names[i] for i in np.flatnonzero(self.state == UNDECIDED)]
            lines.append(
                f"  too few effective draws to say: {_listed(names)}. Run longer, or look at r_hat."
            )
        if not self.informed.any() and not (self.state == UNDECIDED).any():
            lines.append(
                "The posterior is the prior: check that the likelihood depends on the event, and "
                "decoder_collapse(prior, key)."
            )
        elif self.collapsed.any():
            lines.append("What events show along these directions is the prior's invention.")
        if self.left_out:
            lines.append(
                f"Not looked at: {_listed(list(self.left_out))}: not known to be standard normal "
                "under the prior."
            )
        return "\n".join(lines)


def posterior_collapse(
    samples_or_mcmc: Any,
    *,
    var_names: Sequence[str] | None = None,
    directions: Any = None,
    level: float = 0.01,
) -> PosteriorCollapse:
    """Is the posterior just the prior? Along each direction, allowing for Monte Carlo error.

    Coordinates are standard normal under the prior. Along a direction, the means over draws of the
    Hermite polynomials ``h_1 .. h_4`` (orthonormal under N(0, 1)) are compared with 0, each with
    its effective number of draws (Geyer, by ArviZ): the sum of squares is χ² with 4 degrees of
    freedom when posterior and prior agree. Higher moments matter: modes at ±1 have the prior's
    mean and variance. Levels are Holm's, over all directions.

    Parameters
    ----------
    samples_or_mcmc
        A NumPyro `MCMC` after ``run`` (its latents in standard normal coordinates, those without
        any, a Dirichlet say, left out); or draws of
        standard normal latents of shape ``(chains, draws, size)`` (``(draws, size)`` is one
        chain), an array or a dictionary by site. An `MCMC` knows which of its sites are
        standard normal under the prior; of a dictionary, `var_names` says so.
    var_names
        Names of the sites to look at, latents and decoder noise (``("x_latent", "x_noise")``).
        None: all of them.
    directions
        Directions of shape ``(k, size)`` to look along, ``sensitivity(...).latent_directions``
        say; rows are scaled to unit length. None: each coordinate.
    level
        Probability of calling any direction informed when none is.

    Returns
    -------
    PosteriorCollapse
        ``.state`` by direction, ``.verdict``; prints as a finding.

    Raises
    ------
    TypeError, ValueError
        When there are no draws, too few, or directions of another size; when sites of a dictionary
        do not agree in chains and draws, or have more chains than draws (draws of a plate without
        ``group_by_chain``).

    Notes
    -----
    **Fails when** chains have not mixed: an effective number of draws then says too much, or, by
    ArviZ's way with chains that disagree, next to nothing ("undecided").

    References
    ----------
    Neyman, Smooth test for goodness of fit, 1937. Geyer, Practical Markov chain Monte Carlo, 1992.
    Holm, A simple sequentially rejective multiple test procedure, 1979.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro_genprior as ngp
    >>> draws = jax.random.normal(jax.random.key(0), (4, 500, 2)) * jnp.array([1.0, 0.3])
    >>> ngp.diagnostics.posterior_collapse(draws).state
    array(['prior', 'informed'], dtype='<U9')
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
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        draws, names = draws @ rows.T, tuple(f"direction {i}" for i in range(len(rows)))
    statistic, error = _statistic(draws)
    p_value = stats.chi2.sf(statistic, 4)
    informed = _holm(p_value, level)
    state = np.where(informed, INFORMED, np.where(error > RESOLVED, UNDECIDED, PRIOR))
    return PosteriorCollapse(
        names, draws.mean((0, 1)), draws.std((0, 1)), p_value, error, state, level, left_out
    )


def _statistic(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of squares of four standardised moments, and the error of the first."""
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


def _ess(values: np.ndarray) -> np.ndarray:
    """Effective number of draws for a mean, at most the number of draws, at least 1."""
    import arviz as az

    data: Any = az.convert_to_dataset({"z": values})
    with np.errstate(all="ignore"):
        ess = np.asarray(az.ess(data, method="mean")["z"])
    most = values.shape[0] * values.shape[1]
    return np.clip(np.nan_to_num(ess, nan=1.0), 1.0, most)


def _holm(p_value: np.ndarray, level: float) -> np.ndarray:
    order = np.argsort(p_value)
    steps = p_value[order] <= level / (len(p_value) - np.arange(len(p_value)))
    rejected = np.zeros(len(p_value), bool)
    rejected[order] = np.cumprod(steps).astype(bool)
    return rejected


def _draws(
    samples: Any, var_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Draws of shape (chains, draws, size), the names of coordinates, and sites left out."""
    if isinstance(samples, MCMC):
        posterior, xi = coordinates_of_run(samples, "posterior_collapse")
        if not any(place.rule.standard_normal for place in posterior.layout.slices):
            posterior.require_standard_normal("posterior_collapse")
        slices = posterior.layout.slices
        chosen = [p.rule.standard_normal and (not var_names or p.name in var_names) for p in slices]
        others = tuple(p.name for p, keep in zip(slices, chosen, strict=True) if not keep)
        keep = np.flatnonzero(np.repeat(chosen, [p.size for p in slices]))
        names = tuple(posterior.layout.labels[i] for i in keep)
        return np.asarray(xi, float)[..., keep], names, others
    by_site = isinstance(samples, dict)
    every = samples if by_site else {"z": samples}
    kept = _chosen(every, var_names)
    parts, names = {}, []
    for name in kept:
        array = np.asarray(jax.device_get(every[name]), float)
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
                "posterior_collapse cannot tell chains from draws",
                expected="sites of shape (chains, draws, ...), with more draws than chains",
                got=f"(chains, draws) {shapes}",
                remedy="pass mcmc itself, or mcmc.get_samples(group_by_chain=True); an array of "
                "shape (chains, draws, size) may have many chains",
            )
        )
    left_out = tuple(name for name in every if name not in kept)
    return np.concatenate(list(parts.values()), axis=-1), tuple(names), left_out


def _chosen(samples: Mapping[str, Any], var_names: Sequence[str] | None) -> list[str]:
    """The sites of a dictionary to look at."""
    missing = [name for name in var_names or () if name not in samples]
    events = [] if var_names else [name for name in samples if f"{name}_latent" in samples]
    if missing or events:
        what = (
            f"there are no draws of {missing[0]!r}"
            if missing
            else f"{events[0]!r} is made of {events[0] + '_latent'!r}, and not standard normal"
        )
        raise ValueError(
            message(
                f"posterior_collapse: {what}",
                expected="latents and decoder noise",
                got=list(samples),
                remedy='name them, var_names=("x_latent",), or pass the MCMC itself',
            )
        )
    return list(var_names or samples)


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
