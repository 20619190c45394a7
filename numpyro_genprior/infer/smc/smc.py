"""`SMC`: draws from the posterior and the evidence, by tempering draws from the prior."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from tqdm.auto import tqdm

from numpyro_genprior import validation
from numpyro_genprior.errors import message
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.infer.smc.result import SMCResult, make_result
from numpyro_genprior.infer.smc.state import ParticleState, Settings, Stage
from numpyro_genprior.infer.smc.step import advance, initial_particles

MAX_MOVES = {"hmc": 10, "rwm": 200}  # default of max_moves by kind of moves


class SMC:
    """Sequential Monte Carlo from the prior to the posterior, with the evidence.

    Exact draws from the prior pass through the tempered posteriors p(ξ) p(y | ξ)^β, with β from 0
    to 1. At each temperature, chosen so that the weights keep their effective sample size,
    particles are weighted, resampled, and moved by BlackJAX's HMC or random walk, scaled by the
    covariance of the particles. There is no warm-up to discard, and modes keep their weights as
    long as particles reach them.

    Needs BlackJAX: ``pip install 'numpyro-genprior[blackjax]'``.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` if it has priors without an
        exact density. All distributions of its latent sites must be proper; ``numpyro.factor``
        counts as likelihood.
    num_particles
        Number of particles, which is the number of draws in the end. The error of the evidence
        falls as its inverse square root.
    moves
        ``"hmc"``, or ``"rwm"`` (random walk) for models without gradients.
    target_ess
        Target effective sample size as a fraction of `num_particles`; larger values give more
        temperatures.
    correlation
        Target correlation between the particles before and after the moves of a stage; it sets
        the number of moves, stage by stage.
    max_moves
        Largest number of moves in a stage; None: 10 (HMC) or 200 (random walk).
    max_leapfrogs
        Largest number of leapfrog steps in one HMC move.
    max_stages
        Largest number of temperatures; the last one is then 1, whatever the weights.
    batch_size
        Number of particles for which the model is evaluated together, for models that need much
        memory; None: all.
    progress_bar
        Whether to show a bar over temperatures.

    Raises
    ------
    ImportError
        If BlackJAX is not installed.
    ValueError
        If a setting is out of range.

    Notes
    -----
    **Source.** P. Del Moral, A. Doucet & A. Jasra, "Sequential Monte Carlo samplers", JRSS B 68
    (2006); adaptive temperatures as in Jasra, Stephens, Doucet & Tsagaris (2011); the error as in
    A. Lee & N. Whiteley, "Variance estimation in the particle filter", Biometrika (2018), which
    needs multinomial resampling.

    **Fails when** a mode is so narrow that no draw from the prior comes near it: the run looks
    healthy, and the mode is missing from draws and evidence alike. Use more particles or
    `ParallelTempering`.

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
        if moves not in MAX_MOVES:
            raise ValueError(
                message(
                    "Unknown moves for SMC",
                    expected=" or ".join(map(repr, MAX_MOVES)),
                    got=repr(moves),
                    remedy="use 'hmc', or 'rwm' for a model without gradients",
                )
            )
        max_moves = MAX_MOVES[moves] if max_moves is None else max_moves
        validation.at_least("SMC", 2, num_particles=num_particles)
        validation.at_least(
            "SMC",
            1,
            max_moves=max_moves,
            max_leapfrogs=max_leapfrogs,
            max_stages=max_stages,
            batch_size=1 if batch_size is None else batch_size,
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
            If a latent site of the model cannot be sampled from its prior or has no coordinates,
            or if no draw from the prior has a finite log likelihood.

        Warns
        -----
        RuntimeWarning
            Once, if there are reasons to doubt the result, with all of ``result.warnings``.
        """
        posterior = Posterior(self.model, args, kwargs)
        start_key, stage_key = jax.random.split(key)
        particles = _initial_particles(start_key, posterior, self._settings)
        stages: list[Stage] = []
        temperature = 0.0
        with tqdm(desc="SMC", unit=" temperatures", disable=not self.progress_bar) as bar:
            while temperature < 1.0:
                is_last = jnp.asarray(len(stages) + 1 >= self.max_stages)
                stage_key, key = jax.random.split(stage_key)
                particles, stage = advance(key, posterior, particles, is_last, self._settings)
                stages.append(jax.device_get(stage))
                temperature = float(stages[-1].temperature)
                bar.set_postfix(
                    temperature=f"{temperature:.3g}",
                    acceptance=f"{float(stages[-1].acceptance):.2f}",
                    moves=int(stages[-1].num_moves),
                )
                bar.update()
        result = make_result(posterior, particles, stages, self._settings, self.max_stages)
        if result.warnings:
            warnings.warn("SMC: " + " ".join(result.warnings), RuntimeWarning, stacklevel=2)
        return result


def _initial_particles(key: jax.Array, posterior: Posterior, settings: Settings) -> ParticleState:
    """Draws from the prior; raises ValueError for improper priors and data of zero likelihood."""
    try:
        particles = initial_particles(key, posterior, settings)
    except NotImplementedError as error:
        others = list(posterior.layout.not_standard_normal)
        raise ValueError(
            message(
                "SMC starts from draws of the prior, and one of its distributions cannot be "
                "sampled",
                expected="proper distributions",
                got=f"one of the sites {others}",
                remedy="give it a proper prior, such as a Normal with a large scale",
            )
        ) from error
    if not bool(jnp.isfinite(particles.log_likelihood).any()):
        raise ValueError(
            message(
                "No draw from the prior has a finite log likelihood",
                expected="a finite log likelihood for some of them",
                got=f"{settings.num_particles} that are minus infinity or NaN",
                remedy="check the shapes and units of the data, widen the noise, or use more "
                "particles",
            )
        )
    return particles


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
