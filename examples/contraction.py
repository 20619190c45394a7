"""How fast does a posterior shrink to the truth? A smooth prior, and a flow whose map is not.

    python examples/contraction.py                  # a minute on one core
    python examples/contraction.py --out results

A curve on [0, 1] is observed through a smoothing operator, with less and less noise. There are two
priors: a Gaussian series of smoothness α, and a coupling flow, which is the same series except that
a ReLU network of the four coarsest coefficients shifts the finer ones. The flow is invertible and
Lipschitz, but its shifts decay slowly, so it maps smooth latents to rough curves. Both priors have
an exact density and full support. The truth is smooth: to produce it, the flow's latents must
cancel the shifts, which is improbable under its base distribution. So the flow contracts more
slowly, as theory predicts.

Prints the rates of both priors and writes a figure.
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
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

import numpyro_genprior as ngp

ALPHA, BETA = 2.0, 4.0  # smoothness of the priors, and of the truth
GAMMA = 0.5  # smoothness of the shifts; with 2, the flow contracts at the rate of the series
P = 0.5  # smoothing by the operator: its singular values are i^-p
COARSE, HIDDEN = 4, 16  # number of coarse coefficients, width of the network


# %% The map, as a NumPyro transform
class Curve(Transform):
    """From white noise to a curve on a grid of [0, 1], given by its cosine coefficients.

    Coefficients have standard deviations ``scale``; a ReLU network of the coarse ones, with
    weights ``inner`` and ``outer``, shifts the fine ones.
    """

    domain: Any = constraints.real_vector
    codomain: Any = constraints.real_vector

    def __init__(
        self, scale: jax.Array, inner: jax.Array, outer: jax.Array, basis: jax.Array
    ) -> None:
        self.scale, self.inner, self.outer, self.basis = scale, inner, outer, basis

    def shift(self, coefficients: jax.Array) -> jax.Array:
        fine = jax.nn.relu(coefficients[..., :COARSE] @ self.inner) @ self.outer
        return jnp.concatenate([jnp.zeros_like(coefficients[..., :COARSE]), fine], axis=-1)

    def __call__(self, x: jax.Array) -> jax.Array:
        white = self.scale * x
        return (white + self.shift(white)) @ self.basis

    def _inverse(self, y: jax.Array) -> jax.Array:
        coefficients = jnp.linalg.solve(self.basis.T, y[..., None])[..., 0]
        return (coefficients - self.shift(coefficients)) / self.scale

    def log_abs_det_jacobian(
        self, x: jax.Array, y: jax.Array, intermediates: object = None
    ) -> jax.Array:
        log_det = jnp.sum(jnp.log(self.scale)) + jnp.linalg.slogdet(self.basis)[1]
        return jnp.broadcast_to(log_det, jnp.shape(x)[:-1])

    def tree_flatten(self) -> Any:
        names = ("scale", "inner", "outer", "basis")
        return tuple(getattr(self, name) for name in names), (names, {})


def cosines(size: int) -> np.ndarray:
    """Cosines on a grid, one in each row, with a mean square of 1."""
    grid = (np.arange(size) + 0.5) / size
    rows = np.sqrt(2) * np.cos(np.pi * np.outer(np.arange(size), grid))
    rows[0] = 1
    return rows


def make_priors(size: int) -> dict[str, ngp.Prior]:
    """The Gaussian series, which has no shifts, and the flow."""
    number = 1.0 + np.arange(size)
    scale, basis = jnp.asarray(number ** (-0.5 - ALPHA)), jnp.asarray(cosines(size))
    rng = np.random.default_rng(0)
    inner = jnp.asarray(rng.normal(size=(COARSE, HIDDEN)))
    outer = rng.normal(size=(HIDDEN, size - COARSE)) / np.sqrt(HIDDEN)
    outer = jnp.asarray(outer * number[COARSE:] ** (-0.5 - GAMMA))
    return {
        "Gaussian series": ngp.FlowPrior(Curve(scale, inner, 0 * outer, basis), latent=size),
        "coupling flow": ngp.FlowPrior(Curve(scale, inner, outer, basis), latent=size),
    }


# %% The model
@ngp.latent(explicit=True)
def model(
    prior: ngp.Prior, operator: jax.Array, y: jax.Array | None = None, *, noise: ArrayLike
) -> None:
    """Noisy coefficients of the curve, with the high frequencies damped."""
    curve: Any = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(operator @ curve, noise).to_event(1), obs=y)


# %%
def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the schedule of noise levels under both priors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the figure")
    parser.add_argument("--smoke", action="store_true", help="small and quick")
    options = parser.parse_args(argv)

    size, replications = (24, 16) if options.smoke else (64, 48)
    noises = [0.03, 0.003] if options.smoke else [0.1, 0.03, 0.01, 0.003, 0.001]
    number = 1.0 + np.arange(size)
    basis = cosines(size)
    operator = jnp.asarray(number[:, None] ** -P * basis / size)  # damps the fine coefficients
    signs = np.where(number % 3 == 1, 1.0, -1.0)
    truth = jnp.asarray((signs * number ** (-0.5 - BETA)) @ basis)

    results = {}
    for name, prior in make_priors(size).items():
        results[name] = ngp.diagnostics.contraction(
            model,
            jax.random.key(0),
            prior,
            operator,
            jnp.zeros(size),
            schedule={"noise": noises},
            truth={"x": truth},
            num_replications=replications,
        )
        print(f"\n{name}\n{results[name]}")
    theory = 2 * min(ALPHA, BETA) / (1 + 2 * ALPHA + 2 * P)
    slow = theory * min(GAMMA, ALPHA) / ALPHA
    print(
        f"\nTheory, in the limit: noise^{theory:.2f} for the series, noise^{slow:.2f} for the flow"
    )
    print(results["coupling flow"].compare(results["Gaussian series"]))
    exponents = {"Gaussian series": theory, "coupling flow": slow}
    draw_figure(results, exponents, options.out / "contraction.png")
    return results


def draw_figure(results: dict[str, Any], theory: dict[str, float], path: Path) -> None:
    """Radius against noise for each prior, with the slopes that theory predicts."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ax: Any = ngp.plots.contraction(results, theory=theory)
    figure = ax.figure
    ax.set_xlabel("standard deviation of the noise")
    ax.set_ylabel("rms distance of draws from the truth")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
