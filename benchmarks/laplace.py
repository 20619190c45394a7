"""The Laplace approximation of a partly observed field: ours, and NumPyro's dense one.

A smooth log-normal field on a grid, counts at 400 of its pixels. Both guides start from one mode
(`find_map`'s, which is not timed) and then compute the Gaussian there, 100 draws
from it and their standard deviation. ``AutoLaplaceApproximation`` forms the Hessian, n × n;
`AutoFisherLaplace` as many directions as there are counts, so that none is left out. Each runs
in its own process, which prints seconds with compilation and without, the growth of its memory,
and the mean of the standard deviations; then the ratios, NumPyro's over ours:

    python benchmarks/laplace.py                 # 32², 64² and 100² pixels
    python benchmarks/laplace.py --limit 600     # seconds after which a process is ended
"""

# %%
from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoLaplaceApproximation

import numpyro_genprior as ngp

COUNTS, DRAWS = 400, 100


def problem(n: int) -> tuple[Any, jax.Array, jax.Array]:
    """A log-normal field of n × n pixels, the pixels that are seen, and counts there, of mean 4."""

    def spectrum(k: Any) -> Any:
        return (0.5 + (n * k / 4) ** 2) ** -2.0

    frequencies = jnp.hypot(jnp.fft.fftfreq(n)[:, None], jnp.fft.fftfreq(n)[None, :])
    variance = float(spectrum(frequencies).mean())
    field = ngp.GaussianFieldPrior((n, n), lambda k: spectrum(k) / variance)
    seen = jax.random.choice(jax.random.key(0), n * n, (COUNTS,), replace=False)
    truth: Any = field.sample(jax.random.key(1))
    y = jax.random.poisson(jax.random.key(2), 4 * jnp.exp(truth.ravel()[seen]))
    return field, seen, y


def observe(x: Any, seen: Any, y: Any) -> None:
    rate = 4 * jnp.exp(x.ravel()[seen])
    numpyro.sample("y", dist.Poisson(rate).to_event(1), obs=y)


@ngp.latent(explicit=True, record=False)
def with_prior(field: Any, seen: jax.Array, y: jax.Array) -> None:
    observe(numpyro.sample("x", field), seen, y)


def by_hand(field: Any, seen: jax.Array, y: jax.Array) -> None:
    shape = field.latent.event_shape
    z = numpyro.sample("x_latent", dist.Normal(jnp.zeros(shape), 1).to_event(len(shape)))
    observe(field.decode(z), seen, y)


# %%
def our_guide(arguments: Any, estimate: Any) -> Any:
    guide = ngp.infer.AutoFisherLaplace.from_map(estimate, rank=COUNTS)
    return guide, guide.params


def numpyro_guide(arguments: Any, estimate: Any) -> Any:
    guide = AutoLaplaceApproximation(by_hand)
    SVI(guide.model, guide, numpyro.optim.Adam(0.01), Trace_ELBO()).init(
        jax.random.key(0), *arguments
    )
    return guide, {"auto_loc": estimate.xi}


def measure(package: str, n: int) -> None:
    """Run one guide in this process and print its costs as JSON."""
    arguments = problem(n)
    estimate = ngp.infer.find_map(
        with_prior, jax.random.key(3), *arguments, num_starts=1, progress_bar=False
    )
    guide, params = {"ours": our_guide, "NumPyro": numpyro_guide}[package](arguments, estimate)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, sd = [], jnp.zeros(())
    for _ in range(2):
        start = time.perf_counter()
        draws = guide.sample_posterior(jax.random.key(4), params, sample_shape=(DRAWS,))
        sd = jax.block_until_ready(draws["x_latent"].std(0))
        seconds.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    costs = {"compiling": seconds[0], "seconds": seconds[1], "memory": (after - before) / 1024}
    print(json.dumps(costs | {"sd": float(sd.mean()), "broken": bool(jnp.isnan(sd).any())}))


def measure_in_subprocess(package: str, n: int, limit: float) -> dict[str, float] | str:
    command = [sys.executable, __file__, "--measure", package, str(n)]
    try:
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"not done after {limit:.0f} s"
    if process.returncode:
        return f"ended by exit status {process.returncode} (out of memory, if -9)"
    return json.loads(process.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=(32, 64, 100))
    parser.add_argument("--limit", type=float, default=300.0)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        measure(options.measure[0], int(options.measure[1]))
        return
    for n in options.sides:
        print(f"{n}² = {n * n} latents, {COUNTS} counts", flush=True)
        costs_of = {}
        for package in ("ours", "NumPyro"):
            costs_of[package] = costs = measure_in_subprocess(package, n, options.limit)
            if isinstance(costs, str):
                print(f"  {package:<8} {costs}", flush=True)
                continue
            print(
                f"  {package:<8} seconds {costs['seconds']:.2f}, "
                f"compiling {costs['compiling']:.2f}, "
                f"memory +{costs['memory']:.0f} MiB, mean sd {costs['sd']:.4f}"
                f"{'  NOT A NUMBER' if costs['broken'] else ''}",
                flush=True,
            )
        if not any(isinstance(costs, str) for costs in costs_of.values()):
            ratios = (
                f"{name} {costs_of['NumPyro'][name] / costs_of['ours'][name]:.1f}"
                for name in ("seconds", "compiling", "memory")
            )
            print(f"  NumPyro / ours: {', '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
