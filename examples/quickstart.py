"""A handwritten digit, blurred, half hidden and noisy, and its posterior under a trained prior.

    python examples/quickstart.py                      # half a minute on two cores
    python examples/quickstart.py --prior gaussian     # changes the prior and nothing else
    python examples/quickstart.py --prior gan          # or flow, which takes a minute and a half
    python examples/quickstart.py --digit 4 --out results

Prints the ArviZ summary and, in words, whether the chains agree. Writes a figure (truth, data,
posterior mean, posterior standard deviation, six draws) and the trace as netCDF.

The ten digits, one of each class, are held-out rows of MNIST that no prior saw in training.
"""

# %%
from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from numpyro.infer import MCMC, NUTS

import numpyro_genprior as ngp

PRIORS = ("vae", "gan", "flow", "gaussian")
DIGITS = Path(__file__).parent / "data" / "digits.npz"
SENSOR = 0.1  # standard deviation of the sensor's noise; pixels range from 0 to 1
# No prior has every digit in its range. On held-out digits the VAE's best image differs from the
# truth by 0.071 per pixel (its decoder noise is 0.084), and by 0.03 after the blur. The model
# counts this as part of the error.
MISFIT = 0.03

# %% The instrument: a Gaussian blur with a standard deviation of one pixel; only the upper half of
# the blurred image is observed.
distance = np.subtract.outer(np.arange(28), np.arange(28))
weights = np.exp(-0.5 * distance**2)
blur = jnp.asarray(weights / weights.sum(axis=1, keepdims=True), jnp.float32)


def instrument(image: ArrayLike) -> jax.Array:
    """The upper 14 rows of the blurred image."""
    return blur[:14] @ jnp.asarray(image) @ blur.T


# %% The model is ordinary NumPyro and works with any prior over 28×28 images. With `noise="omit"`,
# x is the decoder's mean, because MISFIT accounts for the decoder noise; `explicit=True` gives
# priors with an exact density a latent site, too.
@ngp.latent(noise="omit", explicit=True)
def model(prior: ngp.Prior, y: ArrayLike | None = None) -> None:
    x: Any = numpyro.sample("x", prior)
    error = math.hypot(SENSOR, MISFIT)
    numpyro.sample("y", dist.Normal(instrument(x), error).to_event(2), obs=y)


def observe(digit: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The held-out digit of a class, and data simulated from it."""
    stored = np.load(DIGITS)
    truth = stored["images"][list(stored["labels"]).index(digit)].astype(np.float32) / 255
    noise = np.random.default_rng(seed).normal(size=(14, 28))
    return truth, (np.asarray(instrument(truth)) + SENSOR * noise).astype(np.float32)


def sample(prior: ngp.Prior, y: np.ndarray, seed: int, num_warmup: int, num_samples: int) -> Any:
    """Four chains of NUTS, as an ArviZ object.

    A network has few latents, and the posterior correlates them: a dense mass matrix shortens the
    trajectories. A Gaussian prior has hundreds of latents, too many for a dense matrix. Limiting a
    trajectory to 2⁷ steps bounds the time where the posterior is strongly curved, as a flow's is.
    """
    dense = math.prod(prior.latent.event_shape) <= 50
    kernel = NUTS(model, dense_mass=dense, max_tree_depth=7)
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=4,
        chain_method="vectorized",
        jit_model_args=True,
    )
    statistics = ("potential_energy", "energy", "num_steps", "accept_prob")
    mcmc.run(jax.random.key(seed), prior, y, extra_fields=statistics)
    return ngp.to_arviz(mcmc, event_dims={"x": ("row", "col"), "y": ("seen_row", "col")})


# %% Do the chains agree? Under a generative prior each chain may find a different answer.
def latent_rhat(trace: Any) -> np.ndarray:
    """r_hat of each latent."""
    with np.errstate(divide="ignore", invalid="ignore"):  # it is NaN if a chain never moved
        r_hat: Any = az.rhat(trace.posterior["x_latent"].to_dataset(name="x_latent"))
    return np.asarray(r_hat["x_latent"])


def worst_latents(trace: Any, number: int = 20) -> Any:
    """The latents with the largest r_hat, as a dataset, largest last."""
    latents = trace.posterior["x_latent"].to_dataset(name="x_latent")
    r_hat = latent_rhat(trace)
    return latents.isel(x_latent_dim=np.argsort(np.nan_to_num(r_hat, nan=np.inf))[-number:])


def modes(latents: np.ndarray, threshold: float = 1.0) -> list[list[int]]:
    """Group the chains by the mode that they are in.

    Two chains are in the same mode if the means of each latent differ by less than `threshold` of
    its standard deviations within a chain. Chains connected by such pairs form a group.
    """
    mean, sd = latents.mean(axis=1), np.maximum(latents.std(axis=1), 1e-12)
    distance = np.abs(mean[:, None] - mean) / np.sqrt((sd[:, None] ** 2 + sd**2) / 2)
    near = distance.max(axis=-1) < threshold
    groups: list[list[int]] = []
    for chain in range(len(mean)):
        joined = [group for group in groups if near[chain, group].any()]
        groups = [group for group in groups if group not in joined]
        groups.append(sorted([chain, *(c for group in joined for c in group)]))
    return sorted(groups)


def verdict(trace: Any) -> str:
    """Whether the chains agree, in words."""
    r_hat = float(latent_rhat(trace).max())
    groups = modes(np.asarray(trace.posterior["x_latent"]))
    log_density = np.asarray(trace.sample_stats["lp"]).mean(axis=1)
    diverging = int(np.asarray(trace.sample_stats["diverging"]).sum())
    words = f" {diverging} draws diverged." if diverging else ""
    if len(groups) > 1:
        where = "; ".join(
            f"{'chain' if len(group) == 1 else 'chains'} {', '.join(map(str, group))} "
            f"(mean log density {log_density[group].mean():.1f})"
            for group in groups
        )
        return (
            f"THE CHAINS DISAGREE: r_hat is {r_hat:.2f}, and they are in {len(groups)} separate "
            f"modes: {where}. Each chain describes its own mode only. Means and standard "
            "deviations over all chains weight each mode by the number of chains in it, not by its "
            "probability, so look at the draws chain by chain." + words
        )
    if not r_hat <= 1.05:  # true for NaN as well
        return (
            f"THE CHAINS HAVE NOT MIXED: r_hat is {r_hat:.2f}, although they are in one mode. Do "
            "not use these draws; run longer chains." + words
        )
    if round(r_hat, 2) > 1.01:
        return (
            f"The four chains are in one mode, and r_hat is at most {r_hat:.3f}: good enough for "
            "a first look. Before you quote numbers, run longer chains (r_hat at most 1.01)."
            + words
        )
    return f"The four chains agree: r_hat is at most {r_hat:.3f}." + words


# %%
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prior", choices=PRIORS, default="vae")
    parser.add_argument("--digit", type=int, choices=range(10), default=3)
    parser.add_argument("--draws", type=int, default=500, help="draws per chain; 500 by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--smoke", action="store_true", help="a few draws, to check that it runs")
    options = parser.parse_args(argv)

    prior = ngp.pretrained.load(f"mnist_{options.prior}")
    truth, y = observe(options.digit, options.seed)
    start = time.perf_counter()
    num_warmup, num_samples = (10, 10) if options.smoke else (300, options.draws)
    trace = sample(prior, y, options.seed, num_warmup, num_samples)
    seconds = time.perf_counter() - start

    worst = worst_latents(trace)
    print(f"\n{prior}\nThe {worst.sizes['x_latent_dim']} latents with the largest r_hat:")
    print(az.summary(worst).to_string())
    words = verdict(trace)
    print(f"\n{words}\n{num_samples} draws per chain in {seconds:.0f} s, including compilation.")

    moments = ngp.event_moments(prior, trace.posterior["x_latent"])  # including decoder noise
    seen = np.full((28, 28), np.nan)
    seen[:14] = y
    figure = ngp.plots.posterior_images(
        trace.posterior["x"],
        truth=truth,
        data=seen,
        mean=moments.mean,
        sd=moments.sd,
        limits=(0.0, 1.0),
        title=f"A held-out {options.digit}, blurred, half hidden and noisy; {options.prior} prior",
        caption=words,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    name = options.out / f"quickstart_{options.prior}_{options.digit}"
    figure.savefig(name.with_suffix(".png"), dpi=150)
    trace.to_netcdf(str(name.with_suffix(".nc")), engine="h5netcdf")
    print(f"Wrote {name.with_suffix('.png')} and {name.with_suffix('.nc')}.")


if __name__ == "__main__":
    main()
