"""`MCMCMethod` and `SVIMethod`: inference methods with their settings, run by diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoGuide
from numpyro.infer.mcmc import MCMCKernel
from numpyro.optim import _NumPyroOptim as NumPyroOptimizer
from numpyro.optim import optax_to_numpyro

from numpyro_genprior import validation
from numpyro_genprior.errors import message
from numpyro_genprior.infer.initial_points import draw_starts
from numpyro_genprior.infer.laplace import AutoFisherLaplace
from numpyro_genprior.infer.optimize.minimise import minimise

NUM_STARTS = 4  # starts of the search for the mode of each data set
OPTIMIZERS = (NumPyroOptimizer, optax.GradientTransformation)
LEARNING_RATE = 0.05  # of Adam, at the first step

Model = Callable[..., Any]


class Draws(NamedTuple):
    """Draws from the posterior of one data set.

    Attributes
    ----------
    samples
        Values of the sites, each of shape ``(chains, draws, *shape of the site)``.
    num_divergences
        Divergent transitions after warm-up, of all chains; of shape ``()``.
    """

    samples: dict[str, jax.Array]
    num_divergences: jax.Array


@dataclass(frozen=True)
class MCMCMethod:
    """Inference by Markov chain Monte Carlo, with counts as in NumPyro's `MCMC`.

    Parameters
    ----------
    kernel
        A callable of the model that makes a NumPyro kernel: ``NUTS``,
        ``functools.partial(NUTS, max_tree_depth=6)``, ``ngp.infer.FisherNUTS``.
    num_warmup
        Iterations of warm-up of each chain.
    num_samples
        Iterations of each chain after warm-up, before thinning.
    num_chains
        Number of chains, which run side by side (vectorised).
    thinning
        Keep every `thinning`-th draw: each chain keeps ``num_samples // thinning`` draws.

    Raises
    ------
    TypeError
        If `kernel` is not a callable of the model, or a count is not an integer.
    ValueError
        If a count is too small.

    Notes
    -----
    **Fails when** the chains are too short: diagnostics report split r_hat and effective draws.

    Examples
    --------
    >>> from numpyro.infer import NUTS
    >>> import numpyro_genprior as ngp
    >>> method = ngp.infer.MCMCMethod(NUTS, num_warmup=200, num_samples=500, thinning=2)
    >>> method.num_draws
    250
    """

    kernel: Callable[..., MCMCKernel]
    _: KW_ONLY
    num_warmup: int = 300
    num_samples: int = 1000
    num_chains: int = 1
    thinning: int = 1

    independent: ClassVar[bool] = False  # whether the draws of a data set are independent

    def __post_init__(self) -> None:
        if isinstance(self.kernel, MCMCKernel) or not callable(self.kernel):
            raise TypeError(
                message(
                    "MCMCMethod makes a kernel for each model that it is given",
                    expected="a callable of the model",
                    got=f"a {type(self.kernel).__name__}",
                    remedy="pass kernel=NUTS, or functools.partial(NUTS, max_tree_depth=6)",
                )
            )
        validation.at_least("MCMCMethod", 0, num_warmup=self.num_warmup)
        validation.at_least(
            "MCMCMethod",
            1,
            num_samples=self.num_samples,
            num_chains=self.num_chains,
            thinning=self.thinning,
        )
        if self.num_samples < self.thinning:
            raise ValueError(
                message(
                    "MCMCMethod keeps no draw",
                    expected="num_samples of at least thinning",
                    got=f"num_samples={self.num_samples}, thinning={self.thinning}",
                    remedy="leave thinning=1",
                )
            )

    @property
    def num_draws(self) -> int:
        """Draws that are kept, of all chains together."""
        return self.num_chains * (self.num_samples // self.thinning)

    def run(self, model: Model, key: jax.Array, *args: Any, **kwargs: Any) -> Draws:
        """Draws from the posterior of `model`: a pure function of `key`, `args` and `kwargs`.

        It may be transformed by ``jax.jit``, and by ``jax.vmap`` over data sets.

        Raises
        ------
        TypeError
            If `kernel` does not make a kernel for single chains.
        """
        kernel = self.kernel(model)
        if not isinstance(kernel, MCMCKernel) or kernel.is_ensemble_kernel:
            raise TypeError(
                message(
                    "MCMCMethod: kernel= does not make a NumPyro kernel for single chains",
                    got=type(kernel).__name__,
                    remedy="pass kernel=NUTS",
                )
            )

        def step(state: Any, _: None) -> tuple[Any, Any]:
            state = kernel.sample(state, args, kwargs)
            return state, (getattr(state, kernel.sample_field), getattr(state, "diverging", False))

        def chain(key: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
            state = kernel.init(key, self.num_warmup, None, args, kwargs)
            length = self.num_warmup + self.num_samples
            _, (points, diverging) = jax.lax.scan(step, state, None, length=length)
            # NumPyro's `MCMC` keeps the last iteration, and every `thinning`-th before it.
            first = self.num_warmup + self.num_samples % self.thinning + self.thinning - 1
            kept = jax.tree.map(lambda x: x[first :: self.thinning], points)
            samples = jax.vmap(kernel.postprocess_fn(args, kwargs))(kept)
            return samples, jnp.sum(diverging[self.num_warmup :])

        if self.num_chains == 1:  # the key itself, as NumPyro does
            samples, divergences = chain(key)
            return Draws(jax.tree.map(lambda x: x[None], samples), divergences)
        samples, divergences = jax.vmap(chain)(jax.random.split(key, self.num_chains))
        return Draws(samples, jnp.sum(divergences))


@dataclass(frozen=True)
class SVIMethod:
    """Inference by an autoguide, fitted by stochastic variational inference.

    Parameters
    ----------
    guide
        A callable of the model that makes an autoguide: ``AutoNormal``,
        ``functools.partial(AutoLowRankMultivariateNormal, rank=4)``.
        `numpyro_genprior.infer.AutoFisherLaplace` is placed at the best mode of four starts
        instead, and `optimizer` and `num_steps` are unused.
    optimizer
        An optimizer of NumPyro or optax. None: Adam, its learning rate reduced from 0.05 to 0
        along a cosine.
    num_steps
        Steps of the optimizer.
    num_samples
        Draws from the fitted guide.

    Raises
    ------
    TypeError
        If `guide` is not a callable of the model, `optimizer` is no optimizer, or a count is not
        an integer.
    ValueError
        If a count is too small.

    Notes
    -----
    **Fails when** the guide's family does not contain the posterior, or `num_steps` is too small.

    Examples
    --------
    >>> import numpyro_genprior as ngp
    >>> ngp.infer.SVIMethod(ngp.infer.AutoFisherLaplace).num_draws
    1000
    """

    guide: Callable[..., Any]
    _: KW_ONLY
    optimizer: NumPyroOptimizer | optax.GradientTransformation | None = None
    num_steps: int = 2000
    num_samples: int = 1000

    independent: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.guide, AutoGuide | MCMCKernel) or not callable(self.guide):
            raise TypeError(
                message(
                    "SVIMethod makes a guide for each model that it is given",
                    expected="a callable of the model",
                    got=f"a {type(self.guide).__name__}",
                    remedy="pass guide=AutoNormal",
                )
            )
        if self.optimizer is not None and not isinstance(self.optimizer, OPTIMIZERS):
            raise TypeError(
                message(
                    "SVIMethod: optimizer= does not optimise",
                    expected="an optimizer of NumPyro or optax, or None",
                    got=f"a {type(self.optimizer).__name__}",
                    remedy="leave optimizer=None, or pass optax.adam(0.01)",
                )
            )
        validation.at_least("SVIMethod", 1, num_steps=self.num_steps, num_samples=self.num_samples)

    @property
    def num_draws(self) -> int:
        """Draws from the fitted guide."""
        return self.num_samples

    def run(self, model: Model, key: jax.Array, *args: Any, **kwargs: Any) -> Draws:
        """Draws from the guide of `model`: a pure function of `key`, `args` and `kwargs`.

        It may be transformed by ``jax.jit``, and by ``jax.vmap`` over data sets.

        Raises
        ------
        TypeError
            If `guide` does not make an autoguide.
        """
        guide = self.guide(model)
        if not hasattr(guide, "sample_posterior"):
            raise TypeError(
                message(
                    "SVIMethod: guide= does not make an autoguide",
                    got=type(guide).__name__,
                    remedy="pass guide=AutoNormal",
                )
            )
        fit_key, draw_key = jax.random.split(key)
        if isinstance(guide, AutoFisherLaplace):
            params = _fit_at_mode(guide, fit_key, args, kwargs)
        else:
            params = self._fit_by_svi(guide, fit_key, args, kwargs)
        with jax.numpy_rank_promotion("allow"):  # NumPyro's guides rely on it
            samples = guide.sample_posterior(
                draw_key, params, *args, sample_shape=(self.num_samples,), **kwargs
            )
        return Draws(jax.tree.map(lambda x: x[None], samples), jnp.zeros((), int))

    def _fit_by_svi(
        self,
        guide: Callable[..., Any],
        key: jax.Array,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> dict[str, jax.Array]:
        optimizer = self.optimizer
        if optimizer is None:
            schedule = optax.cosine_decay_schedule(LEARNING_RATE, self.num_steps)
            optimizer = optax_to_numpyro(optax.adam(schedule))
        svi = SVI(guide.model, guide, optimizer, Trace_ELBO())

        def step(state: Any, _: None) -> tuple[Any, None]:
            return svi.update(state, *args, **kwargs)[0], None

        with jax.numpy_rank_promotion("allow"):
            state = svi.init(key, *args, **kwargs)
            state, _ = jax.lax.scan(step, state, None, length=self.num_steps)
        return svi.get_params(state)


Method = MCMCMethod | SVIMethod


def _fit_at_mode(
    guide: AutoFisherLaplace, key: jax.Array, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, jax.Array]:
    guide.set_up(*args, **kwargs)
    starts, _ = draw_starts(guide.posterior, key, NUM_STARTS)
    minima = minimise(guide.posterior, starts)
    return guide.params_at(minima.xi[minima.best])
