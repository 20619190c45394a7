"""`ParallelTempering`: non-reversible parallel tempering from the prior, as a NumPyro kernel."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer import MCMC

from numpyro_genprior import validation
from numpyro_genprior.infer.base_kernel import PureKernel, split_sites
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.infer.tempering.accumulators import (
    Accumulators,
    add_stepping_stones,
    empty_accumulators,
)
from numpyro_genprior.infer.tempering.adaptation import (
    Adaptation,
    end_round,
    final_adaptation,
    initial_adaptation,
    is_round_end,
    update_adaptation,
)
from numpyro_genprior.infer.tempering.hmc import (
    LogLikelihood,
    ReplicaState,
    evaluate,
    trajectory,
)
from numpyro_genprior.infer.tempering.report import TemperingReport, read_report
from numpyro_genprior.infer.tempering.schedule import initial_schedule


class TemperingState(NamedTuple):
    """State of an ensemble of n replicas with d coordinates.

    Attributes
    ----------
    i
        Number of iterations so far.
    z
        Coordinates of the replica at β = 1, which samples the posterior, by latent site.
    potential_energy
        Minus the log joint density at `z`.
    accept_prob
        Last acceptance probabilities of the local moves, of shape ``(n - 1,)``: the replica at
        β = 0 is drawn from the prior and has none.
    betas
        Inverse temperatures, from 0 (the prior) to 1, of shape ``(n,)``.
    step_size
        Step sizes of the local moves, of shape ``(n - 1,)``.
    replicas
        Coordinates ``(n, d)``, log likelihoods ``(n,)`` and their gradients ``(n, d)``.
    last_end
        The end that each replica has visited last: 1 the prior, -1 the posterior, 0 neither.
    adaptation
        Quantities that warm-up adapts.
    accumulators
        Running sums for the schedule and the report.
    num_warmup
        Number of iterations that adapt.
    rng_key
        Key.
    """

    i: jax.Array
    z: dict[str, jax.Array]
    potential_energy: jax.Array
    accept_prob: jax.Array
    betas: jax.Array
    step_size: jax.Array
    replicas: ReplicaState
    last_end: jax.Array
    adaptation: Adaptation
    accumulators: Accumulators
    num_warmup: jax.Array
    rng_key: jax.Array


class ParallelTempering(PureKernel):
    """Non-reversible parallel tempering between the prior and the posterior.

    Replicas sample ``prior · likelihood^β`` for β from 0 to 1. In each iteration, every replica
    moves locally, by a Hamiltonian trajectory with a fixed number of steps, except that the one at
    β = 0 is drawn independently from the prior; then neighbours swap, even pairs in one iteration
    and odd pairs in the next. A replica that travels from the prior to the posterior is thus an
    independent proposal, possibly in another mode: use this sampler if chains of NUTS stay in
    separate modes, as is common under a learned prior. The draws of `numpyro.infer.MCMC` are those
    at β = 1; each of its chains is a whole ensemble, so that r-hat compares independent ensembles.

    Warm-up adapts in rounds of doubling length: the β (to equal rejection of all swaps), the step
    size at each β (to `target_accept_prob`) and the metric at each β (to the mean square of the
    score, which is the curvature within modes and does not depend on distances between them). An
    iteration takes ``num_steps · (num_replicas - 1) + 1`` gradients, evaluated in batches.
    Under a prior of images, with a barrier of 8, an ensemble makes a round trip in 60 to 100
    iterations: 1000 of warm-up and 2000 to 4000 of sampling in four ensembles are a good start.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` if it has priors without an
        exact density. All of its latent sites need standard normal coordinates, see
        `numpyro_genprior.infer.coordinates`.
    num_replicas
        Number of inverse temperatures, including those of the prior and the posterior. About twice
        the communication barrier is best; the report states it.
    num_steps
        Number of steps of each trajectory.
    target_accept_prob
        Mean acceptance probability that the step sizes are adapted to.
    dense_limit
        Largest number of coordinates with a dense metric; above it, the metric is diagonal.

    Raises
    ------
    ValueError
        If there are fewer than two replicas or no steps; at `init`, if a site has no standard
        normal coordinates.

    Notes
    -----
    The rate of round trips, at best ``1 / (2 + 2 Σ r / (1 - r))`` per iteration for rejections r,
    limits how well modes mix: the report counts round trips, and warns if there are few. Moves to
    points without a finite energy are rejected, and counted.

    **Fails when** the likelihood is not differentiable (see `EllipticalSlice`), or if there are too
    few replicas for the barrier: no replica then reaches the posterior from the prior, and the
    result is that of local HMC.

    **Source.** S. Syed, A. Bouchard-Côté, G. Deligiannidis & A. Doucet, "Non-reversible parallel
    tempering: a scalable highly parallel MCMC scheme", JRSS B 84 (2022).

    Examples
    --------
    Two modes, of which a local sampler finds one:

    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC
    >>> from numpyro_genprior.infer import ParallelTempering
    >>> def model(y):
    ...     z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    ...     numpyro.sample("y", dist.Normal(z**2, 0.01), obs=y)
    >>> kernel = ParallelTempering(model, num_replicas=8)
    >>> mcmc = MCMC(
    ...     kernel,
    ...     num_warmup=500,
    ...     num_samples=1000,
    ...     num_chains=4,
    ...     chain_method="vectorized",
    ...     progress_bar=False,
    ... )
    >>> mcmc.run(jax.random.key(0), 1.0)
    >>> bool(abs(jnp.mean(mcmc.get_samples()["z"] > 0) - 0.5) < 0.1)
    True
    >>> report = ParallelTempering.report(mcmc)  # print(report)
    >>> bool(report.round_trips.min() > 50), report.warnings
    (True, ())
    """

    def __init__(
        self,
        model: Callable[..., Any],
        num_replicas: int = 16,
        *,
        num_steps: int = 4,
        target_accept_prob: float = 0.8,
        dense_limit: int = 64,
    ) -> None:
        super().__init__(model)
        validation.at_least("ParallelTempering", 2, num_replicas=num_replicas)
        validation.at_least("ParallelTempering", 1, num_steps=num_steps)
        self._num_replicas = num_replicas
        self._num_steps = num_steps
        self._target_accept_prob = target_accept_prob
        self._dense_limit = dense_limit

    # ---- the pure core ---------------------------------------------------------------------------

    def init_state(
        self, posterior: Posterior, key: jax.Array, num_warmup: int, xi: jax.Array | None = None
    ) -> TemperingState:
        """All replicas at draws from the prior; the one at β = 1 at `xi`, if it is given."""
        n = self._num_replicas
        key, draw_key = jax.random.split(key)
        start = jax.random.normal(draw_key, (n, posterior.size))
        if xi is not None:
            start = start.at[-1].set(xi)
        log_likelihood = _with_gradient(posterior)
        replicas = jax.vmap(lambda xi: evaluate(log_likelihood, xi))(start)
        betas = initial_schedule(replicas.log_likelihood[:-1], n)
        dense = posterior.size <= self._dense_limit
        adaptation = initial_adaptation(betas, replicas, num_steps=self._num_steps, dense=dense)
        state = TemperingState(
            i=jnp.zeros((), int),
            z={},
            potential_energy=jnp.zeros((), start.dtype),
            accept_prob=jnp.zeros(n - 1, start.dtype),
            betas=betas,
            step_size=jnp.exp(adaptation.log_step),
            replicas=replicas,
            last_end=jnp.zeros(n, int).at[0].set(1),
            adaptation=adaptation,
            accumulators=empty_accumulators(n, start.dtype),
            num_warmup=jnp.asarray(num_warmup),
            rng_key=key,
        )
        return _with_sites(posterior, state)

    def step(self, posterior: Posterior, state: TemperingState) -> TemperingState:
        """One iteration: local exploration, communication and, in warm-up, adaptation."""
        key, normal_key, uniform_key = jax.random.split(state.rng_key, 3)
        xi = state.replicas.xi
        normals = jax.random.normal(normal_key, xi.shape, xi.dtype)
        uniforms = jax.random.uniform(uniform_key, (len(xi), 3), xi.dtype)
        state = self._explore(posterior, state._replace(rng_key=key), normals, uniforms[1:, :2])
        state = _communicate(state, uniforms[1:, 2])
        state = state._replace(i=state.i + 1)
        state = jax.lax.cond(state.i <= state.num_warmup, self._adapt, lambda s: s, state)
        return _with_sites(posterior, state)

    def _explore(
        self, posterior: Posterior, state: TemperingState, normals: jax.Array, uniforms: jax.Array
    ) -> TemperingState:
        """Local exploration: an independent prior draw at β = 0, a trajectory at each other β."""
        log_likelihood = _with_gradient(posterior)
        at_prior = evaluate(log_likelihood, normals[0])
        others, accept_prob, is_nan = jax.vmap(
            lambda *args: trajectory(log_likelihood, *args, num_steps=self._num_steps)
        )(
            jax.tree.map(lambda x: x[1:], state.replicas),
            normals[1:],
            uniforms,
            state.betas[1:],
            state.step_size,
            state.adaptation.metric,
        )
        replicas = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), at_prior, others)
        sums = state.accumulators
        num_nan = jnp.sum(is_nan) + jnp.isnan(at_prior.log_likelihood)
        sums = sums._replace(
            acceptance=sums.acceptance + accept_prob, nonfinite=sums.nonfinite + num_nan
        )
        return state._replace(replicas=replicas, accept_prob=accept_prob, accumulators=sums)

    def _adapt(self, state: TemperingState) -> TemperingState:
        """Adapt the step sizes; at the end of a round, the schedule and the metrics too."""
        adaptation = update_adaptation(
            state.adaptation,
            state.betas,
            state.replicas,
            state.accept_prob,
            state.accumulators.count - 1,
            target_accept_prob=self._target_accept_prob,
            num_steps=self._num_steps,
        )
        state = state._replace(adaptation=adaptation, step_size=jnp.exp(adaptation.log_step))
        ends = is_round_end(state.i, state.num_warmup)
        state = jax.lax.cond(ends, _end_round, lambda s: s, state)
        return jax.lax.cond(state.i == state.num_warmup, _end_warmup, lambda s: s, state)

    # ---- findings --------------------------------------------------------------------------------

    @property
    def default_fields(self) -> tuple[str, ...]:
        return ("z", "potential_energy")

    def get_diagnostics_str(self, state: TemperingState) -> str:
        """One line for the progress bar."""
        sums = state.accumulators
        count = max(int(sums.count), 1)
        rejection = sums.rejection / count
        acceptance = sums.acceptance.mean() / count
        return (
            f"barrier {rejection.sum():.1f}, swaps {1 - rejection.mean():.2f}, "
            f"acc. prob {acceptance:.2f}, round trips {sums.round_trips}"
        )

    @staticmethod
    def report(mcmc: MCMC) -> TemperingReport:
        """Swap rates, round trips and the evidence of the sampling phase of `mcmc`; print it."""
        return read_report(mcmc.last_state)

    @staticmethod
    def log_evidence(mcmc: MCMC) -> float:
        """Stepping-stone estimate of ``log p(data)``, averaged over chains.

        See `log_evidence_error`. ``numpyro.factor`` counts as likelihood. Issues the warnings of
        the report.
        """
        report = read_report(mcmc.last_state)
        for text in report.warnings:
            warnings.warn(f"The log evidence of ParallelTempering: {text}", stacklevel=2)
        return report.log_evidence

    @staticmethod
    def log_evidence_error(mcmc: MCMC) -> float:
        """Standard error of `log_evidence`."""
        return read_report(mcmc.last_state).log_evidence_error


def _with_gradient(posterior: Posterior) -> LogLikelihood:
    return jax.value_and_grad(posterior.log_likelihood)


def _communicate(state: TemperingState, uniforms: jax.Array) -> TemperingState:
    """Swap even pairs in even iterations and odd pairs in odd ones; count round trips."""
    replicas, betas = state.replicas, state.betas
    n = len(betas)
    log_likelihood = jnp.where(
        jnp.isnan(replicas.log_likelihood), -jnp.inf, replicas.log_likelihood
    )
    gaps = jnp.diff(betas)
    log_ratio = gaps * (log_likelihood[:-1] - log_likelihood[1:])
    accept_prob = jnp.where(jnp.isnan(log_ratio), 0, jnp.exp(jnp.minimum(log_ratio, 0)))
    sums = add_stepping_stones(state.accumulators, gaps * log_likelihood[:-1])
    sums = sums._replace(rejection=sums.rejection + 1 - accept_prob)

    proposed = (jnp.arange(n - 1) + state.i) % 2 == 0
    swapped = proposed & (uniforms < accept_prob)
    up = jnp.concatenate([swapped, jnp.zeros(1, bool)]).astype(int)
    order = jnp.arange(n) + up - jnp.roll(up, 1)
    replicas, last_end = jax.tree.map(lambda x: x[order], (replicas, state.last_end))
    sums = sums._replace(
        restarts=sums.restarts + (last_end[-1] == 1),
        round_trips=sums.round_trips + (last_end[0] == -1),
    )
    last_end = last_end.at[0].set(1).at[-1].set(-1)
    return state._replace(replicas=replicas, last_end=last_end, accumulators=sums)


def _end_round(state: TemperingState) -> TemperingState:
    """A new schedule and new metrics; the sums start again."""
    count = state.accumulators.count
    rejections = state.accumulators.rejection / count
    adaptation, betas = end_round(state.adaptation, state.betas, rejections, count)
    return state._replace(
        betas=betas,
        adaptation=adaptation,
        step_size=jnp.exp(adaptation.log_step),
        accumulators=empty_accumulators(len(betas), betas.dtype),
    )


def _end_warmup(state: TemperingState) -> TemperingState:
    """Fix the step sizes; the sums and round trips start again."""
    adaptation = final_adaptation(state.adaptation)
    return state._replace(
        adaptation=adaptation,
        step_size=jnp.exp(adaptation.log_step),
        last_end=jnp.zeros_like(state.last_end).at[0].set(1).at[-1].set(-1),
        accumulators=empty_accumulators(len(state.betas), state.betas.dtype),
    )


def _with_sites(posterior: Posterior, state: TemperingState) -> TemperingState:
    """The state with `z` and `potential_energy` of the replica at β = 1."""
    replica = jax.tree.map(lambda x: x[-1], state.replicas)
    return state._replace(
        z=split_sites(posterior.layout, replica.xi),
        potential_energy=-posterior.log_prior(replica.xi) - replica.log_likelihood,
    )
