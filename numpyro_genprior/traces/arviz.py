"""`to_arviz`: draws of a posterior as an ArviZ object with named dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.sites.model_reader import Site
from numpyro_genprior.traces.arguments import Arguments
from numpyro_genprior.traces.dims import Coords, EventDims, Labels
from numpyro_genprior.traces.model_sites import read_run
from numpyro_genprior.traces.predictive import ModelDraws
from numpyro_genprior.traces.sources import PosteriorDraws, Request, posterior_draws

if TYPE_CHECKING:
    import arviz
    import xarray

CHAIN_DRAW = ("chain", "draw")


def to_arviz(
    source: object,
    /,
    *args: Any,
    event_dims: EventDims | None = None,
    coords: Coords | None = None,
    prior: int | Mapping[str, ArrayLike] | None = None,
    posterior_predictive: bool | Mapping[str, ArrayLike] | None = None,
    predictions: Mapping[str, ArrayLike] | None = None,
    log_likelihood: bool = False,
    constant_data: Mapping[str, ArrayLike] | None = None,
    predictions_constant_data: Mapping[str, ArrayLike] | None = None,
    key: jax.Array | None = None,
    num_samples: int | None = None,
    params: Mapping[str, Any] | None = None,
    model: Callable[..., Any] | None = None,
    batch_size: int | None = None,
    **kwargs: Any,
) -> arviz.InferenceData | xarray.DataTree:
    """Convert posterior draws to an ArviZ object, with named dimensions of events and plates.

    Parameters
    ----------
    source
        What holds the draws: an `MCMC` that has run, an `SMCResult`, an `MGVIResult`, or a guide
        of SVI: any of NumPyro's autoguides, `AutoFisherLaplace`, or a guide function.
    args, kwargs
        For guides: the arguments of the model, data included. A guide made by
        `AutoFisherLaplace.from_map` has its own, and so does every run. A keyword that is also an
        option of this function must be passed by position.
    event_dims
        Names of the event dimensions of priors: a tuple for all events (and decoder noises) with
        as many dimensions, or a dictionary by site for any site, data included. None names
        two-dimensional events ``("row", "col")``. Latents have the dimension ``x_latent_dim``,
        plates their own names, and all others ArviZ's ``x_dim_0`` and so on.
    coords
        Coordinates by name of dimension, in whatever units they have; 0, 1, ... by default.
    prior
        Draws of the prior, as `numpyro.infer.Predictive` returns them, or a number of draws to
        make here. Observed sites go to the group ``prior_predictive``, the others to ``prior``.
    posterior_predictive
        Draws of the data given the posterior (leading dimension chains × draws, or both), or True
        to make them here.
    predictions
        Out-of-sample draws, laid out in the same way.
    log_likelihood
        Whether to compute the group ``log_likelihood``, by batch entry of the observed sites.
    constant_data, predictions_constant_data
        Arrays to keep beside the draws: the mask, the positions of the sensors.
    key
        Random key, needed if draws are made here: those of guides and `MGVIResult`, of the
        prior, and of the posterior predictive distribution.
    num_samples
        Number of draws from a guide or an `MGVIResult`; None for 1000.
    params
        Trained parameters of a guide, ``svi_result.params``; those of the model are used as well.
        A guide made by `AutoFisherLaplace.from_map` has its own.
    model
        The model of a guide that is a function.
    batch_size
        Draws on the device at a time, if draws are made here; None chooses by the size of a draw.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        `arviz.InferenceData` with ArviZ 0.23, `xarray.DataTree` with ArviZ 1.x. Groups
        ``posterior``, ``sample_stats`` (MCMC), ``observed_data`` and those asked for. The
        attribute ``inference_method`` of the posterior says what made the draws; SMC adds
        ``log_evidence`` and ``log_evidence_error``. Draws from SMC, MGVI and guides form a single
        chain. Statistics have ArviZ's names: ``diverging``, and if ``extra_fields`` collected
        them ``lp`` (minus ``potential_energy``), ``energy``, ``n_steps`` and ``tree_depth``
        (``num_steps``), ``acceptance_rate`` (``accept_prob``), ``step_size``
        (``adapt_state.step_size``).

    Raises
    ------
    TypeError
        If `source` holds no draws.
    ValueError
        If an MCMC has not run, if names or coordinates do not fit, if a key, parameters or a
        guide's model are missing, if something is given that `source` already knows, if a guide
        does not draw every latent site, or if draws given do not have the shape of the
        posterior's.

    Notes
    -----
    Draws made here are made in batches and kept on the host. Data are simulated by
    ``handlers.uncondition``: the arguments of the run, data included, are used unchanged. If the
    data are inside ``scan``, pass the draws yourself.

    Draws of SMC are its particles, resampled to equal weight. They share ancestors, so ArviZ's
    effective sample sizes and standard errors, which look at their order, do not hold for them.
    Draws of MGVI and guides are independent. No diagnostic of ArviZ says how well SMC, MGVI or a
    guide approximates the posterior.

    To add another kind of result, register it with `numpyro_genprior.traces.posterior_draws`.

    **Fails when** the events of all draws do not fit into the host's memory: use
    ``record=False`` in `ngp.latent`, and `event_moments` on the latents.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> import numpyro_genprior as ngp
    >>> from numpyro.infer import MCMC, NUTS
    >>> @ngp.latent
    ... def model(prior, y=None):
    ...     x = numpyro.sample("x", prior)
    ...     numpyro.sample("y", dist.Normal(x[0], 0.1).to_event(1), obs=y)
    >>> prior = ngp.GANPrior(lambda z: jnp.outer(z, jnp.ones(3)), 2)
    >>> mcmc = MCMC(NUTS(model), num_warmup=50, num_samples=50, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), prior, jnp.ones(3))
    >>> ngp.to_arviz(mcmc).posterior["x"].dims
    ('chain', 'draw', 'row', 'col')

    A mode with a Gaussian around it:

    >>> estimate = ngp.infer.find_map(model, jax.random.key(1), prior, jnp.ones(3), num_starts=2)
    >>> guide = ngp.infer.AutoFisherLaplace.from_map(estimate)
    >>> ngp.to_arviz(guide, key=jax.random.key(2), num_samples=200).posterior["x"].shape
    (1, 200, 2, 3)
    """
    _check_prior(prior)
    key_prior, key_predictive, key_posterior = _split(key)
    request = Request(args, kwargs, key_posterior, num_samples, params, model)
    source_draws = posterior_draws(source, request)
    run = _Run(source_draws, batch_size)
    shapes = run.shapes | {name: np.shape(value) for name, value in (constant_data or {}).items()}
    shapes |= {name: value.shape for name, value in run.data.items()}
    labels = Labels(run.sites, shapes, event_dims, coords)

    if not (prior is None or isinstance(prior, Mapping)):
        prior = run.draws("prior").prior(_require(key_prior), int(prior))
    if posterior_predictive is True:
        draws = run.draws("posterior_predictive")
        posterior_predictive = draws.predictive(_require(key_predictive), run.flat, run.number)
    likelihoods = None
    if log_likelihood:
        likelihoods = run.draws("log_likelihood").log_likelihood(run.flat, run.number)

    attributes = {"inference_method": source_draws.method, **source_draws.attributes}
    groups = {"posterior": labels.dataset(run.samples, CHAIN_DRAW).assign_attrs(attributes)}
    for name, drawn in (
        ("posterior_predictive", posterior_predictive),
        ("predictions", predictions),
        ("log_likelihood", likelihoods),
    ):
        if isinstance(drawn, Mapping):
            by_chain = _by_chain(drawn, run.layout, name)
            only_batch = name == "log_likelihood"
            groups[name] = labels.dataset(by_chain, CHAIN_DRAW, only_batch=only_batch)
    if source_draws.statistics:
        groups["sample_stats"] = labels.dataset(source_draws.statistics, CHAIN_DRAW)
    if isinstance(prior, Mapping):
        groups |= _prior_groups(prior, run.data, labels)
    for name, constants in (
        ("observed_data", run.data or None),
        ("constant_data", constant_data),
        ("predictions_constant_data", predictions_constant_data),
    ):
        if constants is not None:
            groups[name] = labels.dataset(constants)
    return _collect(groups)


class _Run:
    """Draws with all sites that are kept, and the model to draw more from.

    Attributes
    ----------
    sites, data
        The model's sites, and the values of the observed ones.
    samples
        Draws by site, leading dimensions `layout`: chains, draws.
    flat, number
        The same draws with one leading dimension, and their number.
    """

    def __init__(self, source: PosteriorDraws, batch_size: int | None) -> None:
        self.sites: dict[str, Site] = {}
        self.data: dict[str, np.ndarray] = {}
        self._draws = None
        if source.model is not None:
            arguments = Arguments(source.args, source.kwargs, traced=source.traced)
            self.sites, data = read_run(source.model, arguments)
            self.data = {name: np.asarray(value) for name, value in data.items()}
            self._draws = ModelDraws(source.model, arguments, self.sites, batch_size)
        samples = source.samples
        self.layout = next((value.shape[:2] for value in samples.values()), (1, 0))
        self.number = self.layout[0] * self.layout[1]
        self.samples = dict(samples) if source.deterministic else self._complete(samples)
        self.flat = {n: v.reshape(self.number, *v.shape[2:]) for n, v in self.samples.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one draw by site."""
        shapes = {name: site.shape for name, site in self.sites.items()}
        return shapes | {name: value.shape[2:] for name, value in self.samples.items()}

    def draws(self, group: str) -> ModelDraws:
        """What makes draws of the model, or an error that names the group that needs it."""
        if self._draws is None:
            raise ValueError(
                message(
                    "to_arviz: this kernel was made from a potential function, and there is "
                    f"no model to make {group} from",
                    remedy="build the kernel of a model, or pass the draws themselves",
                )
            )
        return self._draws

    def _complete(self, samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Draws of a guide, checked against the model, with the deterministic sites added."""
        latents = {
            name: site
            for name, site in self.sites.items()
            if site.kind == "sample" and not site.observed
        }
        for name, site in latents.items():
            if name not in samples:
                raise ValueError(
                    message(
                        f"to_arviz: the guide does not draw the latent site {name!r} of the model",
                        expected=f"draws of {', '.join(latents)}",
                        got=f"draws of {', '.join(samples) or 'nothing'}",
                        remedy="pass the arguments and the model that the guide was trained for",
                    )
                )
            if samples[name].shape[2:] != site.shape:
                raise ValueError(
                    message(
                        f"to_arviz: draws of {name!r} do not have the shape of the model's site",
                        expected=f"shape {site.shape}",
                        got=samples[name].shape[2:],
                        remedy="pass the arguments that the guide was trained with; if plates were "
                        "subsampled, arguments that make the model take all of the data",
                    )
                )
        complete = {name: samples[name] for name in latents}
        flat = {n: v.reshape(self.number, *v.shape[2:]) for n, v in complete.items()}
        computed = self.draws("posterior").deterministic(flat, self.number)
        complete |= {n: v.reshape(*self.layout, *v.shape[1:]) for n, v in computed.items()}
        return {name: complete[name] for name in self.sites if name in complete}


def _check_prior(prior: object) -> None:
    is_count = isinstance(prior, (int, np.integer)) and not isinstance(prior, bool)
    if not (prior is None or isinstance(prior, Mapping) or (is_count and int(prior) > 0)):  # type: ignore[call-overload]
        raise ValueError(
            message(
                "to_arviz: prior= is neither draws nor a number of draws",
                expected="a positive integer, or the draws by site",
                got=repr(prior),
                remedy="pass e.g. prior=500, or None for no prior groups; pass a model's "
                "argument of this name by position",
            )
        )


def _split(key: jax.Array | None) -> tuple[jax.Array | None, ...]:
    return (None,) * 3 if key is None else tuple(jax.random.split(key, 3))


def _require(key: jax.Array | None) -> jax.Array:
    if key is None:
        raise ValueError(
            message(
                "to_arviz needs a key to make draws",
                expected="key=",
                got="none",
                remedy="pass key=jax.random.key(0), or pass the draws themselves",
            )
        )
    return key


def _by_chain(
    draws: Mapping[str, ArrayLike], layout: tuple[int, ...], group: str
) -> dict[str, np.ndarray]:
    arranged = {}
    for name, values in draws.items():
        array = np.asarray(values)
        if array.shape[:2] == layout:
            arranged[name] = array
        elif array.shape[:1] == (layout[0] * layout[1],):
            arranged[name] = array.reshape(*layout, *array.shape[1:])
        else:
            raise ValueError(
                message(
                    f"to_arviz: {group} of {name!r} does not have the draws of the posterior",
                    expected=f"leading dimensions {layout} or ({layout[0] * layout[1]},)",
                    got=array.shape,
                    remedy="make one draw of it for every draw of the posterior",
                )
            )
    return arranged


def _prior_groups(
    prior: Mapping[str, ArrayLike], data: Mapping[str, np.ndarray], labels: Labels
) -> dict[str, xarray.Dataset]:
    """The groups ``prior`` and, if data are among the draws, ``prior_predictive``."""
    drawn = {name: np.asarray(value)[None] for name, value in prior.items()}
    unobserved = {name: value for name, value in drawn.items() if name not in data}
    groups = {"prior": labels.dataset(unobserved, CHAIN_DRAW)}
    if len(unobserved) < len(drawn):
        simulated = {name: value for name, value in drawn.items() if name in data}
        groups["prior_predictive"] = labels.dataset(simulated, CHAIN_DRAW)
    return groups


def _collect(groups: dict[str, xarray.Dataset]) -> Any:
    """The object that the installed version of ArviZ works with."""
    if int(metadata.version("arviz").split(".")[0]) >= 1:
        from xarray import DataTree

        return DataTree.from_dict(groups)
    import arviz

    return arviz.InferenceData(**groups)  # type: ignore[arg-type]
