"""A kernel or a guide as a pure function of data: draws from the posterior, for use under vmap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import optax
from numpyro.infer import NUTS, SVI, Trace_ELBO
from numpyro.infer.mcmc import MCMCKernel
from numpyro.optim import optax_to_numpyro

from numpyro_genprior.diagnostics.calibration.simulation import Conditioned
from numpyro_genprior.errors import message
from numpyro_genprior.infer.initial_points import draw_starts
from numpyro_genprior.infer.laplace import AutoFisherLaplace
from numpyro_genprior.infer.optimize.minimise import minimise

NUM_STARTS = 4  # of the search for a mode of each data set


class Draws(NamedTuple):
    """Draws for one data set.

    Attributes
    ----------
    latents
        Values of the latent sites, each with a leading dimension of draws.
    num_divergences
        Of the draws.
    """

    latents: dict[str, jax.Array]
    num_divergences: jax.Array


@dataclass(frozen=True)
class ByKernel:
    """One chain of a NumPyro kernel for each data set."""

    factory: Callable[..., Any]
    num_warmup: int
    num_samples: int

    independent = False

    def __call__(self, model: Conditioned, names: Any, key: jax.Array, *args: Any) -> Draws:
        kernel = self.factory(model)
        if not isinstance(kernel, MCMCKernel):
            raise TypeError(_not_made("kernel", "a NumPyro MCMCKernel", kernel, "kernel=NUTS"))
        state = kernel.init(key, self.num_warmup, None, args, {})

        def step(state: Any, _: Any) -> Any:
            state = kernel.sample(state, args, {})
            kept = getattr(state, kernel.sample_field), getattr(state, "diverging", False)
            return state, kept

        length = self.num_warmup + self.num_samples
        _, kept = jax.lax.scan(step, state, None, length=length)
        points, diverging = jax.tree.map(lambda x: x[self.num_warmup :], kept)
        values = jax.vmap(kernel.postprocess_fn(args, {}))(points)
        return Draws({name: values[name] for name in names}, jnp.sum(diverging))


@dataclass(frozen=True)
class ByGuide:
    """An autoguide for each data set: fitted by SVI, or at the mode for `AutoFisherLaplace`."""

    factory: Callable[..., Any]
    num_steps: int
    optimizer: Any
    num_samples: int

    independent = True

    def __call__(self, model: Conditioned, names: Any, key: jax.Array, *args: Any) -> Draws:
        guide = self.factory(model)
        if not hasattr(guide, "sample_posterior"):
            raise TypeError(_not_made("guide", "an autoguide", guide, "guide=AutoNormal"))
        fit_key, draw_key = jax.random.split(key)
        fit = self._by_mode if isinstance(guide, AutoFisherLaplace) else self._by_svi
        params = fit(guide, fit_key, args)
        shape = (self.num_samples,)
        with jax.numpy_rank_promotion("allow"):  # NumPyro's guides rely on it
            values = guide.sample_posterior(draw_key, params, *args, sample_shape=shape)
        return Draws({name: values[name] for name in names}, jnp.zeros((), int))

    def _by_svi(self, guide: Any, key: jax.Array, args: Any) -> Any:
        optimizer = self.optimizer
        if optimizer is None:
            schedule = optax.cosine_decay_schedule(0.05, self.num_steps)
            optimizer = optax_to_numpyro(optax.adam(schedule))
        svi = SVI(guide.model, guide, optimizer, Trace_ELBO())
        with jax.numpy_rank_promotion("allow"):
            state = svi.init(key, *args)
            step = lambda state, _: (svi.update(state, *args)[0], None)  # noqa: E731
            state, _ = jax.lax.scan(step, state, None, length=self.num_steps)
        return svi.get_params(state)

    def _by_mode(self, guide: Any, key: jax.Array, args: Any) -> Any:
        with numpyro.handlers.block(), numpyro.handlers.seed(rng_seed=0):
            guide._setup_prototype(*args)
        starts, _ = draw_starts(guide.posterior, key, NUM_STARTS)
        minima = minimise(guide.posterior, starts)
        return {f"{guide.prefix}_loc": guide._from_posterior(minima.xi[minima.best])}


def choose(
    name: str,
    kernel: Any,
    guide: Any,
    *,
    num_warmup: int,
    num_draws: int,
    thin: int,
    num_steps: int,
    optimizer: Any,
    default: str = "kernel",
) -> ByKernel | ByGuide:
    """The method that the switches of a diagnostic name.

    Raises
    ------
    TypeError
        When one of them is a kernel or guide, in the place of what makes one.
    ValueError
        When there are both, or the numbers make no sense.
    """
    if kernel is not None and guide is not None:
        raise ValueError(
            message(
                f"{name}: two methods",
                expected="kernel= or guide=",
                got="both",
                remedy="call it once for each",
            )
        )
    for what, given in (("kernel", kernel), ("guide", guide)):
        if given is not None and (isinstance(given, MCMCKernel) or not callable(given)):
            raise TypeError(
                message(
                    f"{name} makes a {what} of its own model",
                    expected=f"a callable of the model for {what}=",
                    got=f"a {type(given).__name__}",
                    remedy="pass kernel=NUTS, or functools.partial(NUTS, max_tree_depth=6)",
                )
            )
    if isinstance(guide, numpyro.infer.autoguide.AutoGuide):
        raise TypeError(
            message(
                f"{name} makes a guide of its own model",
                expected="a callable of the model for guide=",
                got=f"a {type(guide).__name__}",
                remedy="pass guide=AutoNormal",
            )
        )
    numbers = {"num_draws": (num_draws, 15), "thin": (thin, 1), "num_warmup": (num_warmup, 0)}
    for what, (number, least) in {**numbers, "num_steps": (num_steps, 1)}.items():
        if number < least:
            raise ValueError(
                message(
                    f"{name}: {what} is too small",
                    expected=f"at least {least}",
                    got=number,
                    remedy=f"leave {what} at its default",
                )
            )
    if guide is not None or (kernel is None and default == "guide"):
        return ByGuide(guide or AutoFisherLaplace, num_steps, optimizer, num_draws)
    return ByKernel(kernel or NUTS, num_warmup, thin * num_draws)


def _not_made(what: str, wanted: str, made: Any, remedy: str) -> str:
    return message(
        f"{what}= does not make {wanted} of a model",
        got=type(made).__name__,
        remedy=f"pass {remedy}",
    )
