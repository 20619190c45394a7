"""`contraction`: how fast the posterior shrinks to the truth as data get better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.mcmc import MCMCKernel

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.calibration.convergence import effective
from numpyro_genprior.diagnostics.calibration.experiment import Experiment, prepare
from numpyro_genprior.diagnostics.calibration.inference import Method, choose_method
from numpyro_genprior.diagnostics.calibration.power_law import Rate, fit_rate
from numpyro_genprior.diagnostics.calibration.ranked_quantities import Functional, Quantities, Whole
from numpyro_genprior.errors import message
from numpyro_genprior.infer.laplace import AutoFisherLaplace
from numpyro_genprior.infer.methods import SVIMethod


@dataclass(frozen=True, repr=False)
class Contraction:
    """Posterior spread and error along a ladder, with the rates. Print it to read it.

    All are root mean squares over the entries of the quantity.

    Attributes
    ----------
    argument
        The model's argument that changes along the ladder.
    values
        Its values, of shape ``(steps,)``.
    error
        Distance of the posterior mean from the truth, of shape ``(steps, replications)``.
    spread
        Posterior standard deviation, of the same shape.
    num_divergences
        Of all chains, at each step.
    num_nonfinite
        Replications left out, for draws that are not finite at some step.
    """

    argument: str
    values: np.ndarray
    error: np.ndarray
    spread: np.ndarray
    num_divergences: np.ndarray
    num_nonfinite: int

    @property
    def radius(self) -> np.ndarray:
        """Root mean square distance of draws from the truth: ``(error² + spread²)^(1/2)``."""
        return np.sqrt(self.error**2 + self.spread**2)

    @property
    def rates(self) -> dict[str, Rate]:
        """Exponents of ``"radius"``, ``"error"`` and ``"spread"`` in the argument."""
        curves = {"radius": self.radius, "error": self.error, "spread": self.spread}
        return {name: fit_rate(self.values, curve) for name, curve in curves.items()}

    def compare(self, other: Contraction) -> Comparison:
        """Which of two priors contracts faster; `other` has the same argument."""
        if self.argument != other.argument:
            raise ValueError(
                message(
                    "Ladders of different arguments",
                    expected=self.argument,
                    got=other.argument,
                    remedy="run both along one ladder",
                )
            )
        return Comparison(self.rates["radius"], other.rates["radius"])

    def __repr__(self) -> str:
        rates, what = self.rates, self.argument
        radius = rates["radius"]
        number = self.error.shape[1]
        lines = [
            f"The posterior contracts like {what}^({radius}), for {what} from "
            f"{self.values[0]:.3g} to {self.values[-1]:.3g}.",
            f"  its spread like {what}^({rates['spread']}), the error of its mean like "
            f"{what}^({rates['error']})",
            f"  radius {', '.join(f'{r:.3g}' for r in _rms(self.radius))}",
            f"  exponent from step to step: {', '.join(f'{s:.2f}' for s in radius.local)}",
            f"  {number} replications" + self._trouble(),
        ]
        if radius.bent:
            lines.append(
                "The exponent changes along the ladder: there is no one rate over this range."
            )
        ratio = _rms(self.error)[-1] / _rms(self.spread)[-1]
        if not 0.7 < ratio < 1.4:
            side = "too sure of itself" if ratio > 1 else "less sure than it could be"
            lines.append(
                f"At the last step the error is {ratio:.2g} times the spread: the posterior is "
                f"{side} about these truths."
            )
        lines.append(
            "Over this range, and for these truths; a limit may be another, and a rate says "
            "nothing of the constant."
        )
        return "\n".join(lines)

    def _trouble(self) -> str:
        parts = []
        if self.num_nonfinite:
            parts.append(f"{self.num_nonfinite} more were not finite, and left out")
        if self.num_divergences.any():
            parts.append(f"divergences at each step: {self.num_divergences.tolist()}")
        return "".join(f"; {part}" for part in parts)


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two rates. Print it to read it.

    Attributes
    ----------
    first, second
        Rates of the radius of the two.
    """

    first: Rate
    second: Rate

    @property
    def difference(self) -> float:
        """How much larger the exponent of contraction of the first is: positive when faster."""
        return self.first.speed - self.second.speed

    @property
    def error(self) -> float:
        """Standard error of the difference, of independent replications."""
        return float(np.hypot(self.first.error, self.second.error))

    @property
    def verdict(self) -> str:
        """``"faster"``, ``"slower"`` (the first, by three standard errors) or ``"alike"``."""
        if abs(self.difference) <= 3 * self.error:
            return "alike"
        return "faster" if self.difference > 0 else "slower"

    def __repr__(self) -> str:
        how = {"alike": "contract alike, as far as this tells"}.get(
            self.verdict, f"differ: the first contracts {self.verdict}"
        )
        return (
            f"The two {how}: exponents {self.first} and {self.second}, difference "
            f"{self.difference:.2f} ± {self.error:.2f}. Over this ladder; constants may matter "
            "more than exponents."
        )


def contraction(
    model: Callable[..., Any],
    key: jax.Array,
    *args: Any,
    ladder: Mapping[str, Sequence[Any]],
    truth: Mapping[str, Any] | None = None,
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

    At each step of the ladder, data are simulated from truths and inference is run on each data
    set, vmapped. The exponent of the posterior's radius about the truth, its spread and its error
    in the ladder's argument is fitted: for noise σ and a regular finite-dimensional model it is 1;
    for n measurements, -1/2; for a function in an ill-posed problem, less, by how rough the prior
    and the truth are. A prior that makes the truth improbable contracts slowly, or to another
    point.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` when it has priors without an
        exact density.
    key
        Random key. Truths and noise are paired along the ladder where shapes allow.
    args, kwargs
        The model's other arguments, data of the right shape among them.
    ladder
        From the least to the most informative: ``{"noise": [0.3, 0.1, 0.03]}`` names a keyword
        argument of the model. Further keywords change with it: ``{"n": [10, 100], "y": [zeros(10),
        zeros(100)]}``. The first holds positive numbers, those that rates are in. Integers compile
        one program each, floats one in all.
    truth
        Values of sites, of an event say (``{"x": event}``), or several along a first dimension.
        None: drawn from the prior.
    method, kernel, guide
        As for `sbc`, but all draws of a guide are used. Without any of the three:
        ``method=SVIMethod(AutoFisherLaplace, num_samples=127)``.
    functional
        A function of a dictionary of sites: what is to contract, an array. None: the events of
        priors; where there is none, the latents.
    num_replications
        Number of data sets at each step.
    observed, batch_size, progress_bar
        As for `sbc`.

    Returns
    -------
    Contraction
        ``.rates``, ``.error``, ``.spread``, ``.radius``, ``.compare(other)``; prints as a finding.

    Raises
    ------
    TypeError, ValueError
        As `sbc` does; for a ladder that is none, and truths of another shape than their site.

    Notes
    -----
    With posterior mean m, variances v and truth x, error² is the mean over entries of
    ``(m - x)² - v / S`` (S effective draws: what is due to Monte Carlo is taken off), spread² that
    of v. The exponent is the weighted least-squares slope of log radius in log argument for each
    replication, its uncertainty from the replications, which share truth and noise along the
    ladder. Weights are the inverse variances over replications.

    **Fails when** the method fails: a Laplace approximation at the wrong mode contracts to another
    point. When the ladder ends before the asymptotic range; the exponents from step to step show
    it. In float32, noise below 1e-4 of the data is rounding.

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
    >>> found = ngp.diagnostics.contraction(
    ...     model,
    ...     jax.random.key(0),
    ...     jnp.zeros(4),
    ...     ladder={"noise": [0.1, 0.03, 0.01]},
    ...     progress_bar=False,
    ... )
    >>> abs(found.rates["spread"].exponent - 1) < 0.02
    True
    """
    default = SVIMethod(AutoFisherLaplace, num_samples=127)
    method = choose_method("contraction", method, kernel, guide, default=default)
    steps, values = _read(ladder)
    base = validation.random_key(key)
    spreads, errors, divergences, finite = [], [], [], []
    for step, value in zip(steps, values, strict=True):
        experiment = prepare(
            "contraction", model, args, {**kwargs, **step}, observed, num_replications,
            method,
        )  # fmt: skip
        data_key, run_key = jax.random.split(base)
        given = _given(experiment, truth, num_replications)
        drawn = experiment.simulate(data_key, num_replications, given=given)
        one = {k: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for k, v in drawn.items()}
        quantities = Quantities(_what(experiment, functional), one)
        point = np.asarray(jax.vmap(quantities)(drawn), float)
        desc = f"{next(iter(ladder))} = {value:.3g}"
        error, spread, good, diverging = _moments(
            experiment, run_key, drawn, quantities, point, batch_size, progress_bar, desc
        )
        errors.append(error)
        spreads.append(spread)
        finite.append(good)
        divergences.append(diverging)
    keep = np.all(finite, axis=0)
    if keep.sum() < 2:
        raise ValueError(
            message(
                "contraction: hardly a replication has finite draws",
                got=f"{int(keep.sum())} of {num_replications}",
                remedy="run the method once on simulated data and look at it",
            )
        )
    return Contraction(
        next(iter(ladder)),
        values,
        np.stack(errors)[:, keep],
        np.stack(spreads)[:, keep],
        np.array(divergences),
        int((~keep).sum()),
    )


def _read(ladder: Any) -> tuple[list[dict[str, Any]], np.ndarray]:
    lengths = {len(values) for values in ladder.values()} if isinstance(ladder, Mapping) else set()
    values = np.zeros(0)
    if len(lengths) == 1 and lengths.pop() > 1:
        first = next(iter(ladder.values()))
        scalars = all(np.ndim(value) == 0 for value in first)
        values = np.asarray(first, float) if scalars else values
    steps = np.diff(values)
    if not len(steps) or not (values > 0).all() or not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(
            message(
                "contraction: this is no ladder",
                expected="a dictionary of a keyword argument to two or more positive numbers that "
                "rise or fall (and of further ones to as many values)",
                got=repr(ladder)[:80],
                remedy='pass ladder={"noise": [0.3, 0.1, 0.03]}',
            )
        )
    rows = [dict(zip(ladder, row, strict=True)) for row in zip(*ladder.values(), strict=True)]
    return [{name: _traced(value) for name, value in row.items()} for row in rows], values


def _traced(value: Any) -> Any:
    """Floats as arrays, so that one program serves all of them; integers may be shapes."""
    return jnp.asarray(value) if isinstance(value, (float, np.floating)) else value


def _given(experiment: Experiment, truth: Any, number: int) -> dict[str, Any] | None:
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


def _what(experiment: Experiment, functional: Functional | None) -> dict[str, Functional]:
    if functional is not None:
        return {"functional": functional}
    names = experiment.sites.events or experiment.sites.latents
    return {name: Whole(name) for name in names}


def _moments(
    experiment: Experiment,
    key: jax.Array,
    drawn: dict[str, Any],
    quantities: Quantities,
    truth: np.ndarray,
    batch_size: int | None,
    progress_bar: bool,
    desc: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Error and spread of each replication, whether they are finite, and divergences in all."""
    errors, spreads, diverging = [], [], 0
    batches = experiment.run(
        key, drawn, quantities, batch_size=batch_size, progress_bar=progress_bar, desc=desc
    )
    for batch in batches:
        chains, at = np.asarray(batch.values, float), truth[batch.rows]
        number = experiment.method.num_draws
        if not experiment.method.independent:
            number = effective(chains, at)
        values = chains.reshape(len(chains), -1, chains.shape[-1])
        variance = values.var(1, ddof=1)
        square = (values.mean(1) - at) ** 2 - variance / number
        errors.append(np.sqrt(np.maximum(square.mean(-1), 0)))
        spreads.append(np.sqrt(variance.mean(-1)))
        diverging += int(batch.num_divergences.sum())
    error, spread = np.concatenate(errors), np.concatenate(spreads)
    return error, spread, np.isfinite(error) & np.isfinite(spread), diverging


def _rms(curve: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(curve**2, axis=1))
