"""Real digits from a hundred random projections: what a generator cannot represent is model error.

    python examples/representation_error.py            # a minute on one core
    python examples/representation_error.py --smoke    # one digit

No image in the range of the prior equals the digit. If the likelihood has the instrument's noise
alone, the posterior treats the difference as signal: it is narrow and wrong. `MarginalNormal`
accounts for both errors, and its draws of the event cover the truth. Posteriors are Laplace
approximations at the best of several modes. Prints the coverage and writes a figure.
"""

# %%
from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_genprior as ngp

DIGITS = Path(__file__).parent / "data" / "digits.npz"  # held-out rows of MNIST, one of each class
NOISE = 0.01  # standard deviation of a projection; pixels range from 0 to 1
STARTS, DRAWS = 8, 500
LEVELS = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])


# %% Two models that differ in one line.
@ngp.latent(noise="omit")
def literal(
    prior: ngp.Prior, A: ngp.operators.Operator, scale: jax.Array, y: jax.Array | None = None
) -> None:
    """The instrument's noise alone."""
    x: Any = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(A(x), NOISE).to_event(1), obs=y)


@ngp.latent(noise="omit")
def marginal(
    prior: ngp.Prior, A: ngp.operators.Operator, scale: jax.Array, y: jax.Array | None = None
) -> None:
    """Noise of the instrument, and the error of the generator."""
    x: Any = numpyro.sample("x", prior)
    likelihood = ngp.operators.MarginalNormal(A, x, event_scale=scale, noise_scale=NOISE)
    numpyro.sample("y", likelihood, obs=y)


def sample(model: Callable[..., None], key: jax.Array, *args: Any) -> jax.Array:
    """Images of the generator, drawn from the Laplace approximation at the best mode."""
    map_key, draw_key = jax.random.split(key)
    estimate = ngp.infer.find_map(model, map_key, *args, num_starts=STARTS, progress_bar=False)
    guide = ngp.infer.AutoFisherLaplace.from_map(estimate)
    latents = guide.sample_posterior(draw_key, sample_shape=(DRAWS,))["x_latent"]
    return args[0].decode(latents)


def covered(draws: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, float]:
    """Fraction of all pixels in central intervals of each level; of the stroke's pixels at 90 %."""
    inside = []
    for level in (*LEVELS, 0.9):
        low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2], axis=0)
        inside.append((truth >= low) & (truth <= high))
    return np.mean(inside[:-1], axis=(1, 2)), float(np.mean(inside[-1][truth > 0.1]))


def draw_figure(
    truth: np.ndarray,
    draws: dict[str, np.ndarray],
    coverage: dict[str, list[np.ndarray]],
    path: Path,
) -> None:
    """Truth, mean, standard deviation and error of the last digit, and the coverage over all."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(10, 5), layout="constrained")
    for row, (name, events) in zip(axes, draws.items(), strict=True):
        spread = events.std(0)
        error = np.abs(events.mean(0) - truth)
        panels = (("mean", events.mean(0), 1.0), ("sd", spread, 0.3), ("|error|", error, 0.3))
        for ax, (what, image, top) in zip(row[1:], panels, strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=top)
            ax.set_title(f"{name}: {what}", fontsize=10)
            ax.set_axis_off()
    axes[0, 0].imshow(truth, cmap="gray", vmin=0, vmax=1)
    axes[0, 0].set_title("truth", fontsize=10)
    axes[0, 0].set_axis_off()
    ax = axes[1, 0]
    ax.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, values in coverage.items():
        ax.plot(LEVELS, np.mean(values, axis=0), marker=".", label=name)
    ax.set(xlabel="level of the interval", ylabel="pixels inside", xlim=(0, 1), ylim=(0, 1))
    ax.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--digits", type=int, default=5, help="number of digits to reconstruct, up to 5"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--smoke", action="store_true", help="one digit, few starts")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    number = 1 if options.smoke else options.digits

    prior = ngp.pretrained.load("mnist_vae")
    images = np.load(DIGITS)["images"].astype(np.float32) / 255
    rng = np.random.default_rng(options.seed)
    A = ngp.operators.Dense(rng.normal(size=(100, 784)) / 28, event_shape=(28, 28))
    keys = jax.random.split(jax.random.key(options.seed), 3)

    # The error of the generator, estimated on digits other than those to be reconstructed.
    tau = ngp.diagnostics.estimate_event_scale(
        prior, keys[0], images[5 : 7 if options.smoke else 10], num_starts=1 if options.smoke else 2
    )
    print(tau)
    scale = jnp.asarray(tau)

    models = {"literal": literal, "marginal": marginal}
    coverage: dict[str, list[np.ndarray]] = {name: [] for name in models}
    stroke: dict[str, list[float]] = {name: [] for name in models}
    draws: dict[str, np.ndarray] = {}
    for digit in range(number):
        noise = NOISE * rng.normal(size=A.data_shape)
        y = jnp.asarray(np.asarray(A(images[digit])) + noise, jnp.float32)
        if not digit and not options.smoke:
            print(f"\n{ngp.diagnostics.adequacy(literal, keys[1], prior, A, scale, y)}\n")
        for name, model in models.items():
            events = sample(model, jax.random.fold_in(keys[2], digit), prior, A, scale, y)
            if name == "marginal":
                # Draw the event itself, given the generator's image and the data.
                likelihood = ngp.operators.MarginalNormal(
                    A, events, event_scale=scale, noise_scale=NOISE
                )
                events = likelihood.sample_event(jax.random.fold_in(keys[1], digit), y)
            draws[name] = np.asarray(events)
            levels, stroke_share = covered(draws[name], images[digit])
            coverage[name].append(levels)
            stroke[name].append(stroke_share)
            error = np.sqrt(np.mean((draws[name].mean(0) - images[digit]) ** 2))
            print(
                f"digit {digit}, {name}: 90 % intervals contain {levels[8]:.0%} of all pixels and "
                f"{stroke_share:.0%} of the stroke's; rms error {error:.3f}"
            )

    path = options.out / "representation_error.png"
    draw_figure(images[number - 1], draws, coverage, path)
    result = {name: float(np.mean(values, axis=0)[8]) for name, values in coverage.items()}
    stroke_share = {name: float(np.mean(values)) for name, values in stroke.items()}
    print(
        f"90 % intervals contain {result['literal']:.0%} of all pixels with the instrument's noise "
        f"alone and {result['marginal']:.0%} with MarginalNormal; of the stroke's pixels, "
        f"{stroke_share['literal']:.0%} and {stroke_share['marginal']:.0%}. Figure: {path}"
    )
    return result


if __name__ == "__main__":
    main()
