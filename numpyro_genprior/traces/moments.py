"""`event_moments`: mean, standard deviation and quantiles of events over draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike
from numpyro.distributions import Distribution
from numpyro.infer import MCMC

from numpyro_genprior.errors import message
from numpyro_genprior.infer.smc.smc import SMCResult
from numpyro_genprior.priors import Prior
from numpyro_genprior.results import Result, axis_names, dataset, refuse_axes
from numpyro_genprior.sites.model_reader import Site
from numpyro_genprior.traces.arguments import Arguments
from numpyro_genprior.traces.latent_draws import LatentDraws, require_prior
from numpyro_genprior.traces.model_sites import read_run
from numpyro_genprior.traces.sources import PosteriorDraws, Request, posterior_draws
from numpyro_genprior.traces.streaming_moments import (
    mean_and_variance,
    quantiles_over_draws,
    recorded_moments,
)

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_TAIL_DRAWS = 5  # draws beyond a quantile, below which its Monte Carlo error is large


@dataclass(frozen=True, repr=False, eq=False)
class EventMoments(Result):
    """Moments of an event over draws.

    Attributes
    ----------
    mean, sd
        Arrays of the event's shape, with the prior's batch dimensions in front; in units of the
        event.
    quantiles
        Array of shape ``(len(probabilities), *batch_shape, *event_shape)``.
    probabilities
        Levels of the quantiles.
    num_draws
        Number of draws.
    event_ndim
        Number of dimensions of a single event.
    warnings
        Entries that are not finite, and quantiles too far in the tail for the number of draws.
    """

    mean: np.ndarray
    sd: np.ndarray
    quantiles: np.ndarray
    probabilities: tuple[float, ...]
    num_draws: int
    event_ndim: int

    @property
    def warnings(self) -> tuple[str, ...]:  # type: ignore[override]
        sentences = []
        num_bad = int(np.sum(~(np.isfinite(self.mean) & np.isfinite(self.sd))))
        if num_bad:
            sentences.append(
                f"The mean or the standard deviation is not finite at {num_bad} of "
                f"{self.mean.size} entries: look for draws whose event overflows."
            )
        tails = [
            p for p in self.probabilities if 0 < min(p, 1 - p) * self.num_draws < MIN_TAIL_DRAWS
        ]
        if tails:
            sentences.append(
                f"Fewer than {MIN_TAIL_DRAWS} of {self.num_draws} draws lie beyond the quantiles "
                f"at {', '.join(f'{p:g}' for p in tails)}: their Monte Carlo error is large."
            )
        return tuple(sentences)

    def __str__(self) -> str:
        sd = self.sd.astype(float)
        lines = [
            f"Moments of an event of shape {self.mean.shape} over {self.num_draws} draws.",
            f"The mean ranges from {np.min(self.mean):.3g} to {np.max(self.mean):.3g}.",
            f"The standard deviation ranges from {sd.min():.3g} to {sd.max():.3g}, with median "
            f"{np.median(sd):.3g}.",
        ]
        return "\n".join([*lines, *self.warnings])

    def __repr__(self) -> str:
        return f"EventMoments(shape={self.mean.shape}, num_draws={self.num_draws})"

    def plot(self, ax: Axes | None = None) -> Axes | Figure:
        """Draw the mean and the standard deviation.

        A curve (an event of one dimension) is drawn in one Axes, as the mean with a band of two
        standard deviations; an image in two panels.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the event, its batch dimensions included, has neither one nor two dimensions, or if
            `ax` is given for an image.
        """
        from numpyro_genprior import plots

        if self.mean.ndim == 2:
            refuse_axes(ax, "the moments of an image")
        return plots.event_moments(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """Variables ``mean``, ``sd`` and, if there are any, ``quantiles``.

        Dimensions are ``row`` and ``col`` for an image, ``entry`` for a vector, and
        ``batch_dim_0`` and so on for the prior's batch.
        """
        batch = [f"batch_dim_{i}" for i in range(self.mean.ndim - self.event_ndim)]
        dims = (*batch, *axis_names(self.event_ndim))
        variables = {"mean": (dims, self.mean), "sd": (dims, self.sd)}
        coords = {}
        if self.probabilities:
            variables["quantiles"] = (("probability", *dims), self.quantiles)
            coords["probability"] = np.array(self.probabilities)
        return dataset(variables, coords, {"num_draws": self.num_draws})


def event_moments(
    prior: Distribution,
    draws: ArrayLike | MCMC | SMCResult,
    *,
    site: str | None = None,
    quantiles: float | Sequence[float] = (),
    noise: bool = True,
    condition: ArrayLike | None = None,
    batch_size: int | None = None,
) -> EventMoments:
    """Mean, standard deviation and quantiles of the event over posterior draws.

    From latents, events are decoded a batch of draws at a time and not kept: memory holds one
    batch, and a few arrays of the size of one event.

    Parameters
    ----------
    prior
        The prior of these draws, expanded as in the model if a plate expanded it there.
    draws
        Latents of shape ``draws + batch_shape + latent.event_shape``: all leading dimensions
        beyond the prior's batch shape (chains, draws) are averaged over. Or a run, `MCMC` or
        `SMCResult`: then the moments are those of the event that it recorded, with the noise that
        it inferred; an event that was not recorded (``record=False``) is decoded from its latent.
    site
        Name of the event in the run; needed if several of its sites have priors.
    quantiles
        Levels in [0, 1].
    noise
        Whether the event includes decoder noise (a `VAEPrior`'s), or is g(z) alone. If the model
        ran with ``noise="omit"``, its event is g(z): False gives its moments from latents, and
        True adds the noise that the model left out. A recorded event includes
        whatever noise the model gave it.
    condition
        One condition for each draw of the latent, if the condition was inferred, too. None for
        the prior's own.
    batch_size
        Draws on the device at a time; None for as many as hold 2²³ numbers.

    Returns
    -------
    EventMoments
        With ``mean``, ``sd``, ``quantiles`` (level first), in the event's dtype.

    Raises
    ------
    TypeError
        If `prior` is not a generative prior.
    ValueError
        If shapes do not match, if there is no dimension of draws, if a level is outside [0, 1],
        or if the run has no such event, or several and no `site`.

    Notes
    -----
    Each draw has the same weight, so ``sd`` divides by the number of draws, not by one less. With
    decoder noise the distribution is a mixture of normals, and nothing is simulated: ``sd² =
    Var[g(z)] + E[scale(z)²]`` (law of total variance), and the quantile q at level p solves
    ``mean_i Φ((q - g(z_i)) / scale(z_i)) = p``, by bisection to rounding. Without noise, and for
    recorded events, a quantile is NumPy's, linear between order statistics.

    Variances are updated by the pairwise formula of Chan et al.: within a batch in two passes in
    the event's dtype, between batches in double precision. Quantiles need all draws of an entry
    at once: they are computed in blocks of entries (draws × block at most 2²⁵ numbers), and all
    draws are decoded once for each block.

    **Fails when** the decoder noise was inferred (noncentered or centered noise, with a likelihood
    that informs it) and latents are given: the noise added here is independent of the data. Give
    the run, whose event is recorded.

    References
    ----------
    Chan, Golub, LeVeque, Algorithms for computing the sample variance, The American Statistician
    1983.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro_genprior as ngp
    >>> prior = ngp.VAEPrior(lambda z: jnp.zeros((2, 2)), 3, scale=0.5)
    >>> moments = ngp.event_moments(prior, jnp.zeros((4, 100, 3)), quantiles=(0.05, 0.95))
    >>> print(moments)
    Moments of an event of shape (2, 2) over 400 draws.
    The mean ranges from 0 to 0.
    The standard deviation ranges from 0.5 to 0.5, with median 0.5.
    >>> moments.quantiles.shape
    (2, 2, 2)
    """
    levels = _levels(quantiles)
    core = require_prior(prior, "event_moments")
    if isinstance(draws, (MCMC, SMCResult)):
        run = posterior_draws(draws, Request())
        events, draws, prior = _draws_of_run(prior, core, run, site, noise=noise)
        if events is not None:
            return _moments_of_events(events, core, levels)
    elif site is not None:
        raise ValueError(
            message(
                "event_moments: latents have no site",
                expected="site= with a run",
                got=f"site={site!r} with an array",
                remedy="leave it out, or pass the MCMC object itself",
            )
        )
    latents = LatentDraws(prior, draws, condition, batch_size, "event_moments")
    if not latents.draws_shape or latents.number == 0:
        raise ValueError(
            message(
                "event_moments: there is no dimension of draws to average over",
                expected=f"latents of shape draws + {latents.inner_shape} + "
                f"{core.latent.event_shape}",
                got=np.shape(draws),
                remedy="pass all draws, and a condition for every draw as condition=",
            )
        )
    noise = noise and core.density == "conditional"
    mean, variance = mean_and_variance(latents, noise)
    return EventMoments(
        mean=mean.astype(core.event_dtype),
        sd=np.sqrt(variance).astype(core.event_dtype),
        quantiles=quantiles_over_draws(latents, noise, levels),
        probabilities=levels,
        num_draws=latents.number,
        event_ndim=core.event_dim,
    )


def _levels(quantiles: float | Sequence[float]) -> tuple[float, ...]:
    levels = tuple(float(p) for p in np.atleast_1d(np.asarray(quantiles, float)))
    if any(not 0 <= p <= 1 for p in levels):
        raise ValueError(
            message(
                "event_moments: these are not levels of quantiles",
                expected="numbers in [0, 1]",
                got=levels,
                remedy="pass e.g. quantiles=(0.05, 0.5, 0.95)",
            )
        )
    return levels


def _moments_of_events(events: np.ndarray, core: Prior, levels: tuple[float, ...]) -> EventMoments:
    """Moments of recorded events, leading dimensions chains and draws."""
    flat = events.reshape(-1, *events.shape[2:])
    mean, variance, quantiles = recorded_moments(flat, levels)
    return EventMoments(
        mean=mean.astype(events.dtype),
        sd=np.sqrt(variance).astype(events.dtype),
        quantiles=quantiles,
        probabilities=levels,
        num_draws=len(flat),
        event_ndim=core.event_dim,
    )


def _draws_of_run(
    prior: Distribution, core: Prior, run: PosteriorDraws, site: str | None, *, noise: bool
) -> tuple[np.ndarray | None, np.ndarray, Distribution]:
    """The recorded events of a run, or None; its latents; and the prior expanded for these."""
    if run.model is None:
        raise ValueError(
            message(
                "event_moments: the kernel of this run was made from a potential function",
                expected="a run whose model is known",
                remedy="pass the draws of the latent as an array",
            )
        )
    sites, _ = read_run(run.model, Arguments(run.args, run.kwargs, traced=run.traced))
    event = _choose(_events(sites), site)
    recorded = run.samples.get(event)
    if (
        recorded is not None
        and recorded.shape[recorded.ndim - core.event_dim :] != core.event_shape
    ):
        raise ValueError(
            message(
                f"event_moments: site {event!r} is not an event of this prior",
                expected=f"events of shape {core.event_shape}",
                got=f"draws of shape {recorded.shape}",
                remedy="pass the prior of this site first, or name another by site=",
            )
        )
    if recorded is not None and (noise or core.density != "conditional"):
        return recorded, recorded, prior
    latents = _latents(sites, run, event)
    lead = latents.ndim - len(core.latent.event_shape)
    if lead > 2 and len(prior.shape()) == core.event_dim:  # a plate of the model
        prior = core.expand(latents.shape[2:lead])
    return None, latents, prior


def _events(sites: dict[str, Site]) -> list[str]:
    """Events of the model's priors that have no data, those not recorded included."""
    of_latents = [s.event for s in sites.values() if s.role == "latent" and s.event is not None]
    events = [*of_latents, *(s.name for s in sites.values() if s.is_event)]
    nested = {s.name for s in sites.values() if s.role == "latent"}
    observed = {s.name for s in sites.values() if s.observed}
    return [name for name in dict.fromkeys(events) if name not in nested | observed]


def _choose(events: list[str], site: str | None) -> str:
    if site is None and len(events) == 1:
        return events[0]
    if site is not None and site in events:
        return site
    raise ValueError(
        message(
            "event_moments: several sites of this run have priors"
            if site is None and events
            else "event_moments: this run has no such event",
            expected=f"site= one of {', '.join(events)}" if events else "a site with a prior",
            got="none" if site is None else repr(site),
            remedy="name the event, e.g. site='x'" if events else "pass latents as an array",
        )
    )


def _latents(sites: dict[str, Site], run: PosteriorDraws, event: str) -> np.ndarray:
    """Draws of the latent that an event is decoded from."""
    names = [s.name for s in sites.values() if s.role == "latent" and s.event == event]
    if event in sites and sites[event].latent is not None:
        names = [sites[event].latent or "", *names]
    latent = next((name for name in names if name in run.samples), None)
    if latent is None:
        raise ValueError(
            message(
                f"event_moments: the run keeps neither event {event!r} nor its latent",
                expected=f"draws of {' or '.join([event, *names])}",
                got=f"draws of {', '.join(run.samples)}",
                remedy="keep one of them in MCMC (no '~' in extra_fields)",
            )
        )
    return run.samples[latent]
