"""`contraction`: how fast the posterior shrinks to the truth as data get better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int
from numpyro.infer.mcmc import MCMCKernel

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.calibration.contraction_result import Contraction
from numpyro_genprior.diagnostics.calibration.convergence import effective_draws, unmixed
from numpyro_genprior.diagnostics.calibration.experiment import Batch, Experiment, Values, prepare
from numpyro_genprior.diagnostics.calibration.inference import choose_method
from numpyro_genprior.diagnostics.calibration.ranked_quantities import (
    AllEntries,
    Functional,
    Quantities,
)
from numpyro_genprior.errors import message
from numpyro_genprior.infer.laplace import AutoFisherLaplace
from numpyro_genprior.infer.methods import Method, SVIMethod

DEFAULT_METHOD = SVIMethod(AutoFisherLaplace, num_samples=127)


def contraction(
    model: Callable[..., Any],
    key: jax.Array,
    *args: Any,
    schedule: Mapping[str, Sequence[Any]],
    truth: Mapping[str, ArrayLike] | None = None,
    method: Method | None = None,
    kernel: Callable[..., MCMCKernel] | None = None,
    guide: Callable[..., Any] | None = None,
    functional: Functional | None = None,
    num_replications: int = 32,
    observed: str | tuple[str, ...] | None = None,
    batch_size: int | None = None,
    progress_bar: bool = True,
    **kwargs: Any,
) -> Contraction:
    """How fast does the posterior shrink to the truth as noise falls or measurements grow?

    At each step of the schedule, data are simulated from truths and inference is run on each data
    set, vmapped. The posterior's radius about the truth, its spread and its error are fitted by
    power laws in the argument that changes. For noise σ and a regular finite-dimensional model the
    exponent is 1; for n measurements, -1/2; for a function in an ill-posed problem, less, depending
    on how rough the prior and the truth are. A prior under which the truth is improbable contracts
    slowly, or to another point.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` if it has priors without an
        exact density.
    key
        Random key. All steps share their truths and noise where shapes allow.
    args, kwargs
        The model's other arguments, including data of the right shape.
    schedule
        Least informative first: ``{"noise": [0.3, 0.1, 0.03]}`` names a keyword
        argument of the model. Further keywords change with it: ``{"n": [10, 100], "y": [zeros(10),
        zeros(100)]}``. The first holds the positive numbers in which power laws are fitted. Each
        integer is compiled separately; floats share one program.
    truth
        Values of sites, such as an event (``{"x": event}``), or several along a first dimension.
        None: drawn from the prior.
    method, kernel, guide
        As for `sbc`, but all draws of a guide are used. Without any of the three:
        ``method=SVIMethod(AutoFisherLaplace, num_samples=127)``.
    functional
        A function of a dictionary of sites that returns the array that should contract. None: the
        events of priors, or the latents if there are no events.
    num_replications
        Number of data sets at each step.
    observed, batch_size, progress_bar
        As for `sbc`.

    Returns
    -------
    Contraction
        ``.verdict``, ``.rates``, ``.error``, ``.spread``, ``.radius``, ``.compare(other)``.

    Raises
    ------
    TypeError, ValueError
        As `sbc` does; if the schedule is invalid, or the shape of a truth differs from its site's.

    Notes
    -----
    With posterior mean m, variances v and truth x, error² is the mean over entries of
    ``(m - x)² - v / S`` (the second term removes the Monte Carlo error of S effective draws),
    spread² that of v. The exponent is the weighted least-squares slope of log radius on log
    argument for each replication, with weights the inverse variances over replications. Its
    standard error comes from the replications, which share truth and noise along the schedule.

    **Fails when** the method fails: a Laplace approximation at the wrong mode contracts to another
    point. If the schedule ends before the asymptotic range, the exponents between steps change. In
    float32, noise below 1e-4 of the data is rounding.

    References
    ----------
    Ghosal, van der Vaart, Fundamentals of nonparametric Bayesian inference, 2017. Knapik, van der
    Vaart, van Zanten, Bayesian inverse problems with Gaussian priors, Annals of Statistics 2011.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> import numpyro_genprior as ngp
    >>> @ngp.latent
    ... def model(y, noise):
    ...     x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.tile(z, 2), 2))
    ...     numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=y)
    >>> result = ngp.diagnostics.contraction(
    ...     model,
    ...     jax.random.key(0),
    ...     jnp.zeros(4),
    ...     schedule={"noise": [0.1, 0.03, 0.01]},
    ...     progress_bar=False,
    ... )
    >>> abs(result.rates["spread"].exponent - 1) < 0.02
    True
    """
    steps, values = _read_schedule(schedule)
    method = choose_method("contraction", method, kernel, guide, default=DEFAULT_METHOD)
    argument = next(iter(schedule))
    data_key, run_key = jax.random.split(validation.random_key(key))
    moments = []
    for step, value in zip(steps, values, strict=True):
        changed = {**kwargs, **step}
        experiment = prepare(
            "contraction", model, args, changed, observed, num_replications, method
        )
        true_values = _true_values(experiment, truth, num_replications)
        simulated = experiment.simulate(data_key, num_replications, given=true_values)
        shapes = {k: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for k, v in simulated.items()}
        quantities = Quantities(_contracting_quantities(experiment, functional), shapes)
        truths = np.asarray(jax.vmap(quantities)(simulated), float)
        batches = experiment.run(
            run_key,
            simulated,
            quantities,
            batch_size=batch_size,
            progress_bar=progress_bar,
            description=f"{argument} = {value:.3g}",
        )
        parts = [_moments(batch, truths[batch.rows], method) for batch in batches]
        moments.append(Moments(*map(np.concatenate, zip(*parts, strict=True))))
    finite = np.stack([np.isfinite(m.error) & np.isfinite(m.spread) for m in moments]).all(0)
    if finite.sum() < 2:
        raise ValueError(
            message(
                "contraction: fewer than two replications have finite draws",
                got=f"{int(finite.sum())} of {num_replications}",
                remedy="run the method once on simulated data and inspect the draws",
            )
        )
    return Contraction(
        argument,
        values,
        np.stack([m.error for m in moments])[:, finite],
        np.stack([m.spread for m in moments])[:, finite],
        np.array([m.num_divergences.sum() for m in moments]),
        np.array([m.unmixed.sum() for m in moments]),
        int((~finite).sum()),
    )


class Moments(NamedTuple):
    """Error and spread of each replication, and the convergence of its chains."""

    error: Float[np.ndarray, " replications"]
    spread: Float[np.ndarray, " replications"]
    num_divergences: Int[np.ndarray, " replications"]
    unmixed: Bool[np.ndarray, " replications"]


def _moments(
    batch: Batch, truth: Float[np.ndarray, "replications entries"], method: Method
) -> Moments:
    chains = np.asarray(batch.values, float)
    values = chains.reshape(len(chains), -1, chains.shape[-1])
    if method.independent:
        number, is_unmixed = method.num_draws, np.zeros(len(chains), bool)
    else:
        number, is_unmixed = effective_draws(chains, truth), unmixed(chains)
    variance = values.var(1, ddof=1)
    squared_error = (values.mean(1) - truth) ** 2 - variance / number
    error = np.sqrt(np.maximum(squared_error.mean(-1), 0))
    return Moments(error, np.sqrt(variance.mean(-1)), batch.num_divergences, is_unmixed)


def _read_schedule(
    schedule: Mapping[str, Sequence[Any]],
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The keyword arguments of each step, and the values of the first of them."""
    is_mapping = isinstance(schedule, Mapping)
    lengths = {len(values) for values in schedule.values()} if is_mapping else set()
    values = np.zeros(0)
    if len(lengths) == 1 and lengths.pop() > 1:
        first = next(iter(schedule.values()))
        scalars = all(np.ndim(value) == 0 for value in first)
        values = np.asarray(first, float) if scalars else values
    steps = np.diff(values)
    if not len(steps) or not (values > 0).all() or not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(
            message(
                "contraction: the schedule is invalid",
                expected="a dictionary of a keyword argument to two or more positive numbers that "
                "increase or decrease (and of further ones to as many values)",
                got=repr(schedule)[:80],
                remedy='pass schedule={"noise": [0.3, 0.1, 0.03]}',
            )
        )
    rows = [dict(zip(schedule, row, strict=True)) for row in zip(*schedule.values(), strict=True)]
    return [{name: _float_to_array(value) for name, value in row.items()} for row in rows], values


def _float_to_array(value: Any) -> Any:
    """Floats as arrays, so that they share a compiled program; integers may be shapes."""
    return jnp.asarray(value) if isinstance(value, (float, np.floating)) else value


def _true_values(
    experiment: Experiment, truth: Mapping[str, ArrayLike] | None, number: int
) -> Values | None:
    """Values of the truth's sites, with a leading dimension of data sets."""
    if truth is None:
        return None
    given = {}
    for name, value in truth.items():
        shape, array = experiment.sites.shapes.get(name), jnp.asarray(value)
        if shape is None or array.shape[array.ndim - len(shape) :] != shape:
            raise ValueError(
                message(
                    f"contraction: the truth of {name!r} does not fit"
                    if shape is not None
                    else f"contraction: there is no site {name!r}",
                    expected=f"{shape}, or several along a first dimension"
                    if shape is not None
                    else f"one of {sorted(experiment.sites.shapes)}",
                    got=array.shape,
                    remedy="pass values of recorded sites",
                )
            )
        rows = array.reshape(-1, *shape)
        given[name] = rows[jnp.arange(number) % len(rows)]
    return given


def _contracting_quantities(
    experiment: Experiment, functional: Functional | None
) -> dict[str, Functional]:
    if functional is not None:
        return {"functional": functional}
    names = experiment.sites.events or experiment.sites.latents
    return {name: AllEntries(name) for name in names}
