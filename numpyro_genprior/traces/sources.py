"""`posterior_draws`: runs, results and guides as `PosteriorDraws`, the input of `to_arviz`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import jax
import numpy as np
import numpyro
from numpyro.distributions import Distribution
from numpyro.infer import MCMC, SVI, Predictive
from numpyro.infer.autoguide import AutoGuide, AutoGuideList
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.svi import SVIRunResult, SVIState

from numpyro_genprior.errors import message
from numpyro_genprior.infer.laplace import AutoFisherLaplace
from numpyro_genprior.infer.map_result import MAPEstimate
from numpyro_genprior.infer.mgvi.mgvi import MGVI
from numpyro_genprior.infer.mgvi.result import MGVIResult
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.infer.smc import SMC, SMCResult
from numpyro_genprior.traces.arguments import Traced

DEFAULT_NUM_SAMPLES = 1000
STATISTICS = {
    "accept_prob": "acceptance_rate",
    "adapt_state.step_size": "step_size",
    "num_steps": "n_steps",
    "potential_energy": "lp",
}


@dataclass(frozen=True)
class PosteriorDraws:
    """Draws of a posterior, with the model and the arguments that they belong to.

    Attributes
    ----------
    samples
        Draws by site, of shape ``(chains, draws, *site_shape)``.
    method
        The method that made them, in words: ``"MCMC (NUTS)"``.
    model
        The model; None if it is unknown (a kernel made from a potential function).
    args, kwargs
        Its arguments.
    traced
        Whether the model works with traced arguments, see `Arguments`.
    deterministic
        Whether `samples` hold the deterministic sites. If not, the model computes them from the
        other sites.
    statistics
        Statistics of each draw by ArviZ's names, of shape ``(chains, draws)``.
    attributes
        Numbers and words to keep beside the draws, such as the log evidence.
    """

    samples: Mapping[str, np.ndarray]
    method: str
    model: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    traced: bool = False
    deterministic: bool = True
    statistics: Mapping[str, np.ndarray] = field(default_factory=dict)
    attributes: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """The arguments of `to_arviz` that say how to make draws; None or empty if not given.

    Attributes
    ----------
    args, kwargs
        Arguments of the model.
    key
        Random key of the draws.
    num_samples
        Number of draws.
    params
        Parameters of a guide.
    model
        The model of a guide that does not hold it.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    key: jax.Array | None = None
    num_samples: int | None = None
    params: Mapping[str, Any] | None = None
    model: Callable[..., Any] | None = None

    def refuse(self, source: object, *names: str) -> None:
        """Raise if one of these was given although `source` already holds it."""
        for name in names:
            value = getattr(self, name)
            if value is None or (name in ("args", "kwargs") and not value):
                continue
            what = "arguments of the model" if name == "args" else name
            what = f"keywords {', '.join(value)}" if name == "kwargs" else what
            raise ValueError(
                message(
                    f"to_arviz: {type(source).__name__} accepts no {what}",
                    expected="the source alone, which holds them",
                    remedy="leave them out",
                )
            )

    def number(self) -> int:
        """The number of draws to make."""
        number = DEFAULT_NUM_SAMPLES if self.num_samples is None else self.num_samples
        is_integer = isinstance(number, (int, np.integer)) and not isinstance(number, bool)
        if not is_integer or number < 1:
            raise ValueError(
                message(
                    "to_arviz: num_samples is not a number of draws",
                    expected="a positive integer",
                    got=repr(number),
                    remedy=f"leave it out for {DEFAULT_NUM_SAMPLES} draws",
                )
            )
        return int(number)

    def require_key(self, source: object) -> jax.Array:
        """The key, or an error that names what needs it."""
        if self.key is None:
            raise ValueError(
                message(
                    f"to_arviz: draws of {type(source).__name__} need a key",
                    expected="key=",
                    got="none",
                    remedy="pass key=jax.random.key(0)",
                )
            )
        return self.key


@singledispatch
def posterior_draws(source: object, request: Request) -> PosteriorDraws:
    """Draws of the posterior that `source` holds or can make.

    A new kind of result is added by a function of the same form::

        @posterior_draws.register
        def _(source: MyResult, request: Request) -> PosteriorDraws: ...

    Parameters
    ----------
    source
        The source that `to_arviz` was given.
    request
        The other arguments of `to_arviz`.

    Raises
    ------
    TypeError
        If `source` holds no draws.
    ValueError
        If an argument is missing that is needed to make draws, or an argument is not used.
    """
    if callable(source) and not isinstance(source, (type, Distribution)):
        return _guide_function_draws(source, request)
    remedy = "pass the MCMC object itself, after run(...)"
    if isinstance(source, (SVI, SVIRunResult, SVIState)):
        remedy = (
            "pass the guide, with the arguments of its model: to_arviz(guide, *args, "
            "params=svi_result.params, key=key)"
        )
    elif isinstance(source, (SMC, MGVI)):
        remedy = "pass the result, which its run(...) returns"
    elif isinstance(source, MAPEstimate):
        remedy = (
            "a mode is a single point: draw around it with "
            "ngp.infer.AutoFisherLaplace.from_map(estimate), and pass that guide"
        )
    elif isinstance(source, MCMCKernel):
        remedy = "run it in numpyro.infer.MCMC, and pass the MCMC object itself"
    raise TypeError(
        message(
            f"to_arviz: a {type(source).__name__} holds no draws of a posterior",
            expected="an MCMC that has run, an SMCResult, an MGVIResult, or a guide of SVI",
            got=type(source).__name__,
            remedy=remedy,
        )
    )


# ---- runs of MCMC, SMC and MGVI ------------------------------------------------------------------


@posterior_draws.register
def _(source: MCMC, request: Request) -> PosteriorDraws:
    request.refuse(source, "args", "kwargs", "params", "model", "num_samples")
    if source._states is None:
        raise ValueError(message("to_arviz: this MCMC has not run", remedy="call mcmc.run first"))
    samples: Any = jax.device_get(source.get_samples(group_by_chain=True))
    if not isinstance(samples, dict):  # a kernel made from a potential function
        samples = {f"Param:{i}": leaf for i, leaf in enumerate(jax.tree.leaves(samples))}
    return PosteriorDraws(
        samples={name: np.asarray(value) for name, value in samples.items()},
        method=f"MCMC ({type(source.sampler).__name__})",
        model=getattr(source.sampler, "model", None),
        args=source._args,
        kwargs=source._kwargs,
        traced=bool(source._jit_model_args),
        statistics=_statistics(source),
    )


def _statistics(mcmc: MCMC) -> dict[str, np.ndarray]:
    statistics = {}
    for name, value in mcmc.get_extra_fields(group_by_chain=True).items():
        if not hasattr(value, "shape"):
            continue  # a part of the kernel's state rather than a statistic of a draw
        array = np.asarray(value)
        statistics[STATISTICS.get(name, name)] = -array if name == "potential_energy" else array
        if name == "num_steps":
            statistics["tree_depth"] = np.floor(np.log2(np.maximum(array, 1))).astype(int) + 1
    return statistics


@posterior_draws.register
def _(source: SMCResult, request: Request) -> PosteriorDraws:
    request.refuse(source, "args", "kwargs", "params", "model", "num_samples")
    evidence = {
        "log_evidence": float(source.log_evidence),
        "log_evidence_error": float(source.log_evidence_error),
    }
    return _of_posterior(source.posterior, source.get_samples(), "SMC", evidence)


@posterior_draws.register
def _(source: MGVIResult, request: Request) -> PosteriorDraws:
    request.refuse(source, "args", "kwargs", "params", "model")
    key, number = request.require_key(source), request.number()
    # Antithetic pairs would invalidate ArviZ's standard errors, which assume exchangeable draws.
    samples = source.sample_posterior(key, (number,), antithetic=False)
    return _of_posterior(source.posterior, samples, "MGVI", {})


def _of_posterior(
    posterior: Posterior,
    samples: Mapping[str, np.ndarray],
    method: str,
    attributes: Mapping[str, str | float],
) -> PosteriorDraws:
    args, kwargs = posterior.arguments
    return PosteriorDraws(
        samples={name: value[None] for name, value in samples.items()},
        method=method,
        model=posterior.model,
        args=args,
        kwargs=kwargs,
        attributes=attributes,
    )


# ---- guides of SVI -------------------------------------------------------------------------------


@dataclass(frozen=True)
class WithParams:
    """A model whose ``param`` sites have given values, the first of its arguments."""

    model: Callable[..., Any]

    def __call__(self, params: Traced, *args: Any, **kwargs: Any) -> Any:
        return numpyro.handlers.substitute(self.model, data=params.value)(*args, **kwargs)


@posterior_draws.register
def _(source: AutoGuide, request: Request) -> PosteriorDraws:
    request.refuse(source, "model")
    return _guide_draws(source, source.model, request)


@posterior_draws.register
def _(source: AutoFisherLaplace, request: Request) -> PosteriorDraws:
    request.refuse(source, "model")
    params = source.params if request.params is None else request.params
    args, kwargs = request.args, request.kwargs
    if source.prototype_trace is not None:
        if not args and not kwargs:
            args, kwargs = source.posterior.arguments
        source.get_transform(params)  # for its warnings: it has none while draws are compiled
    changed = Request(args, kwargs, request.key, request.num_samples, params)
    return _guide_draws(source, source.model, changed)


def _guide_function_draws(guide: Callable[..., Any], request: Request) -> PosteriorDraws:
    if request.model is None:
        raise ValueError(
            message(
                "to_arviz: a guide that is a function does not know its model",
                expected="model=",
                got="none",
                remedy="pass model=, the model that it was trained for (for draws of MCMC, pass "
                "the MCMC object itself)",
            )
        )
    return _guide_draws(guide, request.model, request)


def _guide_draws(
    guide: Callable[..., Any], model: Callable[..., Any], request: Request
) -> PosteriorDraws:
    key, number = request.require_key(guide), request.number()
    if request.params is None:
        raise ValueError(
            message(
                "to_arviz: a guide without its parameters has no draws of the posterior",
                expected="params=",
                got="none",
                remedy="pass params=svi_result.params (an empty dictionary if it has none)",
            )
        )
    with jax.numpy_rank_promotion("allow"):  # NumPyro's guides rely on it
        samples = _guide_samples(guide, key, number, request)
    name = type(guide).__name__ if isinstance(guide, AutoGuide) else _name(guide)
    return PosteriorDraws(
        samples={name: np.asarray(value)[None] for name, value in samples.items()},
        method=f"SVI ({name})",
        model=WithParams(model),
        args=(Traced(dict(request.params)), *request.args),
        kwargs=request.kwargs,
        deterministic=False,
    )


def _name(guide: Callable[..., Any]) -> str:
    return getattr(guide, "__name__", type(guide).__name__)


def _guide_samples(
    guide: Callable[..., Any], key: jax.Array, number: int, request: Request
) -> dict[str, jax.Array]:
    """Draws of the guide's sample sites, leading dimension `number`."""
    args, kwargs, params = request.args, request.kwargs, dict(request.params or {})
    if isinstance(guide, AutoGuideList):  # its own method gives every part the same key
        samples: dict[str, jax.Array] = {}
        for index, part in enumerate(guide._guides):
            samples |= _guide_samples(part, jax.random.fold_in(key, index), number, request)
        return samples
    if not isinstance(guide, AutoGuide):
        draw = Predictive(guide, params=params, num_samples=number)
        return draw(key, *args, **kwargs)
    if guide.prototype_trace is None:  # parameters from elsewhere: the guide has not yet run
        seeded = numpyro.handlers.seed(guide, jax.random.key(0))
        with numpyro.handlers.block():
            numpyro.handlers.substitute(seeded, data=params)(*args, **kwargs)
    trace = guide.prototype_trace or {}
    latents = [name for name, site in trace.items() if _is_latent(site)]

    @jax.jit  # which drops the events that the guide would decode, all at once, on the device
    def draw_latents(key: jax.Array) -> dict[str, jax.Array]:
        draws = guide.sample_posterior(key, params, *args, sample_shape=(number,), **kwargs)
        return {name: draws[name] for name in latents}

    return draw_latents(key)


def _is_latent(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]
