"""Which prior do the data prefer? Evidences of a VAE, a GAN, a flow and a Gaussian.

    python examples/evidence.py            # a quarter of an hour on two cores
    python examples/evidence.py --digit 7

The data are a held-out digit with ten rows hidden and noise 0.2. For each shipped prior, prints the
log evidence log p(y) by `SMC` and by `ParallelTempering`, each with its standard error; by the
Laplace approximation at the best mode, which misses all other modes; and for the Gaussian prior the
exact value. Do not trust a number with a warning about other modes, or too few particles or rounds.
"""

# %%
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC

import numpyro_genprior as ngp
from numpyro_genprior.infer import SMC, AutoFisherLaplace, ParallelTempering, find_map

PRIORS = ("vae", "gan", "flow", "gaussian")
DIGITS = Path(__file__).parent / "data" / "digits.npz"
NOISE, FIRST, HIDDEN = 0.2, 9, 10


# %% One model for all priors: `noise="omit"` uses the VAE's image without decoder noise, and
# `explicit=True` gives the Gaussian prior a latent site, too.
@ngp.latent(noise="omit", explicit=True)
def model(prior: ngp.Prior, rows: jax.Array, y: jax.Array | None = None) -> None:
    x: Any = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x[rows], NOISE).to_event(2), obs=y)


def observe(digit: int, seed: int) -> tuple[jax.Array, jax.Array]:
    """Indices of the visible rows of a held-out digit, and the data there."""
    stored = np.load(DIGITS)
    truth: Any = stored["images"][list(stored["labels"]).index(digit)] / 255
    rows = np.delete(np.arange(28), np.arange(FIRST, FIRST + HIDDEN))
    noise = np.random.default_rng(seed).normal(size=(len(rows), 28))
    return jnp.asarray(rows), jnp.asarray(truth[rows] + NOISE * noise, jnp.float32)


def exact(prior: ngp.GaussianPrior, rows: jax.Array, y: jax.Array) -> float:
    """The log evidence of the Gaussian prior: the density of the visible pixels with noise."""
    marginal = dist.LowRankMultivariateNormal(
        prior.loc[rows].ravel(),
        prior.factor[rows].reshape(y.size, -1),
        prior.diagonal[rows].ravel() + NOISE**2,
    )
    return float(marginal.log_prob(y.ravel()))


# %%
def by_laplace(key: jax.Array, *arguments: Any) -> float:
    """The log evidence by Laplace's approximation at the best mode."""
    estimate = find_map(model, key, *arguments, progress_bar=False)
    return float(AutoFisherLaplace.from_map(estimate).log_evidence())


def by_smc(key: jax.Array, particles: int, *arguments: Any) -> tuple[float, float]:
    """The log evidence by `SMC`, and its standard error."""
    result = SMC(model, particles, progress_bar=False).run(key, *arguments)
    return result.log_evidence, result.log_evidence_error


def by_tempering(
    key: jax.Array, replicas: int, rounds: tuple[int, int], *arguments: Any
) -> tuple[float, float]:
    """The log evidence by `ParallelTempering`, and its standard error; `rounds`: warmup, draws."""
    mcmc = MCMC(
        ParallelTempering(model, replicas),
        num_warmup=rounds[0],
        num_samples=rounds[1],
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
        jit_model_args=True,
    )
    mcmc.run(key, *arguments)
    return ParallelTempering.log_evidence(mcmc), ParallelTempering.log_evidence_error(mcmc)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--digit", type=int, choices=range(10), default=3)
    parser.add_argument("--priors", nargs="*", choices=PRIORS, default=PRIORS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one prior and a few draws")
    options = parser.parse_args(argv)
    smoke = options.smoke

    rows, y = observe(options.digit, options.seed)
    key = jax.random.key(options.seed)
    print("prior       Laplace           SMC         tempering     exact")
    for name in ("gan",) if smoke else options.priors:
        prior: Any = ngp.pretrained.load(f"mnist_{name}")
        arguments = (prior, rows, y)
        laplace = by_laplace(key, *arguments)
        smc = by_smc(key, 32 if smoke else 2048, *arguments)
        rounds = (10, 20) if smoke else (1000, 2000)
        tempering = by_tempering(key, 4 if smoke else 16, rounds, *arguments)
        known = f"{exact(prior, rows, y):9.2f}" if name == "gaussian" else ""
        print(
            f"{name:<9}{laplace:10.2f} {smc[0]:9.2f} ± {smc[1]:.2f} "
            f"{tempering[0]:9.2f} ± {tempering[1]:.2f} {known}",
            flush=True,
        )


if __name__ == "__main__":
    main()
