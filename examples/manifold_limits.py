"""A flow cannot concentrate its mass on a curve; a VAE with low noise can.

    python examples/manifold_limits.py                # two minutes on one core
    python examples/manifold_limits.py --gap 0        # a closed circle, which is harder for both
    python examples/manifold_limits.py --out results

A flow (two dimensions, exact density) and a VAE (one latent, noise of the right size) learn points
on three quarters of a circle with a little noise. Prints what `effective_dimension` finds for each,
and writes a figure: draws from both, and the flow's condition number as the noise in the data
decreases.
"""

# %%
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax

import numpyro_genprior as ngp
from numpyro_genprior.networks.architectures import MLPDecoder, MLPEncoder
from numpyro_genprior.train import fit_flow, fit_vae

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Decoder noises before the final one: training that starts with low noise gets stuck.
SCALES = (0.3, 0.1, 0.03)


# %%
def curve(seed: int, number: int, noise: float, gap: float) -> np.ndarray:
    """Points on the unit circle, with a gap (in radians), plus Gaussian noise."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi - gap, number)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (points + noise * rng.normal(size=points.shape)).astype(np.float32)


def nearest(points: np.ndarray, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance of points from the curve, and the position along it of the nearest, from 0 to 1."""
    length = 2 * np.pi - gap
    angle = np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi)
    angle = np.where(angle > length + gap / 2, 0.0, np.minimum(angle, length))
    projected = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.linalg.norm(points - projected, axis=1), angle / length


def width(points: np.ndarray, gap: float) -> float:
    """Root mean square distance from the curve."""
    return float(np.sqrt(np.mean(nearest(points, gap)[0] ** 2)))


def train_vae(key: jax.Array, data: np.ndarray, noise: float, epochs: int) -> ngp.VAEPrior:
    """A VAE with one latent, trained with decoder noises that decrease to that of the data."""
    decoder_key, encoder_key, key = jax.random.split(key, 3)
    small = {"hidden": (64, 64), "activation": "silu"}
    decoder: Any = MLPDecoder(1, 2, output="identity", key=decoder_key, **small)
    encoder: Any = MLPEncoder(2, 1, key=encoder_key, **small)
    prior: Any = None
    for scale in (*(s for s in SCALES if s > noise), noise):
        rate = optax.cosine_decay_schedule(3e-3, epochs * (len(data) // 128))
        prior = fit_vae(
            key, data, latent_size=1, decoder=decoder, encoder=encoder, scale=scale,
            max_epochs=epochs, patience=epochs, learning_rate=rate, show_progress=False,
        ).prior  # fmt: skip
        decoder, encoder = prior.net, prior.encoder
    return prior


# %%
def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="A flow, a VAE and a curve.")
    parser.add_argument(
        "--gap", type=float, default=np.pi / 2, help="gap in the circle, in radians"
    )
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--smoke", action="store_true", help="little data, few epochs")
    options = parser.parse_args(argv)
    key, number = jax.random.key(0), 300 if options.smoke else 4000
    epochs = 2 if options.smoke else 100
    noises = (0.1,) if options.smoke else (0.3, 0.1, 0.03, 0.01)

    conditions: list[float] = []
    flow: Any = None
    result: Any = None
    for noise in noises:
        data = curve(0, number, noise, options.gap)
        flow = fit_flow(key, data, max_epochs=epochs, show_progress=False).prior
        result = ngp.diagnostics.effective_dimension(flow, key, num_draws=64)
        conditions.append(result.condition_number)
        print(f"noise {noise:g}: the flow's condition number is {result.condition_number:.0f}")
    print(f"\nThe flow at the lowest noise:\n{result}")

    data = curve(0, number, noises[-1], options.gap)
    vae = train_vae(key, data, noises[-1], epochs)
    print(f"\nThe VAE:\n{ngp.diagnostics.effective_dimension(vae, key, num_draws=64)}\n")

    draws = {"data": data[:2000]}
    for name, prior in (("flow", flow), ("VAE", vae)):
        draws[name] = np.asarray(prior.sample(jax.random.key(1), (2000,)))
    widths = {name: width(points, options.gap) for name, points in draws.items()}
    for name, points in draws.items():
        distance, along = nearest(points, options.gap)
        tenths = np.histogram(along, bins=10, range=(0, 1))[0] / (0.1 * len(points))
        print(
            f"{name}: root mean square distance from the curve {widths[name]:.3f} (99 % are within "
            f"{np.quantile(distance, 0.99):.3f}); each tenth of the curve has between "
            f"{tenths.min():.2f} and {tenths.max():.2f} times its share of the points"
        )
    path = options.out / "manifold_limits.png"
    options.out.mkdir(parents=True, exist_ok=True)
    draw_figure(draws, widths, noises, conditions).savefig(path, dpi=120)
    print(f"Figure: {path}")
    return widths


def draw_figure(
    draws: dict[str, np.ndarray],
    widths: dict[str, float],
    noises: Sequence[float],
    conditions: list[float],
) -> Figure:
    """Data and draws, with their distance from the curve, and the flow's condition numbers."""
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
    for axes, (name, points) in zip(panels, draws.items(), strict=False):
        axes.plot(*np.asarray(points).T, ".", markersize=2, color="#1f5fa8")
        axes.set_title(f"{name}: rms distance {widths[name]:.3f}", fontsize=10)
        axes.set_aspect("equal")
        axes.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        axes.spines[["top", "right"]].set_visible(False)
    last = panels[-1]
    last.loglog(noises, conditions, "o-", color="#c8452c")
    last.set_xticks(noises, [f"{noise:g}" for noise in noises])
    last.set_xticks([], minor=True)
    last.invert_xaxis()
    last.spines[["top", "right"]].set_visible(False)
    last.set_title("the flow's condition number", fontsize=10)
    last.set_xlabel("noise in the data")
    return figure


if __name__ == "__main__":
    main()
