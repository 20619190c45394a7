"""`SMC`: draws from the posterior and the evidence, by tempering a cloud of prior draws."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from numpyro_genprior.errors import message
from numpyro_genprior.infer.host_batching import host_values
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.infer.smc.stage import ParticleState, Settings, Stage, advance, start

MOVES = {"hmc": 10, "rwm": 200}  # kind: most moves of a stage
FEW_ANCESTORS = 10
LOW_ACCEPTANCE = 0.1
LARGE_ERROR = 0.5  # nats


@dataclass(frozen=True)
class SMCResult:
    """What a run of `SMC` found.

    Attributes
    ----------
    log_evidence
        Estimate of ``log p(y)``, natural logarithm; its exponential is unbiased when the
        temperatures are fixed, and consistent as they are.
    log_evidence_error
        Standard error of it over repeated runs, from the ancestry of the particles (Lee and
        Whiteley 2018). Itself an estimate, the rougher the fewer `num_ancestors` are.
    temperatures
        Exponents of the likelihood, from 0 to 1, of shape ``(stages + 1,)``.
    effective_sample_size, acceptance, num_moves, num_leapfrogs, correlation
        For each stage, of shape ``(stages,)``: effective size of the weights; mean acceptance of
        the last move; moves of each particle; their leapfrog steps together (HMC); and how far
        particles still tell where they stood before the moves, 0 to 1. A high correlation is no
        fault where modes are apart: particles then keep to their modes, as resampling has
        shared them out.
    num_ancestors
        How many of the draws from the prior have descendants in the end.
    messages
        What makes the result doubtful; empty when nothing does.
    xi
        Coordinates of the draws, shape ``(num_particles, size)``.
    posterior
        The model and its arguments.
    """

    log_evidence: float
    log_evidence_error: float
    temperatures: np.ndarray
    effective_sample_size: np.ndarray
    acceptance: np.ndarray
    num_moves: np.ndarray
    num_leapfrogs: np.ndarray
    correlation: np.ndarray
    num_ancestors: int
    messages: tuple[str, ...]
    xi: jax.Array = field(repr=False)
    posterior: Posterior = field(repr=False)

    def get_samples(self) -> dict[str, np.ndarray]:
        """Draws from the posterior, of equal weight, by site.

        Returns
        -------
        dict
            All sites of the model, deterministic ones (events) included, as arrays on the host of
            shape ``(num_particles, *site_shape)``. Events are decoded a batch of draws at a time.
        """
        return host_values(self.posterior, self.xi)


class SMC:
    """Sequential Monte Carlo from the prior to the posterior, with the evidence.

    Exact draws from the prior go through the tempered laws p(ξ) p(y | ξ)^β, β from 0 to 1. At
    each temperature, chosen so that the weights keep their effective sample size, particles are
    weighted and resampled, and then moved by BlackJAX's HMC or random walk, scaled by the
    particles' covariance. There is no warm-up to throw away, and modes keep their shares as long
    as particles reach them.

    Needs BlackJAX: ``pip install 'numpyro-genprior[blackjax]'``.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` when it has priors without an
        exact density. All of its latent laws must be proper; ``numpyro.factor`` counts as
        likelihood.
    num_particles
        Particles, and draws in the end. The error of the evidence falls as the square root.
    moves
        ``"hmc"``, or ``"rwm"`` (random walk) for models without gradients.
    target_ess
        Fraction of the particles that the weights of a stage are worth: larger takes more
        temperatures.
    correlation
        Wanted correlation of the particles before and after the moves of a stage: the number of
        moves follows from it, stage by stage.
    max_moves
        Moves of a stage at most; None takes 10 (HMC) or 200 (random walk).
    max_leapfrogs
        Leapfrog steps of one HMC move at most.
    max_stages
        Temperatures at most; the last one is then 1, whatever the weights.
    batch_size
        Particles whose model is evaluated at a time; None takes all. For models that are large.
    progress_bar
        Whether to show a bar over temperatures.

    Raises
    ------
    ImportError
        When BlackJAX is not installed.
    ValueError
        When a setting is out of range.

    Notes
    -----
    Source: Del Moral, Doucet and Jasra (2006), *Sequential Monte Carlo samplers*; temperatures as
    in Jasra et al. (2011); the error as in Lee and Whiteley (2018), *Variance estimation in the
    particle filter*, for which resampling is multinomial.

    **Fails when** a mode is so narrow that no draw from the prior comes near it: the run looks
    healthy, and the mode is missing from draws and evidence alike. More particles, or
    `ParallelTempering`, find it.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro_genprior.infer import SMC
    >>> def model(y):
    ...     z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    ...     numpyro.sample("y", dist.Normal(z, 0.5), obs=y)
    >>> smc = SMC(model, num_particles=500, progress_bar=False)
    >>> result = smc.run(jax.random.key(0), jnp.array(1.0))
    >>> exact = dist.Normal(0.0, 1.25**0.5).log_prob(1.0)
    >>> bool(abs(result.log_evidence - exact) < 5 * result.log_evidence_error)
    True
    """

    def __init__(
        self,
        model: Callable[..., Any],
        num_particles: int = 1024,
        *,
        moves: str = "hmc",
        target_ess: float = 0.5,
        correlation: float = 0.1,
        max_moves: int | None = None,
        max_leapfrogs: int = 32,
        max_stages: int = 200,
        batch_size: int | None = None,
        progress_bar: bool = True,
    ) -> None:
        if moves not in MOVES:
            raise ValueError(
                message(
                    "SMC does not know these moves",
                    expected=" or ".join(map(repr, MOVES)),
                    got=repr(moves),
                    remedy="take 'hmc', or 'rwm' for a model without gradients",
                )
            )
        max_moves = MOVES[moves] if max_moves is None else max_moves
        least = {
            "num_particles": (num_particles, 2),
            "max_moves": (max_moves, 1),
            "max_leapfrogs": (max_leapfrogs, 1),
            "max_stages": (max_stages, 1),
            "batch_size": (1 if batch_size is None else batch_size, 1),
        }
        for name, (value, bound) in least.items():
            if value < bound:
                raise ValueError(
                    message(
                        f"SMC: {name} is too small",
                        expected=f"{bound} or more",
                        got=value,
                        remedy="leave it out for the default",
                    )
                )
        for name, value in (("target_ess", target_ess), ("correlation", correlation)):
            if not 0 < value < 1:
                raise ValueError(
                    message(
                        f"SMC: {name} is out of range",
                        expected="a number between 0 and 1",
                        got=value,
                        remedy="leave it out for the default",
                    )
                )
        _require_blackjax()
        self.model, self.progress_bar, self.max_stages = model, progress_bar, max_stages
        self._settings = Settings(
            num_particles, moves, target_ess, max_moves, correlation, max_leapfrogs, batch_size
        )

    def run(self, key: jax.Array, *args: Any, **kwargs: Any) -> SMCResult:
        """Draw from the posterior of the model given its arguments.

        Parameters
        ----------
        key
            PRNG key of either kind.
        args, kwargs
            The model's arguments.

        Returns
        -------
        SMCResult
            With ``.get_samples()``, ``.log_evidence`` and ``.log_evidence_error``.

        Raises
        ------
        ValueError
            When the model has a latent site that cannot be sampled from its prior or has no
            coordinates, or no draw from the prior can have made the data.

        Warns
        -----
        RuntimeWarning
            Once, when the result is doubtful: ``result.messages`` says the same.
        """
        posterior = Posterior(self.model, args, kwargs)
        start_key, stage_key = jax.random.split(key)
        cloud = _start(start_key, posterior, self._settings)
        stages: list[Stage] = []
        temperature = 0.0
        with tqdm(desc="SMC", unit=" temperatures", disable=not self.progress_bar) as bar:
            while temperature < 1.0:
                last = jnp.asarray(len(stages) + 1 >= self.max_stages)
                stage_key, key = jax.random.split(stage_key)
                cloud, stage = advance(key, posterior, cloud, last, self._settings)
                stages.append(jax.device_get(stage))
                temperature = float(stages[-1].temperature)
                bar.set_postfix(
                    temperature=f"{temperature:.3g}",
                    acceptance=f"{float(stages[-1].acceptance):.2f}",
                    moves=int(stages[-1].num_moves),
                )
                bar.update()
        result = _result(posterior, cloud, stages, self._settings, self.max_stages)
        if result.messages:
            warnings.warn("SMC: " + " ".join(result.messages), RuntimeWarning, stacklevel=2)
        return result


def _start(key: jax.Array, posterior: Posterior, settings: Settings) -> ParticleState:
    try:
        cloud = start(key, posterior, settings)
    except NotImplementedError as error:
        others = list(posterior.layout.not_standard_normal)
        raise ValueError(
            message(
                "SMC starts from draws of the prior, and one law cannot be sampled",
                expected="proper laws",
                got=f"one of the sites {others}",
                remedy="give it a proper prior, as a Normal of a large scale",
            )
        ) from error
    if not bool(jnp.isfinite(cloud.log_likelihood).any()):
        raise ValueError(
            message(
                "No draw from the prior can have made the data",
                expected="a finite log likelihood of some of them",
                got=f"{settings.num_particles} of minus infinity or not a number",
                remedy="check the shapes and units of the data, widen the noise, or take more "
                "particles",
            )
        )
    return cloud


def _result(
    posterior: Posterior,
    cloud: ParticleState,
    stages: list[Stage],
    settings: Settings,
    max_stages: int,
) -> SMCResult:
    columns = {name: np.array([getattr(s, name) for s in stages]) for name in Stage._fields}
    number = settings.num_particles
    error = evidence_error(number, len(stages), float(columns["collision"][-1]))
    ancestors = len(np.unique(np.asarray(cloud.eves)))
    messages = []
    if columns["effective_sample_size"][-1] < 0.5 * settings.target_ess * number:
        messages.append(
            f"After {max_stages} temperatures the posterior was not reached, and the last step was "
            "taken at once: raise max_stages, or check that the noise scale is meant to be so "
            "small."
        )
    if (columns["acceptance"] < LOW_ACCEPTANCE).any():
        messages.append(
            f"Moves were hardly accepted (mean probability {columns['acceptance'].min():.2g}): "
            "raise max_moves, and check the model for kinks and for priors far wider than the data."
        )
    if ancestors < FEW_ANCESTORS:
        messages.append(
            f"All particles descend from {ancestors} of {number} draws from the prior, so that "
            "modes may be lost and log_evidence_error is rough: raise num_particles."
        )
    if error > LARGE_ERROR:
        messages.append(
            f"The log evidence is uncertain by {error:.2g}: raise num_particles or target_ess."
        )
    return SMCResult(
        log_evidence=float(np.sum(columns["log_increment"].astype(np.float64))),
        log_evidence_error=error,
        temperatures=np.concatenate([[0.0], columns["temperature"]]),
        effective_sample_size=columns["effective_sample_size"],
        acceptance=columns["acceptance"],
        num_moves=columns["num_moves"],
        num_leapfrogs=columns["num_leapfrogs"],
        correlation=columns["correlation"],
        num_ancestors=ancestors,
        messages=tuple(messages),
        xi=cloud.xi,
        posterior=posterior,
    )


def evidence_error(num_particles: int, num_stages: int, collision: float) -> float:
    """Standard error of the log evidence by the ancestry of the particles.

    With `collision` C the probability that two weighted particles of the last stage have one
    ancestor in the prior, ``V = 1 - (N / (N - 1))^T (1 - C)`` estimates the relative variance of
    the evidence without bias (Lee and Whiteley 2018, with multinomial resampling); the error of
    its logarithm is ``√log(1 + V)``.
    """
    growth = num_stages * math.log(num_particles / (num_particles - 1))
    variance = -math.expm1(growth + math.log1p(-collision)) if collision < 1 else 1.0
    return math.sqrt(math.log1p(max(variance, 0.0)))


def _require_blackjax() -> None:
    try:
        import blackjax  # noqa: F401
    except ImportError as error:
        raise ImportError(
            message(
                "SMC needs the package blackjax",
                remedy="install it: pip install 'numpyro-genprior[blackjax]'",
            )
        ) from error
