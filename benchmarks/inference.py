"""Gradients and seconds to 400 effective draws: Fisher kernels, and NUTS on hand-written models.

Four vectorized chains run until each latent has 400 effective draws at r_hat below 1.01 (ArviZ: the
smaller of bulk and tail, rank-normalised r_hat). Optimisation and warm-up count. Compared
with, on the model that people write by hand (a normal latent, a deterministic event):

default
    NumPyro's default: ``NUTS(model)`` after 1000 warm-up steps.
expert
    The best of what an expert tries: a dense mass matrix, from NumPyro's random starts or from the
    mode that ``AutoLaplaceApproximation`` found, or that guide and ``NeuTraReparam`` with two
    lengths of warm-up. Best in gradients is compared with gradients, best in seconds with seconds.

For the draws alone, effective draws per gradient relative to those of NUTS on a standard normal of
the same dimension. A method that exceeds a limit of seconds or of draws is stopped: its ratios are
then lower bounds, and printed as such. Gradients are those of all chains, and of the
optimisation before them: a step of `find_map` counts as many gradients as it has flops, by XLA.

    python benchmarks/inference.py                 # all cases
    python benchmarks/inference.py mlp conv        # some
    python benchmarks/inference.py conv --weights decoder.npz    # see convolution.py
    python benchmarks/inference.py wide --limit 60               # seconds for each method
"""

# %%
from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from inference_cases import CASES, Case
from measure import transitions
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer import NUTS, SVI, Trace_ELBO, init_to_value
from numpyro.infer.autoguide import AutoLaplaceApproximation
from numpyro.infer.reparam import NeuTraReparam
from numpyro.infer.util import log_density

import numpyro_genprior as ngp
from numpyro_genprior.infer.optimize.minimise import begin, default_solver

CHAINS, CHUNK, MIN_ESS, MAX_R_HAT = 4, 50, 400, 1.01
SVI_STEPS = 1000


@dataclass(frozen=True)
class Measurement:
    """Cost of a method, and quality of its draws.

    Attributes
    ----------
    gradients, before
        Number of gradients in all, and before the first draw that is kept.
    seconds, compiling
        Without compilation and with it.
    ess, r_hat
        Smallest effective sample size and largest r_hat of a latent.
    draws, length
        Number of draws of each chain, and steps per draw.
    converged
        Whether the draws have the required quality; otherwise costs are lower bounds.
    """

    name: str
    gradients: float
    before: float
    seconds: float
    compiling: float
    ess: float
    r_hat: float
    draws: int
    length: float
    converged: bool


# %%
def measure(
    name: str,
    case: Case,
    weights: Any,
    warmup: int,
    make: Callable[[], Any],
    *,
    limit: float,
    max_draws: int = 3000,
) -> Measurement:
    """Run until the draws are good enough, twice (the second time compiled), without timing ArviZ.

    `make` runs what precedes sampling (an optimisation). It returns a kernel, the number of
    gradients spent, and a function from the kernel's draws to latents.
    """
    jax.clear_caches()
    compiled: Any = None
    arguments = (weights, case.y)
    seconds, gradients, before, draws, ess, r_hat, converged = [], 0, 0, 0, 0.0, float("nan"), False
    for _ in range(2):
        start = time.perf_counter()
        kernel, before, latents = make()
        keys = jax.random.split(jax.random.key(0), CHAINS)
        state = kernel.init(keys, warmup, None, arguments, {})
        compiled = compiled or transitions(kernel, CHUNK)
        gradients, kept, ess, r_hat, converged = before, [], 0.0, float("nan"), False
        for chunk in range((warmup + max_draws) // CHUNK):
            state, (z, num_steps) = compiled(state, arguments)
            gradients += int(num_steps.sum())
            if time.perf_counter() - start > limit:
                break
            if chunk < warmup // CHUNK:
                before = gradients
                continue
            kept.append(latents(jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), z)))
            check_start = time.perf_counter()
            ess, r_hat = quality(np.concatenate(kept, axis=1))
            start += time.perf_counter() - check_start
            converged = ess >= MIN_ESS and r_hat < MAX_R_HAT
            if converged:
                break
        draws = len(kept) * CHUNK
        seconds.append(time.perf_counter() - start)
        if not converged:
            break
    length = (gradients - before) / max(draws * CHAINS, 1)
    return Measurement(
        name, gradients, before, seconds[-1], seconds[0], ess, r_hat, draws, length, converged
    )


def quality(latents: np.ndarray) -> tuple[float, float]:
    """The smallest ESS and the largest r_hat of draws of shape (chains, draws, size).

    ArviZ takes seconds for hundreds of latents: skipped if plain split r_hat is far too large.
    """
    plain = float(np.nan_to_num(split_gelman_rubin(latents), nan=np.inf).max())
    if plain > MAX_R_HAT + 0.005:
        return 0.0, plain
    draws: Any = {"z": latents}
    data: Any = az.convert_to_dataset(draws)
    with np.errstate(all="ignore"):
        ess = [az.ess(data, method=method)["z"].values.min() for method in ("bulk", "tail")]
        r_hat = np.asarray(az.rhat(data)["z"])  # pyright: ignore[reportIndexIssue]
    return float(min(ess)), float(np.nan_to_num(r_hat, nan=np.inf).max())


# %% Cost of a step of the search
def flops(function: Callable[..., Any], *arguments: Any) -> float:
    analysis: Any = jax.jit(function).lower(*arguments).compile().cost_analysis()
    return (analysis[0] if isinstance(analysis, list) else analysis)["flops"]


def gradients_per_search_step(case: Case, size: int) -> float:
    by_hand, net = case.by_hand
    ours, prior = case.ours

    def density(z: jax.Array, net: Any) -> Any:
        return log_density(by_hand, (net, case.y), {}, {"x_latent": z})[0]

    def energy(xi: jax.Array, posterior: Any) -> Any:
        return posterior.energy(xi), None

    def step(xi: jax.Array, prior: Any) -> Any:
        posterior = ngp.infer.Posterior(ours, (prior, case.y))
        solver = default_solver(posterior)
        first = begin(posterior, xi, solver)
        state = jax.tree.map(lambda x: x[0], first.state)
        return solver.step(energy, first.xi[0], posterior, {}, state, frozenset())[:2]

    gradient = flops(jax.value_and_grad(density), jnp.zeros(size), net)
    return flops(step, jnp.zeros((1, size)), prior) / gradient


# %% The methods
def latents_of_site(samples: Any) -> np.ndarray:
    return np.asarray(samples["x_latent"])


def default_nuts(case: Case, limit: float) -> Measurement:
    model, net = case.by_hand
    return measure(
        "default: NUTS",
        case,
        net,
        1000,
        lambda: (NUTS(model), 0, latents_of_site),
        max_draws=2000,
        limit=limit,
    )


def expert(case: Case, limit: float) -> Iterator[Measurement]:
    model, net = case.by_hand
    guide = AutoLaplaceApproximation(model)
    svi = SVI(guide.model, guide, numpyro.optim.Adam(0.01), Trace_ELBO())
    svi.init(jax.random.key(1), net, case.y)

    @jax.jit
    def fit(net: Any, y: Any) -> Any:
        return svi.run(jax.random.key(1), SVI_STEPS, net, y, progress_bar=False).params

    def dense() -> Any:
        return NUTS(model, dense_mass=True), 0, latents_of_site

    def dense_at_mode() -> Any:
        mode = guide.median(fit(net, case.y))
        start = init_to_value(values={"x_latent": mode["x_latent"]})
        kernel = NUTS(model, dense_mass=True, init_strategy=start)
        return kernel, SVI_STEPS, latents_of_site

    def neutra() -> Any:
        reparam = NeuTraReparam(guide, fit(net, case.y))

        def latents(samples: Any) -> np.ndarray:
            white = samples["auto_shared_latent"]
            flat = white.reshape(-1, white.shape[-1])
            return latents_of_site(jax.vmap(reparam.transform_sample)(flat)).reshape(white.shape)

        return NUTS(reparam.reparam(model)), SVI_STEPS, latents

    for name, make, lengths in (
        ("NeuTra", neutra, (100, 300)),
        ("dense at the mode", dense_at_mode, (300,)),
        ("dense", dense, (1000,)),
    ):
        for warmup in lengths:
            title = f"expert: {name}, {warmup} warm-up"
            yield measure(title, case, net, warmup, make, limit=limit)


def on_standard_normal(case: Case, size: int, limit: float) -> Measurement:
    """NUTS on a standard normal, the reference for efficiency."""

    def model(weights: Any, y: Any) -> None:
        numpyro.sample("x_latent", dist.Normal(jnp.zeros(size), 1).to_event(1))

    kernel = NUTS(model)
    return measure(
        "NUTS on N(0, I)", case, None, 300, lambda: (kernel, 0, latents_of_site), limit=limit
    )


def fisher(case: Case, size: int, limit: float) -> Iterator[Measurement]:
    model, prior = case.ours
    gradients_per_step = gradients_per_search_step(case, size)
    for make, warmup in (
        (ngp.infer.FisherNUTS, 50),
        (ngp.infer.FisherNUTS, 100),
        (ngp.infer.FisherHMC, 50),
        (ngp.infer.FisherHMC, 100),
    ):
        kernel = make(model)

        def begin(kernel: Any = kernel) -> Any:
            return kernel, 0, latents_of_site

        name = f"{make.__name__}, {warmup} warm-up"
        found = measure(name, case, prior, warmup, begin, limit=limit)
        estimate: Any = kernel.estimate
        search = gradients_per_step * float(np.sum(estimate.starts.num_steps))
        yield replace(found, gradients=found.gradients + search, before=found.before + search)


# %%
def show(found: Measurement) -> Measurement:
    print(
        f"  {found.name:<36} gradients {found.gradients:8.0f} (before: {found.before:7.0f})  "
        f"seconds {found.seconds:6.1f}, with compilation {found.compiling:6.1f}  | "
        f"{found.draws} draws of {found.length:.1f} steps, ESS {found.ess:.0f}, "
        f"r_hat {found.r_hat:.3f}{'' if found.converged else '  STOPPED'}",
        flush=True,
    )
    return found


def show_ratio(name: str, ours: Measurement, peers: list[Measurement]) -> None:
    """Print the best of the peers over ours, for each cost."""
    parts = []
    for field, title in (
        ("gradients", "gradients"),
        ("seconds", "seconds"),
        ("compiling", "seconds with compilation"),
    ):
        best = min(peers, key=lambda peer: getattr(peer, field))
        bound = "" if best.converged else "over "
        parts.append(f"{title} {bound}{getattr(best, field) / getattr(ours, field):.2f}")
    print(f"  {name} / {ours.name}: {', '.join(parts)}", flush=True)


def show_efficiency(found: Measurement, normal: Measurement) -> None:
    ours, best = (f.ess / max(f.gradients - f.before, 1) for f in (found, normal))
    print(f"  effective draws a gradient, {found.name} / NUTS on N(0, I): {ours / best:.2f}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all if none is given")
    parser.add_argument("--weights", help="an .npz file with the weights of the decoder")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each method")
    options = parser.parse_args(argv)
    for name in options.cases or CASES:
        case = CASES[name](options.weights)
        size = ngp.infer.Posterior(case.ours[0], (case.ours[1], case.y)).size
        print(f"{name}: {case.title} ({size} latents)", flush=True)
        normal = show(on_standard_normal(case, size, options.limit))
        ours = [show(found) for found in fisher(case, size, options.limit)]
        for found in ours:
            show_efficiency(found, normal)
        experts = [show(found) for found in expert(case, options.limit)]
        plain = [show(default_nuts(case, options.limit))]
        for found in ours:
            if found.converged:
                show_ratio("expert", found, experts)
                show_ratio("default", found, plain)


if __name__ == "__main__":
    main()
