"""`ParallelTempering`: non-reversible parallel tempering from the prior, as a NumPyro kernel."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer import MCMC

from numpyro_genprior.errors import message
from numpyro_genprior.infer.base_kernel import FlatKernel, split_sites
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.infer.tempering.accumulators import Tally, add_stones, empty
from numpyro_genprior.infer.tempering.adaptation import (
    Adaptation,
    first_adaptation,
    freeze,
    is_round_end,
    learn,
    next_round,
)
from numpyro_genprior.infer.tempering.hmc import ReplicaState, trajectory, visit
from numpyro_genprior.infer.tempering.report import TemperingReport, read_report
from numpyro_genprior.infer.tempering.schedule import first_schedule


class TemperingState(NamedTuple):
    """State of an ensemble of n replicas with d coordinates.

    Attributes
    ----------
    i
        Number of rounds so far.
    z
        Coordinates of the cold replica, which samples the posterior, by latent site.
    potential_energy
        Minus the log joint density there.
    betas
        Inverse temperatures, from 0 (the prior) to 1, of shape ``(n,)``.
    step_size, accept_prob
        Step sizes and last acceptance probabilities of the local moves, of shape ``(n - 1,)``:
        the hot end has none.
    replicas
        Coordinates ``(n, d)``, log likelihoods ``(n,)`` and their gradients ``(n, d)``.
    last_end
        For each replica, which end it has seen last: 1 the prior, -1 the posterior, 0 neither.
    adaptation
        What warm-up learns.
    tally
        What the report is made of.
    num_warmup
        Number of rounds that adapt.
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
    tally: Tally
    num_warmup: jax.Array
    rng_key: jax.Array


class ParallelTempering(FlatKernel):
    """Non-reversible parallel tempering between the prior and the posterior.

    Replicas sample ``prior · likelihood^β`` for β from 0 to 1. In each round, all of them move
    locally at once, by Hamiltonian trajectories of a fixed number of steps; the hot one, at
    β = 0, is drawn from the prior anew, exactly; then neighbours swap, even pairs in one round and
    odd pairs in the next. So each journey of a replica from the prior to the posterior is a fresh
    and independent proposal of a mode: chains that sit in separate modes are the normal case under
    a learned prior, and this is the sampler for it. The draws of `numpyro.infer.MCMC` are those at
    β = 1; each of its chains is one whole ensemble, so that r-hat compares independent ensembles.

    Warm-up adapts in rounds of doubling length: the β (to equal rejection of all swaps), the step
    size at each (to `target_accept_prob`) and the metric at each (to the mean square of the score,
    which is curvature within modes and does not know of distances between them). A round costs
    ``num_steps · (num_replicas - 1) + 1`` gradients in batches, which is much less than it seems.
    Under a prior of images, with a barrier of 8, an ensemble makes a round trip in 60 to 100
    rounds: 1000 of warm-up and 2000 to 4000 of sampling in four ensembles are a good start.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` when it has priors without an
        exact density. All of its latent sites need standard normal coordinates, see
        `numpyro_genprior.infer.coordinates`.
    num_replicas
        Number of inverse temperatures, the prior and the posterior among them. About twice the
        communication barrier is best, which the report tells.
    num_steps
        Number of steps of each trajectory.
    target_accept_prob
        Mean acceptance probability that the step sizes are adapted to.
    dense_limit
        Largest number of coordinates with a dense metric; above it, it is diagonal.

    Raises
    ------
    ValueError
        When there are fewer than two replicas; at `init`, when a site has no standard normal
        coordinates.

    Notes
    -----
    Rounds between the prior and the posterior, ``1 / (2 + 2 Σ r / (1 - r))`` of a round for
    rejections r at best, bound how well modes mix: the report counts them, and warns. Energies
    that are no number are rejected, and counted.

    **Fails when** the likelihood is not differentiable (see `EllipticalSlice`), and with too few
    replicas for the barrier: then nothing reaches the posterior from the prior, and it is local
    HMC at the price of many.

    **Source.** S. Syed, A. Bouchard-Côté, G. Deligiannidis & A. Doucet, "Non-reversible parallel
    tempering: a scalable highly parallel MCMC scheme", JRSS B 84 (2022).

    Examples
    --------
    Two modes, of which a local sampler sees one:

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
    >>> report = ParallelTempering.report(mcmc)  # print it
    >>> bool(report.round_trips.min() > 50), report.warnings
    (True, [])
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
        for name, value, least in (("num_replicas", num_replicas, 2), ("num_steps", num_steps, 1)):
            if value < least:
                raise ValueError(
                    message(
                        f"{name} is too small",
                        expected=f"at least {least}",
                        got=value,
                        remedy=f"leave {name} at its default, or give more",
                    )
                )
        self._num_replicas = num_replicas
        self._num_steps = num_steps
        self._target = target_accept_prob
        self._dense_limit = dense_limit

    # ---- the pure core ---------------------------------------------------------------------------

    def init_state(
        self, posterior: Posterior, key: jax.Array, num_warmup: int, xi: jax.Array | None = None
    ) -> TemperingState:
        """All replicas at draws of the prior; the cold one at `xi`, where it is given."""
        n = self._num_replicas
        key, draw_key = jax.random.split(key)
        start = jax.random.normal(draw_key, (n, posterior.size))
        if xi is not None:
            start = start.at[-1].set(xi)
        replicas = jax.vmap(lambda xi: visit(_target(posterior), xi))(start)
        betas = first_schedule(replicas.log_likelihood[:-1], n)
        dense = posterior.size <= self._dense_limit
        adaptation = first_adaptation(betas, replicas, num_steps=self._num_steps, dense=dense)
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
            tally=empty(n, start.dtype),
            num_warmup=jnp.asarray(num_warmup),
            rng_key=key,
        )
        return _show_cold(posterior, state)

    def step(self, posterior: Posterior, state: TemperingState) -> TemperingState:
        """One round: local moves, a fresh draw of the prior, swaps; in warm-up, adaptation."""
        key, normal_key, uniform_key = jax.random.split(state.rng_key, 3)
        xi = state.replicas.xi
        normal = jax.random.normal(normal_key, xi.shape, xi.dtype)
        chance = jax.random.uniform(uniform_key, (len(xi), 3), xi.dtype)
        state = self._move(posterior, state._replace(rng_key=key), normal, chance[1:, :2])
        state = _swap(state, chance[1:, 2])
        state = state._replace(i=state.i + 1)
        state = jax.lax.cond(state.i <= state.num_warmup, self._adapt, lambda s: s, state)
        return _show_cold(posterior, state)

    def _move(
        self, posterior: Posterior, state: TemperingState, normal: jax.Array, chance: jax.Array
    ) -> TemperingState:
        target = _target(posterior)
        hot = visit(target, normal[0])  # a draw of the prior
        warm, accept_prob, bad = jax.vmap(
            lambda *args: trajectory(target, *args, num_steps=self._num_steps)
        )(
            jax.tree.map(lambda x: x[1:], state.replicas),
            normal[1:],
            chance,
            state.betas[1:],
            state.step_size,
            state.adaptation.metric,
        )
        replicas = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), hot, warm)
        tally = state.tally._replace(
            acceptance=state.tally.acceptance + accept_prob,
            nonfinite=state.tally.nonfinite + jnp.sum(bad) + jnp.isnan(hot.log_likelihood),
        )
        return state._replace(
            replicas=replicas,
            accept_prob=accept_prob,
            tally=tally,
        )

    def _adapt(self, state: TemperingState) -> TemperingState:
        adaptation = learn(
            state.adaptation,
            state.betas,
            state.replicas,
            state.accept_prob,
            state.tally.count - 1,
            target=self._target,
            num_steps=self._num_steps,
        )
        state = state._replace(
            adaptation=adaptation,
            step_size=jnp.exp(adaptation.log_step),
        )
        state = jax.lax.cond(
            is_round_end(state.i, state.num_warmup), _next_round, lambda s: s, state
        )
        return jax.lax.cond(state.i == state.num_warmup, _start_sampling, lambda s: s, state)

    # ---- findings --------------------------------------------------------------------------------

    def get_diagnostics_str(self, state: TemperingState) -> str:
        count = max(int(state.tally.count), 1)
        rejection = state.tally.rejection / count
        acceptance = state.tally.acceptance.mean() / count
        return (
            f"barrier {rejection.sum():.1f}, swaps {1 - rejection.mean():.2f}, "
            f"acc. prob {acceptance:.2f}, round trips {state.tally.round_trips}"
        )

    @staticmethod
    def report(mcmc: MCMC) -> TemperingReport:
        """What the sampling phase of `mcmc` says of itself; print it."""
        return read_report(mcmc.last_state)

    @staticmethod
    def log_evidence(mcmc: MCMC) -> float:
        """Stepping-stone estimate of ``log p(data)``, a mean over chains.

        See `log_evidence_error`. ``numpyro.factor`` counts as likelihood. Warns of what stands
        against it in the report.
        """
        report = read_report(mcmc.last_state)
        for text in report.warnings:
            warnings.warn(f"The log evidence of ParallelTempering: {text}", stacklevel=2)
        return report.log_evidence

    @staticmethod
    def log_evidence_error(mcmc: MCMC) -> float:
        """Standard error of `log_evidence`."""
        return read_report(mcmc.last_state).log_evidence_error


def _target(posterior: Posterior) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    return jax.value_and_grad(posterior.log_likelihood)


def _swap(state: TemperingState, chance: jax.Array) -> TemperingState:
    """Swap even pairs in even rounds and odd pairs in odd ones; count journeys."""
    spots, betas = state.replicas, state.betas
    n = len(betas)
    log_likelihood = jnp.where(jnp.isnan(spots.log_likelihood), -jnp.inf, spots.log_likelihood)
    gaps = jnp.diff(betas)
    log_ratio = gaps * (log_likelihood[:-1] - log_likelihood[1:])
    accept_prob = jnp.where(jnp.isnan(log_ratio), 0, jnp.exp(jnp.minimum(log_ratio, 0)))
    tally = add_stones(state.tally, gaps * log_likelihood[:-1])
    tally = tally._replace(rejection=tally.rejection + 1 - accept_prob)

    turn = (jnp.arange(n - 1) + state.i) % 2 == 0
    swapped = turn & (chance < accept_prob)
    up = jnp.concatenate([swapped, jnp.zeros(1, bool)]).astype(int)
    order = jnp.arange(n) + up - jnp.roll(up, 1)
    spots, last_end = jax.tree.map(lambda x: x[order], (spots, state.last_end))
    tally = tally._replace(
        restarts=tally.restarts + (last_end[-1] == 1),
        round_trips=tally.round_trips + (last_end[0] == -1),
    )
    last_end = last_end.at[0].set(1).at[-1].set(-1)
    return state._replace(replicas=spots, last_end=last_end, tally=tally)


def _next_round(state: TemperingState) -> TemperingState:
    count = state.tally.count
    rejections = state.tally.rejection / count
    adaptation, betas = next_round(state.adaptation, state.betas, rejections, count)
    return state._replace(
        betas=betas,
        adaptation=adaptation,
        step_size=jnp.exp(adaptation.log_step),
        tally=empty(len(betas), betas.dtype),
    )


def _start_sampling(state: TemperingState) -> TemperingState:
    adaptation = freeze(state.adaptation)
    return state._replace(
        adaptation=adaptation,
        step_size=jnp.exp(adaptation.log_step),
        last_end=jnp.zeros_like(state.last_end).at[0].set(1).at[-1].set(-1),
        tally=empty(len(state.betas), state.betas.dtype),
    )


def _show_cold(posterior: Posterior, state: TemperingState) -> TemperingState:
    spot = jax.tree.map(lambda x: x[-1], state.replicas)
    return state._replace(
        z=split_sites(posterior.layout, spot.xi),
        potential_energy=-posterior.log_prior(spot.xi) - spot.log_likelihood,
    )
