"""The task two_moons of sbibm (Lueckmann et al. 2021): two crescents, against its reference draws.

The likelihood is known: the radius of a point on a crescent is normal, and its angle uniform.
Beyond the straight edge of the crescent the likelihood is 0, and its gradient does not indicate
the edge: trajectories that end there are rejected.
"""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC

from numpyro_genprior.infer import SMC, ParallelTempering

STORED: Any = np.load(Path(__file__).parent / "data" / "two_moons.npz")
LOG_EVIDENCE = -math.log(2)  # the prior covers the crescent twice


class Crescent(dist.Distribution):
    """``loc + (0.25 + r cos a, r sin a)``, a uniform on (-π/2, π/2) and r ~ N(0.1, 0.01²)."""

    arg_constraints = {"loc": dist.constraints.real_vector}
    support = dist.constraints.real_vector

    def __init__(self, loc, *, validate_args=None):
        self.loc = loc
        super().__init__(jnp.shape(loc)[:-1], (2,), validate_args=validate_args)

    def log_prob(self, value):
        offset = value - self.loc - jnp.array([0.25, 0.0])
        radius = jnp.linalg.norm(offset, axis=-1)
        density = dist.Normal(0.1, 0.01).log_prob(radius) - jnp.log(math.pi * radius)
        return jnp.where(offset[..., 0] > 0, density, -jnp.inf)


def model(x):
    theta = numpyro.sample("theta", dist.Uniform(-1, 1).expand([2]).to_event(1))
    loc = jnp.stack([-jnp.abs(theta[0] + theta[1]), theta[1] - theta[0]]) / math.sqrt(2)
    numpyro.sample("x", Crescent(loc), obs=x)


def features(theta):
    """Which moon, the coordinates of the crescent, and their squares."""
    x = STORED["observation"]
    u = x[0] + np.abs(theta.sum(-1)) / math.sqrt(2) - 0.25
    v = x[1] - (theta[..., 1] - theta[..., 0]) / math.sqrt(2)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    return np.stack([theta.sum(-1) > 0, radius, angle, radius**2, angle**2, u, u**2], -1)


def tempering():
    mcmc = MCMC(
        ParallelTempering(model, num_replicas=10),
        num_warmup=400,
        num_samples=2000,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), jnp.asarray(STORED["observation"], jnp.float32))
    draws = features(np.asarray(mcmc.get_samples(group_by_chain=True)["theta"], float))
    report = ParallelTempering.report(mcmc)
    assert not report.warnings
    error = draws.std((0, 1)) / np.sqrt(effective_sample_size(draws))
    return draws.mean((0, 1)), error, report.log_evidence, report.log_evidence_error


def smc():
    runs, x = [], jnp.asarray(STORED["observation"], jnp.float32)
    sampler = SMC(model, 1024, progress_bar=False)
    for seed in range(8):
        result = sampler.run(jax.random.key(seed), x)
        assert not result.warnings
        runs.append((result, features(result.get_samples()["theta"].astype(float)).mean(0)))
    averages = np.stack([average for _, average in runs])
    error = averages.std(0, ddof=1) / math.sqrt(len(runs))
    # of the mean log evidence, whose bias is half the variance of one
    variance = np.mean([result.log_evidence_error**2 for result, _ in runs])
    evidence = np.mean([result.log_evidence for result, _ in runs]) + variance / 2
    return averages.mean(0), error, evidence, math.sqrt(variance / len(runs))


@pytest.mark.slow
@pytest.mark.parametrize("method", [tempering, smc])
def test_reference_draws(method):
    """Weights of the moons, and moments within a moon, are within five Monte Carlo errors."""
    mean, error, evidence, evidence_error = method()
    assert abs(evidence - LOG_EVIDENCE) < 5 * evidence_error
    reference = features(STORED["reference"].astype(float))
    of_reference = reference.std(0) / math.sqrt(len(reference))
    difference = np.abs(mean - reference.mean(0))
    np.testing.assert_array_less(difference, 5 * np.hypot(error, of_reference))
    assert abs(mean[0] - 0.5) < 5 * error[0]  # by symmetry
    assert error[0] < 0.05
