"""Train the priors that ship with the package, and write each with a card that describes it.

    python examples/train_pretrained.py --out pretrained              # all; MNIST from OpenML
    python examples/train_pretrained.py --data mnist_train10k.npz --only mnist_vae
    python examples/train_pretrained.py --smoke                       # seconds, untrained

Data, as float32 in [0, 1]:

- ``digits_*``: scikit-learn's 8×8 digits over 16. Rows ``default_rng(0).permutation(1797)``: the
  first 1500 train, the last 297 are held out.
- ``mnist_*``: the images of an npz file (key ``images``, 8-bit) or, without ``--data``, MNIST's
  60,000 training images from OpenML, over 255. Rows ``default_rng(0).permutation(n)``: the first
  nine tenths train, the last tenth is held out.

Held-out rows are used for the numbers on the card only. Early stopping has its own validation rows,
a tenth of the training rows.
"""

# %%
from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import numpyro_genprior as ngp
from numpyro_genprior.flows.architectures import AffineCouplingFlow, SplineCouplingFlow
from numpyro_genprior.networks.architectures import (
    ConvDecoder,
    ConvEncoder,
    MLPCritic,
    MLPDecoder,
    MLPEncoder,
)
from numpyro_genprior.train import FitResult, fit_flow, fit_gan, fit_vae, sample_coverage

# %% The data


@dataclass(frozen=True)
class Data:
    """Training and held-out events, with their source and licence."""

    train: np.ndarray
    held_out: np.ndarray
    source: str
    licence: str
    split: str


def split(images: np.ndarray, num_train: int, source: str, licence: str, smoke: bool) -> Data:
    order = np.random.default_rng(0).permutation(len(images))
    train, held_out = images[order[:num_train]], images[order[num_train:]]
    text = (
        f"rows `numpy.random.default_rng(0).permutation({len(images)})`: the first {len(train)} "
        f"for training (a tenth of them for early stopping), the last {len(held_out)} held out"
    )
    if smoke:
        train, held_out = train[:400], held_out[:100]
    return Data(train, held_out, source, licence, text)


def load_digits(smoke: bool) -> Data:
    from sklearn import datasets

    digits: Any = datasets.load_digits()
    images = (digits.images / 16.0).astype(np.float32)
    source = "The 1797 8×8 digits of `sklearn.datasets.load_digits`, pixels divided by 16"
    licence = (
        "CC BY 4.0 (E. Alpaydin & C. Kaynak, Optical Recognition of Handwritten Digits, "
        "UCI Machine Learning Repository, 1998, doi:10.24432/C50P49)"
    )
    return split(images, 1500, source, licence, smoke)


def load_mnist(path: Path | None, source: str | None, smoke: bool) -> Data:
    if path is not None:
        with np.load(path, allow_pickle=False) as file:
            images = file["images"]
        source = source or f"{len(images)} digits in {path.name}"
    else:
        from sklearn.datasets import fetch_openml

        table: Any = fetch_openml("mnist_784", version=1, as_frame=False, parser="liac-arff")
        images = table.data[:60000].reshape(-1, 28, 28)
        source = "the 60,000 training images of MNIST, OpenML data set mnist_784"
    source = f"{source}, pixels divided by 255"
    licence = "CC BY-SA 3.0 (Y. LeCun, C. Cortes, C. Burges, The MNIST database)"
    images = (images / 255.0).astype(np.float32)
    return split(images, len(images) * 9 // 10, source, licence, smoke)


def shift(key: jax.Array, image: jax.Array) -> jax.Array:
    """Move an image by at most one pixel along each axis (digits have an empty margin)."""
    rows, cols = jr.randint(key, (2,), -1, 2)
    return jnp.roll(image, (rows, cols), (0, 1))


def jitter(scale: float) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return lambda key, x: x + scale * jr.normal(key, x.shape)


# %% Training


@dataclass(frozen=True)
class Trained:
    """A prior, and the text of its card on architecture, training and fit."""

    prior: Any  # of any family
    architecture: str
    training: str
    fit: dict[str, str]
    kept: ngp.Prior | None = None  # the part of the prior that the file holds, if not all of it


def epochs(smoke: bool, batch_size: int, max_epochs: int, patience: int) -> dict[str, Any]:
    if smoke:
        return {"batch_size": 64, "max_epochs": 1, "patience": 1}
    return {"batch_size": batch_size, "max_epochs": max_epochs, "patience": patience}


def cosine(rows: int, setting: dict[str, Any], start: float) -> optax.Schedule:
    """A step size that decreases to a fiftieth by the last epoch."""
    steps = max(1, int(0.9 * rows) // setting["batch_size"]) * setting["max_epochs"]
    return optax.cosine_decay_schedule(start, steps, 0.02)


def history(result: FitResult, name: str, note: str = "") -> str:
    index = result.best_epoch - 1
    losses = ", ".join(f"{k} {v[index]:.2f}" for k, v in result.losses.items())
    return (
        f"`numpyro_genprior.train.{name}`{note}, {len(result.losses['train'])} epochs, stopped by "
        f"{result.stopped}, weights of epoch {result.best_epoch} kept "
        f"(losses at that epoch: {losses})"
    )


def vae_fit(prior: Any, data: Data) -> dict[str, str]:
    x = jnp.asarray(data.held_out)
    bound = jax.jit(prior.log_prob_bound, static_argnums=2)
    elbo = jnp.stack([bound(jr.key(i), x, 1).mean() for i in range(10)]).mean()
    parts = jnp.split(x, list(range(250, len(x), 250)))  # memory holds 100 draws of each image
    weighted = jnp.concatenate([bound(jr.key(10), part, 100) for part in parts]).mean()
    loc, _ = jax.vmap(prior.encoder)(x)
    mse = jnp.mean((prior.decode(loc) - x) ** 2)
    samples = prior.noiseless().sample(jr.key(11), (len(x),))
    coverage = sample_coverage(samples, x)
    return {
        "held-out evidence lower bound": f"{elbo:.1f} nats per image",
        "held-out importance-weighted bound, 100 draws": f"{weighted:.1f} nats per image",
        "held-out reconstruction error": f"{mse:.5f} (mean square per pixel, "
        "at the encoder's mean)",
        "decoder noise": f"{float(prior.scale):.4f} (learnt standard deviation)",
        **{f"{k} of held-out images": f"{v:.2f}" for k, v in coverage.items()},
    }


def exact_fit(prior: ngp.Prior, data: Data, scale: float = 0.0) -> dict[str, str]:
    x = data.held_out + scale * np.random.default_rng(1).normal(size=data.held_out.shape)
    log_prob = jax.jit(prior.log_prob)(jnp.asarray(x, jnp.float32)).mean()
    noise = f", with noise of sd {scale} added as in training" if scale else ""
    return {"held-out log density": f"{log_prob:.1f} nats per image{noise}"}


def train_vae(
    key: jax.Array, data: Data, setting: dict[str, Any], nets: tuple[Any, Any], **kwargs: Any
) -> FitResult:
    decoder, encoder = nets
    rate = cosine(len(data.train), setting, 1e-3)
    settings = {"decoder": decoder, "encoder": encoder, "learning_rate": rate, **setting, **kwargs}
    return fit_vae(key, data.train, latent_size=decoder.latent_size, **settings)


# With beta = 1 the encoder leaves holes in the standard normal, and samples from the holes are not
# digits: coverage of held-out images is 0.62, although the reconstruction error is only 0.0063.
BETA = 2.0


def mnist_vae(key: jax.Array, data: Data, smoke: bool) -> Trained:
    keys = jr.split(key, 3)
    nets = (MLPDecoder(20, (28, 28), key=keys[0]), MLPEncoder((28, 28), 20, key=keys[1]))
    result = train_vae(keys[2], data, epochs(smoke, 128, 120, 25), nets, beta=BETA, augment=shift)
    return Trained(
        result.prior,
        "decoder 20-500-500-784, relu, sigmoid output; encoder 784-500-500-20 (loc, scale); "
        "Gaussian noise of one learnt scale",
        history(result, "fit_vae", f", beta {BETA:g}, images shifted by up to one pixel"),
        vae_fit(result.prior, data),
    )


def mnist_conv_vae(key: jax.Array, data: Data, smoke: bool) -> Trained:
    keys = jr.split(key, 3)
    nets = (
        ConvDecoder(16, (28, 28), channels=(32, 16), hidden=(128,), key=keys[0]),
        ConvEncoder((28, 28), 16, channels=(16, 32), hidden=(128,), key=keys[1]),
    )
    result = train_vae(keys[2], data, epochs(smoke, 128, 100, 25), nets, beta=BETA, augment=shift)
    return Trained(
        result.prior,
        "decoder 16-128-7×7×32, transposed convolutions (kernel 4, stride 2) to 14×14×16 and "
        "28×28, relu, sigmoid output; encoder its mirror image; Gaussian noise of one learnt scale",
        history(result, "fit_vae", f", beta {BETA:g}, images shifted by up to one pixel"),
        vae_fit(result.prior, data),
    )


def train_gan(
    key: jax.Array, data: Data, setting: dict[str, Any], nets: tuple[Any, Any], rate: float
) -> FitResult:
    generator, critic = nets
    settings = {"generator": generator, "critic": critic, "learning_rate": rate, **setting}
    return fit_gan(key, data.train, latent_size=generator.latent_size, **settings)


def gan_fit(prior: ngp.Prior, data: Data) -> dict[str, str]:
    samples = prior.sample(jr.key(11), (len(data.held_out),))
    coverage = sample_coverage(samples, data.held_out)
    return {f"{k} of held-out images": f"{v:.2f}" for k, v in coverage.items()}


def mnist_gan(key: jax.Array, data: Data, smoke: bool) -> Trained:
    keys = jr.split(key, 3)
    nets = (
        MLPDecoder(32, (28, 28), hidden=(256, 512), key=keys[0]),
        MLPCritic((28, 28), hidden=(512, 256), key=keys[1]),
    )
    result = train_gan(keys[2], data, epochs(smoke, 64, 120, 120), nets, 4e-4)
    return Trained(
        result.prior,
        "generator 32-256-512-784, relu, sigmoid output (critic 784-512-256-1, silu, not shipped)",
        history(result, "fit_gan"),
        gan_fit(result.prior, data),
    )


# NUTS samples the flow's base, and takes longer steps if the flow is smoother. Six spline layers
# reached the same held-out bound, but needed three to four times as many steps, each four times as
# slow.
WEIGHT_DECAY = 1.0


def mnist_flow(key: jax.Array, data: Data, smoke: bool, vae: Any) -> Trained:
    loc, scale = jax.jit(jax.vmap(vae.encoder))(jnp.asarray(data.train))
    size = loc.shape[1]
    flow_key, fit_key = jr.split(key)
    flow = AffineCouplingFlow(
        size,
        layers=4,
        bound=0.5,
        width=64,
        depth=2,
        loc=loc.mean(0),
        scale=jnp.sqrt(loc.var(0) + jnp.mean(scale**2, 0)),
        key=flow_key,
    )
    setting = epochs(smoke, 256, 120, 15)
    rate = cosine(len(loc), setting, 2e-3)
    result = fit_flow(
        fit_key,
        jnp.concatenate([loc, scale], axis=1),
        flow=flow,
        augment=lambda key, row: row[:size] + row[size:] * jr.normal(key, (size,)),
        optimizer=optax.adamw(rate, weight_decay=WEIGHT_DECAY),
        **setting,
    )
    prior = ngp.VAEPrior(vae.net, result.prior, scale=vae.scale, encoder=vae.encoder)
    return Trained(
        prior,
        "the decoder and encoder of mnist_vae; the distribution of the 20 latents is a flow of "
        "four affine coupling layers (log scales bounded by 0.5, conditioners 10-64-64-20, silu) "
        "over a standard normal",
        history(
            result,
            "fit_flow",
            f" on draws from the encoder at the training images, AdamW, decay {WEIGHT_DECAY:g}",
        ),
        vae_fit(prior, data),
        kept=result.prior,  # everything else is in mnist_vae's file
    )


def gaussian(data: Data, rank: int) -> Trained:
    prior = ngp.GaussianPrior.from_samples(data.train, rank=rank)
    return Trained(
        prior,
        f"normal of rank {rank} plus a diagonal",
        "`numpyro_genprior.GaussianPrior.from_samples` on the training rows",
        exact_fit(prior, data),
    )


def mnist_gaussian(key: jax.Array, data: Data, smoke: bool) -> Trained:
    return gaussian(data, 50)


def digits_vae(key: jax.Array, data: Data, smoke: bool) -> Trained:
    keys = jr.split(key, 3)
    nets = (
        MLPDecoder(12, (8, 8), hidden=(128, 128), activation="silu", key=keys[0]),
        MLPEncoder((8, 8), 12, hidden=(128, 128), activation="silu", key=keys[1]),
    )
    result = train_vae(keys[2], data, epochs(smoke, 64, 400, 60), nets)
    return Trained(
        result.prior,
        "decoder 12-128-128-64, silu, sigmoid output; encoder 64-128-128-12 (loc, scale); "
        "Gaussian noise of one learnt scale",
        history(result, "fit_vae"),
        vae_fit(result.prior, data),
    )


def digits_gan(key: jax.Array, data: Data, smoke: bool) -> Trained:
    keys = jr.split(key, 3)
    nets = (
        MLPDecoder(16, (8, 8), hidden=(128, 256), key=keys[0]),
        MLPCritic((8, 8), hidden=(256, 128), key=keys[1]),
    )
    result = train_gan(keys[2], data, epochs(smoke, 64, 600, 600), nets, 4e-4)
    return Trained(
        result.prior,
        "generator 16-128-256-64, relu, sigmoid output (critic 64-256-128-1, silu, not shipped)",
        history(result, "fit_gan"),
        gan_fit(result.prior, data),
    )


def digits_flow(key: jax.Array, data: Data, smoke: bool) -> Trained:
    noise = 0.05
    flow_key, fit_key = jr.split(key)
    flow = SplineCouplingFlow(
        (8, 8),
        layers=6,
        knots=8,
        width=64,
        loc=data.train.mean(0),
        scale=np.sqrt(data.train.var(0) + noise**2),
        key=flow_key,
    )
    setting = epochs(smoke, 64, 200, 20)
    result = fit_flow(
        fit_key,
        data.train,
        flow=flow,
        augment=jitter(noise),
        learning_rate=cosine(len(data.train), setting, 1e-3),
        **setting,
    )
    return Trained(
        result.prior,
        "six rational-quadratic spline coupling layers (8 knots, conditioners of width 64) over "
        f"a standard normal, on the pixels; the distribution of images with noise of sd "
        f"{noise} added, without which pixels that are always 0 have no density",
        history(result, "fit_flow"),
        exact_fit(result.prior, data, noise),
    )


def digits_gaussian(key: jax.Array, data: Data, smoke: bool) -> Trained:
    return gaussian(data, 20)


RECIPES: dict[str, Callable[..., Trained]] = {
    "digits_vae": digits_vae,
    "digits_gan": digits_gan,
    "digits_flow": digits_flow,
    "digits_gaussian": digits_gaussian,
    "mnist_vae": mnist_vae,
    "mnist_conv_vae": mnist_conv_vae,
    "mnist_gan": mnist_gan,
    "mnist_flow": mnist_flow,
    "mnist_gaussian": mnist_gaussian,
}

# %% Cards and pictures


def card(name: str, trained: Trained, data: Data, command: str) -> str:
    prior = trained.prior
    lines = [
        f"# {name}",
        "",
        f"`{type(prior).__name__}`, events {prior.event_shape}, latents "
        f"{prior.latent.event_shape}, density: {prior.density}.",
        "",
        f"- **Data.** {data.source}.",
        f"- **Licence of the data.** {data.licence}.",
        f"- **Split.** {data.split}.",
        f"- **Architecture.** {trained.architecture}.",
        f"- **Training.** {trained.training}.",
        f"- **Command.** `{command}`",
        "",
        "| held-out fit | |",
        "|---|---|",
        *(f"| {k} | {v} |" for k, v in trained.fit.items()),
        "",
    ]
    return "\n".join(lines)


def save_picture(path: Path, images: np.ndarray, columns: int = 10) -> None:
    import matplotlib.image

    images = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=0.3)
    rows, cols = images.shape[1:]
    tiles = images.reshape(-1, columns, rows, cols).transpose(0, 2, 1, 3)
    matplotlib.image.imsave(path, tiles.reshape(-1, columns * cols), cmap="gray", vmin=0, vmax=1)


# %%
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="npz file with 28×28 digits under `images`")
    parser.add_argument("--source", help="source of the images in --data, for the card")
    parser.add_argument("--only", choices=RECIPES, help="train this one only")
    parser.add_argument("--out", type=Path, default=Path("pretrained"), help="folder to write to")
    parser.add_argument("--smoke", action="store_true", help="one epoch on a few rows")
    args = parser.parse_args(argv)
    names = [args.only] if args.only else list(RECIPES)
    if args.smoke:
        args.out = Path(tempfile.mkdtemp())
        if args.data is None and not args.only:
            names = [name for name in names if name.startswith("digits")]
    args.out.mkdir(parents=True, exist_ok=True)

    cache: dict[str, Data] = {}
    for name in names:
        family = name.split("_")[0]
        if family not in cache:
            cache[family] = (
                load_digits(args.smoke)
                if family == "digits"
                else load_mnist(args.data, args.source, args.smoke)
            )
        data = cache[family]
        key = jr.fold_in(jr.key(0), list(RECIPES).index(name))
        options = {}
        if name == "mnist_flow":
            options["vae"] = ngp.load(args.out / "mnist_vae.safetensors")
        trained = RECIPES[name](key, data, args.smoke, **options)
        path = args.out / f"{name}.safetensors"
        ngp.save(path, trained.prior if trained.kept is None else trained.kept)
        option = " --data mnist_train10k.npz" if args.data and family == "mnist" else ""
        command = f"python examples/train_pretrained.py --only {name}{option}"
        text = card(name, trained, data, command)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        noiseless = getattr(trained.prior, "noiseless", lambda prior=trained.prior: prior)()
        save_picture(path.with_suffix(".png"), np.asarray(noiseless.sample(jr.key(1), (100,))))
        print(text)


if __name__ == "__main__":
    main()
