"""A flow cannot put its mass on a curve; what a VAE of low noise does.

    python examples/manifold_limits.py
    python examples/manifold_limits.py --out results

Points of a circle with a little noise, learnt by a flow (two dimensions, exact density) and by a
VAE (two latents, noise of the right size). Prints what `effective_dimension` says of each, and
writes a figure: draws of both, and the flow's condition number as the noise of the data falls.
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

import numpyro_genprior as ngp
from numpyro_genprior.train import fit_flow, fit_vae


# %%
def circle(seed: int, number: int, noise: float) -> np.ndarray:
    """Points of the unit circle, moved by Gaussian noise."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, number)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (points + noise * rng.normal(size=points.shape)).astype(np.float32)


def width(points: Any) -> float:
    """Root mean square distance from the circle."""
    return float(np.sqrt(np.mean((np.linalg.norm(points, axis=1) - 1) ** 2)))


# %%
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A flow, a VAE and a circle.")
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--smoke", action="store_true", help="little data, few epochs")
    options = parser.parse_args(argv)
    key, number = jax.random.key(0), 300 if options.smoke else 4000
    epochs = 2 if options.smoke else 100
    noises = (0.1, 0.02) if options.smoke else (0.3, 0.1, 0.03, 0.01)

    conditions: list[float] = []
    flow: Any = None
    found: Any = None
    for noise in noises:
        data = circle(0, number, noise)
        flow = fit_flow(key, data, max_epochs=epochs, show_progress=False).prior
        found = ngp.diagnostics.effective_dimension(flow, key, num_draws=64)
        conditions.append(found.condition_number)
        print(f"noise {noise:g}: the flow's condition number is {found.condition_number:.0f}")
    print(f"\nThe flow at the least noise:\n{found}")

    data = circle(0, number, noises[-1])
    vae = fit_vae(
        key, data, latent_size=2, scale=noises[-1], max_epochs=epochs, show_progress=False
    ).prior
    print(f"\nThe VAE:\n{ngp.diagnostics.effective_dimension(vae, key, num_draws=64)}")

    draws = {"data": data[:1000]}
    for name, prior in (("flow", flow), ("VAE", vae)):
        draws[name] = np.asarray(prior.sample(jax.random.key(1), (1000,)))
    for name, points in draws.items():
        print(f"{name}: {width(points):.3f} from the circle (root mean square)")
    path = options.out / "manifold_limits.png"
    options.out.mkdir(parents=True, exist_ok=True)
    picture(draws, noises, conditions).savefig(path, dpi=120)
    print(f"figure: {path}")


def picture(draws: dict[str, Any], noises: Sequence[float], conditions: list[float]) -> Any:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
    for axes, (name, points) in zip(panels, draws.items(), strict=False):
        axes.plot(*jnp.asarray(points).T, ".", markersize=2, color="#1f5fa8")
        axes.set_title(f"{name}: {width(points):.3f} from the circle", fontsize=10)
        axes.set_aspect("equal")
        axes.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6))
    last = panels[-1]
    last.loglog(noises, conditions, "o-", color="#c8452c")
    last.set_title("the flow's condition number", fontsize=10)
    last.set_xlabel("noise of the data")
    return figure


if __name__ == "__main__":
    main()
