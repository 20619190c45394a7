"""MGVI against NIFTy.re: counts of a log-normal field, the same field, data and accuracy.

Both take the same number of steps with the same number of antithetic pairs of samples, and Newton
steps until the mean is accurate to a hundredth of a posterior standard deviation. Each runs in its
own process, which prints its costs: seconds of processor time to compile (first run minus a
warm one), seconds of all steps warm (the fastest of several tries), growth of the memory of the
process, iterations of conjugate gradients for one sample and the error that they leave in it
(posterior standard deviations, root mean square). NIFTy has other criteria for its solver, so it is
given the number of iterations per sample that ours took. Prints also the ratios, ours over NIFTy's
(below one, ours is cheaper), the distance between the means, and by how much the mean energy of
one set of samples is lower around our mean than around NIFTy's:

    pip install nifty8
    python benchmarks/mgvi.py             # 32², 128² and 256² pixels
    python benchmarks/mgvi.py --million   # 1024² pixels, ours only
"""

# %%
from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_genprior as ngp
from numpyro_genprior.infer import MGVI, Posterior
from numpyro_genprior.infer.mgvi import step as mgvi_step

TOLERANCE = 0.01
MILLION_STEPS = 6
ACCURATE, MAX_ITERATIONS = 1e-5, 5000  # settings of the samples that errors are measured against


@ngp.latent(explicit=True, record=False)
def model(field: Any, y: jax.Array) -> None:
    x = numpyro.sample("x", field)
    numpyro.sample("y", dist.Poisson(jnp.exp(x)).to_event(2), obs=y)


def problem(n: int) -> tuple[Any, jax.Array]:
    """A smooth log-normal field of n × n pixels with unit variance, and two counts per pixel.

    Its correlation length is the size of the box, or 64 pixels in the largest problem.
    """
    scale = n if n < 1024 else 64

    def spectrum(k: Any) -> Any:
        return (0.5 + (scale * k / 2) ** 2) ** -2.0

    frequencies = jnp.hypot(jnp.fft.fftfreq(n)[:, None], jnp.fft.fftfreq(n)[None, :])
    variance = float(spectrum(frequencies).mean())
    field = ngp.GaussianFieldPrior((n, n), lambda k: spectrum(k) / variance, loc=0.7)
    truth = field.sample(jax.random.key(1))
    return field, jax.random.poisson(jax.random.key(2), jnp.exp(truth))


# %% Each function returns `run`, which finds the mean, and `draw_pair`, which returns the
# iterations for one pair of samples, that pair, and an accurate one.
def ours(field: Any, y: jax.Array, num_steps: int, pairs: int, _: int) -> Any:
    mgvi = MGVI(model, pairs, tolerance=TOLERANCE, progress_bar=False)

    def run() -> jax.Array:
        result = mgvi.run(jax.random.key(3), num_steps, field, y)
        if y.size >= 1024**2:
            moved = ", ".join(f"{sd:.3g}" for sd in result.moved)
            print(f"  moved by {moved} sd; warnings: {result.warnings or 'none'}", file=sys.stderr)
        return result.xi

    def draw_pair(xi: jax.Array) -> tuple[int, jax.Array, jax.Array]:
        posterior, key = Posterior(model, (field, y)), jax.random.key(7)
        rough = mgvi_step.jit_sample_residuals(key, posterior, xi, 1, mgvi.settings)
        settings = mgvi_step.Settings(1, ACCURATE, MAX_ITERATIONS)
        exact = mgvi_step.jit_sample_residuals(key, posterior, xi, 1, settings)
        return int(rough.iterations[0]), rough.s[0], exact.s[0]

    return run, draw_pair


def nifty(field: Any, y: jax.Array, num_steps: int, pairs: int, iterations: int) -> Any:
    """NIFTy's parts, each compiled once.

    Its own loop (``OptimizeVI.update``) compiles the solver for samples again in every step, which
    alone takes seconds; that is left out here. Its Newton method is the one that it compiles.
    """
    jft: Any = importlib.import_module("nifty8.re")
    logging.getLogger("NIFTy8").setLevel(logging.CRITICAL)
    size = y.size
    signal = jft.Model(
        lambda z: jnp.exp(field.decode(z["z"].reshape(y.shape))),
        domain={"z": jax.ShapeDtypeStruct((size,), float)},
        init=lambda key: {"z": jax.random.normal(key, (size,))},
    )
    likelihood = jft.Poissonian(y).amend(signal)
    steps = jft.OptimizeVI(likelihood, n_total_iterations=num_steps)
    solver = {"resnorm": 0.0, "maxiter": iterations}
    newton = {"xtol": TOLERANCE, "maxiter": 10, "name": None}

    @jax.jit
    def residuals(mean: Any, keys: jax.Array) -> Any:
        def one(key: jax.Array) -> Any:
            return jft.draw_linear_residual(likelihood, mean, key, cg_kwargs=solver)[0]

        draws = jax.vmap(one)(keys)
        return jax.tree.map(lambda s: jnp.concatenate([s, -s]), draws)

    @jax.jit
    def minimise(samples: Any) -> Any:
        static = jft.optimize._static_newton_cg
        return steps.kl_minimize(samples, minimize=static, minimize_kwargs=newton).x

    def run() -> jax.Array:
        mean = jft.Vector({"z": 0.1 * jax.random.normal(jax.random.key(4), (size,))})
        for index in range(num_steps):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(3), index), pairs)
            mean = minimise(jft.Samples(pos=mean, samples=residuals(mean, keys), keys=keys))
        return mean.tree["z"]

    def draw_pair(xi: jax.Array) -> tuple[int, jax.Array, jax.Array]:
        mean = jft.Vector({"z": xi})

        def draw(cg_kwargs: Any) -> jax.Array:
            key = jax.random.key(7)
            sample, _ = jft.draw_linear_residual(likelihood, mean, key, cg_kwargs=cg_kwargs)
            return sample.tree["z"]

        exact = draw({"resnorm": ACCURATE * size**0.5, "maxiter": MAX_ITERATIONS})
        return iterations, draw(solver), exact

    return run, draw_pair


# %%
def measure(package: str, n: int, tries: int, *numbers: int, path: str) -> None:
    """Run one program in this process; print its costs as JSON and save the mean to a file."""
    field, y = problem(n)
    jax.block_until_ready(y)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run, draw_pair = {"ours": ours, "nifty": nifty}[package](field, y, *numbers)
    times, mean = [], None
    for _ in range(tries + 1):
        begin = np.array([time.perf_counter(), time.process_time()])
        mean = jax.block_until_ready(run())
        times.append(np.array([time.perf_counter(), time.process_time()]) - begin)
    best = np.min(times[1:] or [np.full(2, np.nan)], axis=0)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    costs = {"compile": times[0][1] - best[1], "run": best[0], "memory": memory}
    costs["first"] = times[0][0]
    costs["peak"] = memory + before / 1024
    if n < 1024:
        iterations, rough, exact = draw_pair(jnp.asarray(mean))
        error = rms(Posterior(model, (field, y)), jnp.asarray(mean), rough - exact)
        costs |= {"iterations": iterations, "error": error}
    np.save(path, np.asarray(mean))
    print(json.dumps(costs))


def rms(posterior: Posterior, xi: jax.Array, v: jax.Array) -> float:
    """Length of v in posterior standard deviations, root mean square over coordinates."""
    square = jax.jit(lambda p, xi, v: v @ p.linearise(xi).metric(v))(posterior, xi, v)
    return float(jnp.sqrt(square / v.size))


def compare(n: int, mean: jax.Array, peer_mean: jax.Array) -> tuple[float, float]:
    posterior = Posterior(model, problem(n))
    draws = mgvi_step.jit_sample_residuals(
        jax.random.key(11), posterior, mean, 8, mgvi_step.Settings()
    ).s

    @jax.jit
    def gain(posterior: Posterior, mean: jax.Array, peer_mean: jax.Array, draws: jax.Array) -> Any:
        def one(s: jax.Array) -> jax.Array:
            return posterior.energy(peer_mean + s) - posterior.energy(mean + s)

        return jax.lax.map(one, jnp.concatenate([draws, -draws])).mean()

    return rms(posterior, mean, mean - peer_mean), float(gain(posterior, mean, peer_mean, draws))


def measure_in_subprocess(package: str, *numbers: int) -> tuple[dict[str, float], np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "mean.npy")
        command = [sys.executable, __file__, "--measure", package, *map(str, numbers), path]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(out.splitlines()[-1]), np.load(path)


def show(package: str, costs: dict[str, float]) -> None:
    line = f"  {package:<5} compile {costs['compile']:6.1f} s  run {costs['run']:7.3f} s"
    line += f"  memory +{costs['memory']:.0f} MiB (peak {costs['peak']:.0f})"
    if "error" in costs:
        line += f"  {costs['iterations']} iterations leave an error of {costs['error']:.4f}"
    print(line, flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a small field, one try")
    parser.add_argument("--million", action="store_true", help="1024² pixels, ours only")
    parser.add_argument("--sides", type=int, nargs="+", default=(32, 128, 256))
    parser.add_argument("--measure", nargs=7, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        package, *numbers, path = options.measure
        n, tries, *settings = map(int, numbers)
        measure(package, n, tries, *settings, path=path)
        return
    num_steps, pairs, tries = (2, 2, 1) if options.smoke else (5, 4, 8)
    if options.million:
        costs, _ = measure_in_subprocess("ours", 1024, 0, MILLION_STEPS, pairs, 0)
        print(
            f"1024² pixels, {MILLION_STEPS} steps of {pairs} pairs: "
            f"{costs['first']:.0f} s with compiling, "
            f"memory +{costs['memory']:.0f} MiB (peak {costs['peak']:.0f})"
        )
        return
    peer = importlib.util.find_spec("nifty8") is not None
    if not peer:
        print("NIFTy is not installed: pip install nifty8")
    for n in (16,) if options.smoke else options.sides:
        print(f"{n}² pixels, {num_steps} steps of {pairs} pairs")
        costs, mean = measure_in_subprocess("ours", n, tries, num_steps, pairs, 0)
        show("ours", costs)
        if not peer:
            continue
        peer_costs, peer_mean = measure_in_subprocess(
            "nifty", n, tries, num_steps, pairs, int(costs["iterations"])
        )
        show("NIFTy", peer_costs)
        names = ("compile", "run", "memory")
        ratios = "  ".join(f"{name} {costs[name] / peer_costs[name]:.3f}" for name in names)
        distance, lower = compare(n, jnp.asarray(mean), jnp.asarray(peer_mean))
        print(f"  ratio {ratios}; means apart by {distance:.3f} sd, energy lower by {lower:.2f}")


if __name__ == "__main__":
    main()
