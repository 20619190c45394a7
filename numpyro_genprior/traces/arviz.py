"""`to_arviz`: an MCMC run as an ArviZ object with named dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
import numpy as np
from numpyro.infer import MCMC

from numpyro_genprior.errors import message
from numpyro_genprior.traces.arguments import Arguments
from numpyro_genprior.traces.dims import Labels
from numpyro_genprior.traces.model_sites import read_run
from numpyro_genprior.traces.predictive import ModelDraws

STATISTICS = {
    "accept_prob": "acceptance_rate",
    "adapt_state.step_size": "step_size",
    "num_steps": "n_steps",
    "potential_energy": "lp",
}
CHAIN_DRAW = ("chain", "draw")


def to_arviz(
    mcmc: MCMC,
    *,
    event_dims: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    prior: int | Mapping[str, Any] | None = None,
    posterior_predictive: bool | Mapping[str, Any] | None = None,
    predictions: Mapping[str, Any] | None = None,
    log_likelihood: bool = False,
    constant_data: Mapping[str, Any] | None = None,
    predictions_constant_data: Mapping[str, Any] | None = None,
    key: jax.Array | None = None,
    batch_size: int | None = None,
) -> Any:
    """An ArviZ object of an MCMC run, with the dimensions of events, latents and plates named.

    Parameters
    ----------
    mcmc
        A run of NumPyro's MCMC, its model under `ngp.latent` or not.
    event_dims
        Names of the event dimensions of priors: a tuple for all events (and decoder noises) with
        as many dimensions, or a dictionary by site for any site, data included. None names
        two-dimensional events ``("row", "col")``. Latents have the dimension ``x_latent_dim``,
        plates their own names, and what is left ArviZ's ``x_dim_0`` and so on.
    coords
        Coordinates by name of dimension, in whatever units they have; 0, 1, ... by default.
    prior
        Draws of the prior, as `numpyro.infer.Predictive` returns them, or a number of draws to
        make here. Observed sites go to the group ``prior_predictive``, the others to ``prior``.
    posterior_predictive
        Draws of the data given the posterior (leading dimension chains × draws, or both), or True
        to make them here.
    predictions
        Draws out of sample, laid out in the same way.
    log_likelihood
        Whether to compute the group ``log_likelihood``, by batch entry of the observed sites.
    constant_data, predictions_constant_data
        Arrays to keep beside: the mask, the positions of the sensors.
    key
        Random key, needed where draws are made here.
    batch_size
        Draws on the device at a time where draws are made here; None chooses by what they hold.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        `arviz.InferenceData` with ArviZ 0.23, `xarray.DataTree` with ArviZ 1.x. Groups
        ``posterior``, ``sample_stats``, ``observed_data`` and those asked for. Statistics have
        ArviZ's names: ``diverging``, and where ``extra_fields`` collected them ``lp`` (minus
        ``potential_energy``), ``energy``, ``n_steps`` and ``tree_depth`` (``num_steps``),
        ``acceptance_rate`` (``accept_prob``), ``step_size`` (``adapt_state.step_size``).

    Raises
    ------
    TypeError
        When `mcmc` is something else.
    ValueError
        When it has not run, when names or coordinates do not fit, when a key is missing, or when
        draws do not have the shape of the run.

    Notes
    -----
    Draws made here are made in batches and kept on the host. Data are simulated by
    ``handlers.uncondition``: the arguments of the run, data included, serve as they are. A model
    whose data stand inside ``scan`` needs its draws passed in.

    **Fails when** all events do not fit into the host's memory: use ``record=False`` in
    `ngp.latent`, and `event_moments` on the latents.

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
    """
    samples = _samples(mcmc)
    model = getattr(mcmc.sampler, "model", None)
    arguments = Arguments(mcmc._args, mcmc._kwargs, traced=bool(mcmc._jit_model_args))
    sites, data = ({}, {}) if model is None else read_run(model, arguments)
    data = {name: np.asarray(value) for name, value in data.items()}
    layout = next((np.shape(value)[:2] for value in samples.values()), (mcmc.num_chains, 0))
    shapes = {name: site.shape for name, site in sites.items()}
    shapes |= {name: value.shape[2:] for name, value in samples.items()}
    shapes |= {name: np.shape(value) for name, value in (constant_data or {}).items()}
    shapes |= {name: value.shape for name, value in data.items()}
    labels = Labels(sites, shapes, event_dims, coords)

    number = layout[0] * layout[1]
    draw = None if model is None else ModelDraws(model, arguments, sites, batch_size)
    flat = {name: value.reshape(number, *value.shape[2:]) for name, value in samples.items()}
    key_prior, key_predictive = _keys(key, _wants_draws(prior, posterior_predictive), draw)
    if not (prior is None or isinstance(prior, Mapping) or (_is_count(prior) and prior > 0)):
        raise ValueError(
            message(
                "to_arviz: this is no number of prior draws",
                expected="a positive integer, or the draws by site",
                got=repr(prior),
                remedy="pass e.g. prior=500, or None for no prior groups",
            )
        )
    if _is_count(prior):
        prior = _model_draws(draw).prior(key_prior, int(prior))  # type: ignore[arg-type]
    if posterior_predictive is True:
        posterior_predictive = _model_draws(draw).predictive(key_predictive, flat, number)

    groups = {"posterior": labels.dataset(samples, CHAIN_DRAW)}
    if isinstance(posterior_predictive, Mapping):
        drawn = _by_chain(posterior_predictive, layout, "posterior_predictive")
        groups["posterior_predictive"] = labels.dataset(drawn, CHAIN_DRAW)
    if predictions is not None:
        drawn = _by_chain(predictions, layout, "predictions")
        groups["predictions"] = labels.dataset(drawn, CHAIN_DRAW)
    if log_likelihood:
        values = _by_chain(_model_draws(draw).log_likelihood(flat, number), layout, "")
        groups["log_likelihood"] = labels.dataset(values, CHAIN_DRAW, only_batch=True)
    groups["sample_stats"] = labels.dataset(_statistics(mcmc), CHAIN_DRAW)
    if isinstance(prior, Mapping):
        alone = {name: np.asarray(value)[None] for name, value in prior.items()}
        unknown = {name: value for name, value in alone.items() if name not in data}
        groups["prior"] = labels.dataset(unknown, CHAIN_DRAW)
        if len(unknown) < len(alone):
            simulated = {name: value for name, value in alone.items() if name in data}
            groups["prior_predictive"] = labels.dataset(simulated, CHAIN_DRAW)
    if data:
        groups["observed_data"] = labels.dataset(data)
    for name, constants in (
        ("constant_data", constant_data),
        ("predictions_constant_data", predictions_constant_data),
    ):
        if constants is not None:
            groups[name] = labels.dataset(constants)
    return _collect(groups)


def _samples(mcmc: MCMC) -> dict[str, np.ndarray]:
    if not isinstance(mcmc, MCMC):
        raise TypeError(
            message(
                "to_arviz takes a run of MCMC",
                expected="numpyro.infer.MCMC",
                got=type(mcmc).__name__,
                remedy="pass the MCMC object itself, after run(...)",
            )
        )
    if mcmc._states is None:
        raise ValueError(message("to_arviz: this MCMC has not run", remedy="call mcmc.run first"))
    samples: Any = jax.device_get(mcmc.get_samples(group_by_chain=True))
    if not isinstance(samples, dict):  # a kernel made of a potential function
        samples = {f"Param:{i}": leaf for i, leaf in enumerate(jax.tree.leaves(samples))}
    return {name: np.asarray(value) for name, value in samples.items()}


def _statistics(mcmc: MCMC) -> dict[str, np.ndarray]:
    statistics = {}
    for field, value in mcmc.get_extra_fields(group_by_chain=True).items():
        if not hasattr(value, "shape"):
            continue  # a part of the kernel's state, no statistic of a draw
        array = np.asarray(value)
        statistics[STATISTICS.get(field, field)] = -array if field == "potential_energy" else array
        if field == "num_steps":
            statistics["tree_depth"] = np.floor(np.log2(np.maximum(array, 1))).astype(int) + 1
    return statistics


def _is_count(prior: Any) -> bool:
    return isinstance(prior, (int, np.integer)) and not isinstance(prior, bool)


def _wants_draws(prior: Any, posterior_predictive: Any) -> bool:
    return _is_count(prior) or posterior_predictive is True


def _keys(key: Any, wanted: bool, draw: ModelDraws | None) -> tuple[Any, Any]:
    if not wanted:
        return None, None
    if key is None:
        raise ValueError(
            message(
                "to_arviz is to make draws, and has no key",
                expected="key=",
                got="none",
                remedy="pass key=jax.random.key(0), or pass the draws themselves",
            )
        )
    _model_draws(draw)
    first, second = jax.random.split(key)
    return first, second


def _model_draws(draw: ModelDraws | None) -> ModelDraws:
    if draw is None:
        raise ValueError(
            message(
                "to_arviz: this kernel was made of a potential function, which has no model to "
                "draw from",
                remedy="build the kernel of a model, or pass the draws themselves",
            )
        )
    return draw


def _by_chain(
    draws: Mapping[str, Any], layout: tuple[int, int], group: str
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
                    f"to_arviz: {group} of {name!r} does not have the draws of the run",
                    expected=f"leading dimensions {layout} or ({layout[0] * layout[1]},)",
                    got=array.shape,
                    remedy="make one draw of it for every draw of the posterior",
                )
            )
    return arranged


def _collect(groups: dict[str, Any]) -> Any:
    """The object that this version of ArviZ works with."""
    if int(metadata.version("arviz").split(".")[0]) >= 1:
        from xarray import DataTree

        return DataTree.from_dict(groups)
    import arviz

    return arviz.InferenceData(**groups)
