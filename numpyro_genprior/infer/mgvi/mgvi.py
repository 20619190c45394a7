"""`MGVI`: a Gaussian whose covariance is the inverse metric, for up to millions of latents."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from tqdm.auto import tqdm

from numpyro_genprior import validation
from numpyro_genprior.errors import message
from numpyro_genprior.infer.mgvi.result import MGVIResult, run_warnings
from numpyro_genprior.infer.mgvi.step import Settings, Step, initial_mean, jit_step
from numpyro_genprior.infer.posterior import Posterior


class MGVI:
    """Metric Gaussian variational inference, which scales to millions of latents.

    The posterior of standard normal coordinates ξ is approximated by N(ξ̄, M⁻¹) with the metric
    M = I + JᵀJ at ξ̄, the precision of the prior plus the Fisher information of the data. Each step
    (1) linearises the model at ξ̄, (2) draws samples ξ̄ + s by solving M s = η + Jᵀζ for white η, ζ
    by conjugate gradients, (3) mirrors them to ξ̄ - s, and (4) minimises the mean energy of the
    samples over ξ̄, with s held fixed, by Newton's method with the mean metric as curvature. No
    matrix is formed. For linear models with Gaussian noise the approximation is exact.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` if it has priors without an
        exact density. All latent sites must have standard normal coordinates, and all observed
        sites a distribution listed in `numpyro_genprior.infer.fisher`.
    num_samples
        Number of pairs of samples in a step.
    tolerance
        Error of samples and of the mean, in posterior standard deviations: the root mean square
        over as many directions as the data can inform, the smaller of the number of latents and
        the number of parameters of the likelihood.
    max_cg_steps
        Largest number of iterations of conjugate gradients for one sample or one Newton step.
    max_newton_steps
        Largest number of Newton steps in a step.
    init
        Initial values of the latent sites, e.g. from `find_map`; None starts near ξ = 0.
    progress_bar
        Whether to show a bar over steps.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Notes
    -----
    **Source.** J. Knollmüller & T. A. Enßlin, "Metric Gaussian variational inference" (2019),
    arXiv:1901.11033.

    `numpyro_genprior.infer.mgvi.step` has the pure functions, for ``jax.jit`` and ``jax.vmap``:
    ``initial_mean``, ``step``, ``fit`` and ``sample_residuals``, of a `Posterior`. A second run
    with other data compiles nothing.

    **Fails when** the posterior has several modes or is curved: the Gaussian describes one mode,
    and misses the spread along a curve. Compare with `FisherNUTS` or `SMC` on a smaller problem of
    the same kind.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro_genprior.infer import MGVI
    >>> def model(y):
    ...     z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    ...     numpyro.sample("y", dist.Normal(z, 0.5).to_event(1), obs=y)
    >>> result = MGVI(model, progress_bar=False).run(jax.random.key(0), 2, jnp.array([1.0, -1.0]))
    >>> [round(float(z), 2) for z in result.values["z"]]
    [0.8, -0.8]
    >>> result.sample_posterior(jax.random.key(1), (100,))["z"].shape
    (100, 2)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        num_samples: int = 4,
        *,
        tolerance: float = 0.01,
        max_cg_steps: int = 1000,
        max_newton_steps: int = 10,
        init: Mapping[str, ArrayLike] | None = None,
        progress_bar: bool = True,
    ) -> None:
        validation.at_least(
            "MGVI",
            1,
            num_samples=num_samples,
            max_cg_steps=max_cg_steps,
            max_newton_steps=max_newton_steps,
        )
        if not 0 < tolerance < 1:
            raise ValueError(
                message(
                    "MGVI: tolerance is out of range",
                    expected="a number between 0 and 1, in posterior standard deviations",
                    got=tolerance,
                    remedy="leave it out for the default",
                )
            )
        self.model, self.init, self.progress_bar = model, init, progress_bar
        self.settings = Settings(num_samples, tolerance, max_cg_steps, max_newton_steps)

    def run(self, key: jax.Array, num_steps: int, *args: Any, **kwargs: Any) -> MGVIResult:
        """Approximate the posterior of the model given its arguments.

        Parameters
        ----------
        key
            PRNG key of either kind.
        num_steps
            Number of steps; 5 to 20 are common.
        args, kwargs
            The model's arguments.

        Returns
        -------
        MGVIResult
            With ``.sample_posterior(key, shape)``, ``.xi`` and ``.values``.

        Raises
        ------
        ValueError
            If a latent site has no standard normal coordinates or an observed distribution no
            Fisher information, by name; if nothing is observed; or if the energy at the start is
            not finite.

        Warns
        -----
        RuntimeWarning
            Once, if there are reasons to doubt the result, with all of ``result.warnings``.
        """
        validation.at_least("MGVI", 1, num_steps=num_steps)
        posterior = Posterior(self.model, args, kwargs)
        posterior.require_standard_normal("MGVI")
        if not posterior.layout.observed:
            raise ValueError(
                message(
                    "MGVI: the model has no observed site, and its posterior is the prior",
                    expected="data that reach obs=",
                    got=f"latent sites {[part.name for part in posterior.layout.slices]} alone",
                    remedy="pass the data as an argument of run, or draw from the prior by "
                    "numpyro.infer.Predictive",
                )
            )
        start_key, key = jax.random.split(key)
        xi = _initial_mean(start_key, posterior, self.init)
        steps: list[Step] = []
        with tqdm(range(num_steps), desc="MGVI", disable=not self.progress_bar) as bar:
            for index in bar:
                step_key = jax.random.fold_in(key, index)
                xi, step = jit_step(step_key, posterior, xi, self.settings)
                steps.append(step)
                if self.progress_bar:
                    bar.set_postfix(
                        kl=f"{float(step.kl):.5g}",
                        newton=int(step.newton_steps),
                        cg=int(step.sampling_iterations.max()),
                    )
        result = _result(posterior, xi, steps, self.settings)
        if result.warnings:
            warnings.warn("MGVI: " + " ".join(result.warnings), RuntimeWarning, stacklevel=2)
        return result


def _initial_mean(
    key: jax.Array, posterior: Posterior, init: Mapping[str, ArrayLike] | None
) -> jax.Array:
    """The initial mean; raises ValueError if the energy or its gradient is not finite there."""
    xi = _jit_initial_mean(key, posterior) if init is None else posterior.coordinates(dict(init))
    energy, gradient = _energy(posterior, xi)
    if not (np.isfinite(energy) and np.isfinite(gradient).all()):
        raise ValueError(
            message(
                "MGVI: the log joint density at the start, or its gradient, is not finite",
                expected="a finite density near the middle of the prior"
                if init is None
                else "initial values with a finite density",
                got=f"an energy of {float(energy):.4g}",
                remedy="check data and model for NaN and infinity, or give init= other values "
                "of the latent sites, e.g. find_map(model, key, ...).values",
            )
        )
    return xi


def _result(
    posterior: Posterior, xi: jax.Array, steps: list[Step], settings: Settings
) -> MGVIResult:
    host = jax.device_get(steps)
    history = {name: np.array([getattr(s, name) for s in host]) for name in Step._fields}
    return MGVIResult(
        xi=xi,
        warnings=run_warnings(history, settings),
        posterior=posterior,
        settings=settings,
        **history,
    )


_jit_initial_mean = jax.jit(initial_mean)


@jax.jit
def _energy(posterior: Posterior, xi: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.value_and_grad(posterior.energy)(xi)
