"""Separate modes: r-hat of NUTS and `ParallelTempering` for digits with ten hidden rows.

Held-out digits (``examples/data/digits.npz``) under the shipped ``mnist_gan`` prior, noise 0.2 on
each visible pixel, four chains of NUTS and four ensembles of replicas. Prints the largest split
r-hat over latents and over pixels whose posterior sd exceeds 1e-3, and the seconds it took:

    python benchmarks/tempering.py                       # some minutes on a GPU, hours on two cores
    python benchmarks/tempering.py --problems 5:9        # digit : first hidden row
"""

# %%
from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer import MCMC, NUTS

import numpyro_genprior as ngp
from numpyro_genprior.infer import ParallelTempering

DIGITS = Path(__file__).parents[1] / "examples" / "data" / "digits.npz"
PROBLEMS = ("0:9", "4:9", "5:9", "7:9", "0:18", "4:18", "5:18", "8:18")
NUM_HIDDEN, NOISE, MIN_SD = 10, 0.2, 1e-3


# %%
@ngp.latent(noise="omit")
def model(prior: Any, rows: jax.Array, y: Any = None) -> None:
    x: Any = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x[rows], NOISE).to_event(2), obs=y)


def problem(digit: int, first: int) -> tuple[jax.Array, jax.Array]:
    """The visible rows of a digit, and their noisy measurements."""
    stored = np.load(DIGITS)
    truth: Any = stored["images"][list(stored["labels"]).index(digit)] / 255
    rows = np.delete(np.arange(len(truth)), np.arange(first, first + NUM_HIDDEN))
    noise = np.random.default_rng(digit).normal(size=(len(rows), truth.shape[1]))
    return jnp.asarray(rows), jnp.asarray(truth[rows] + NOISE * noise, jnp.float32)


def sampler(kernel: Any, num_warmup: int, num_samples: int) -> MCMC:
    """Four chains that start from draws of the prior, compiled once for all digits."""
    return MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
        jit_model_args=True,
    )


def run(mcmc: MCMC, *arguments: Any, extra_fields: tuple[str, ...] = ()) -> float:
    """Run the sampler; returns the seconds it took."""
    start = time.perf_counter()
    mcmc.run(jax.random.key(0), *arguments, extra_fields=extra_fields)
    jax.block_until_ready(mcmc.last_state)
    return time.perf_counter() - start


def largest_r_hats(mcmc: MCMC) -> tuple[float, float]:
    """Largest r-hat of latents, and of pixels with posterior sd above `MIN_SD`."""
    draws: Any = mcmc.get_samples(group_by_chain=True)
    pixels = np.asarray(draws["x"], float).reshape(*draws["x"].shape[:2], -1)
    pixels = pixels[..., pixels.std((0, 1)) > MIN_SD]
    latents = np.asarray(draws["x_latent"], float)
    return float(split_gelman_rubin(latents).max()), float(split_gelman_rubin(pixels).max())


# %%
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--problems", nargs="*", default=PROBLEMS, help="digit:first hidden row")
    parser.add_argument("--prior", default="mnist_gan")
    parser.add_argument("--replicas", type=int, default=16)
    parser.add_argument(
        "--rounds",
        type=int,
        nargs=2,
        default=(1000, 30_000),
        help="rounds of warm-up and of sampling",
    )
    parser.add_argument("--skip-nuts", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="one digit, a few draws")
    options = parser.parse_args(argv)
    smoke = options.smoke

    prior = ngp.pretrained.load(options.prior)
    nuts = sampler(NUTS(model), *((5, 5) if smoke else (500, 500)))
    rounds = (20, 20) if smoke else options.rounds
    tempering = sampler(ParallelTempering(model, options.replicas), *rounds)
    print("r-hat of latents, pixels")
    for name in options.problems[:1] if smoke else options.problems:
        digit, first = map(int, name.split(":"))
        print(f"digit {digit}, rows {first} to {first + NUM_HIDDEN - 1} hidden", flush=True)
        arguments = (prior, *problem(digit, first))
        if not options.skip_nuts:
            seconds = run(nuts, *arguments, extra_fields=("diverging",))
            diverging = int(np.asarray(nuts.get_extra_fields()["diverging"]).sum())
            found = ngp.diagnostics.modes(nuts)
            show("NUTS", nuts, f"{diverging} divergences, {found.num_modes} modes", seconds)
        seconds = run(tempering, *arguments)
        report = ParallelTempering.report(tempering)
        words = (
            f"barrier {report.barrier:.1f}, round trips {report.round_trips}, "
            f"log evidence {report.log_evidence:.2f} ± {report.log_evidence_error:.2f}"
        )
        show("tempering", tempering, words, seconds)


def show(name: str, mcmc: MCMC, words: str, seconds: float) -> None:
    latents, pixels = largest_r_hats(mcmc)
    print(f"  {name:<9} {latents:9.3f} {pixels:9.3f}; {words}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
