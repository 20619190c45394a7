"""A convolutional decoder inside loops on CPU: our prior and the same model written by hand.

Times one gradient of the log density outside a loop and inside ``fori_loop`` and ``while_loop``,
for one chain and four, then whole NUTS runs from one seed. Prints ratios:

    python benchmarks/convolution.py
    python benchmarks/convolution.py --weights decoder.npz
    python benchmarks/convolution.py --resampling

The decoder maps 10 latents to an image of 32×32 by three dense layers and three transposed
convolutions in PyTorch's layout (Burgess et al. 2018). Its weights are random, unless a file gives
``decoder.lin1.weight`` to ``decoder.convT3.bias``. The pretrained ``mnist_conv_vae`` computes its
convolutions as matrix products, so its ratios are those of a network that is left unchanged.
``--resampling`` compares these matrix products with the same convolutions by ``lax``,
channels-last.
"""

# %%
from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax
from measure import run_seconds, transitions
from numpyro.infer import NUTS, init_to_value
from numpyro.infer.util import log_density

import numpyro_genprior as ngp
from numpyro_genprior.networks.architectures import ConvDecoder

SHAPES = {
    "lin1": ((256, 10), 256),
    "lin2": ((256, 256), 256),
    "lin3": ((512, 256), 512),
    "convT1": ((32, 32, 4, 4), 32),
    "convT2": ((32, 32, 4, 4), 32),
    "convT3": ((32, 1, 4, 4), 1),
}
NOISE = 0.2


# %%
def random_weights(key: jax.Array) -> dict[str, jax.Array]:
    weights = {}
    for (name, (shape, size)), k in zip(SHAPES.items(), jax.random.split(key, 6), strict=True):
        # In a transposed convolution of stride 2, 4 of the 16 taps reach each output.
        fan_in = shape[1] if name.startswith("lin") else 4 * shape[0]
        weights[f"decoder.{name}.weight"] = jax.random.normal(k, shape) * (2.0 / fan_in) ** 0.5
        weights[f"decoder.{name}.bias"] = jnp.zeros(size)
    return weights


def stored_weights(path: str) -> dict[str, jax.Array]:
    with np.load(path, allow_pickle=False) as file:
        return {name: jnp.asarray(file[name]) for name in file if name.startswith("decoder.")}


def transposed_convolution(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    """PyTorch's ``ConvTranspose2d(kernel_size=4, stride=2, padding=1)`` of one image."""
    kernel = jnp.flip(weight, (2, 3)).transpose(1, 0, 2, 3)
    padding = ((2, 2), (2, 2))
    y = lax.conv_general_dilated(x[None], kernel, (1, 1), padding, lhs_dilation=(2, 2))[0]
    return y + bias[:, None, None]


def decoder(weights: dict[str, jax.Array], z: jax.Array) -> jax.Array:
    def parameters(name: str) -> tuple[jax.Array, jax.Array]:
        return weights[f"decoder.{name}.weight"], weights[f"decoder.{name}.bias"]

    x = z
    for name in ("lin1", "lin2", "lin3"):
        weight, bias = parameters(name)
        x = jax.nn.relu(weight @ x + bias)
    x = x.reshape(32, 4, 4)
    for name in ("convT1", "convT2"):
        x = jax.nn.relu(transposed_convolution(x, *parameters(name)))
    return jax.nn.sigmoid(transposed_convolution(x, *parameters("convT3")))


# %%
def by_hand(net: Any, start: jax.Array, y: jax.Array) -> None:
    z = numpyro.sample("x_latent", dist.Normal(jnp.zeros_like(start), 1).to_event(1))
    x = numpyro.deterministic("x", net(z))
    numpyro.sample("y", dist.Normal(x, NOISE).to_event(y.ndim), obs=y)


@partial(ngp.latent, noise="omit")
def with_prior(prior: Any, start: jax.Array, y: jax.Array) -> None:
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, NOISE).to_event(y.ndim), obs=y)


def gradient(model: Any, chains: int) -> Any:
    def density(z: jax.Array, net: Any, y: jax.Array) -> Any:
        return log_density(model, (net, z, y), {}, {"x_latent": z})[0]

    one = jax.grad(density)
    return jax.vmap(one, (0, None, None)) if chains > 1 else one


def in_fori(gradient: Any, steps: int) -> Any:
    def loop(z: jax.Array, net: Any, y: jax.Array) -> jax.Array:
        return lax.fori_loop(0, steps, lambda _, z: z + 1e-6 * gradient(z, net, y), z)

    return loop


def in_while(gradient: Any, steps: int) -> Any:
    """A loop whose length depends on its state, like the trees of NUTS."""

    def loop(z: jax.Array, net: Any, y: jax.Array) -> jax.Array:
        def step(state: tuple[Any, Any]) -> tuple[Any, Any]:
            z, remaining = state
            z = z + 1e-6 * gradient(z, net, y)
            return z, remaining - jnp.where(jnp.isfinite(z).all(), 1, 2)

        return lax.while_loop(lambda state: state[1] > 0, step, (z, jnp.asarray(steps)))[0]

    return loop


def show_gradients(net: Any, prior: Any, size: int, y: jax.Array, *, smoke: bool) -> None:
    steps = 2 if smoke else 50
    for chains in (1, 4):
        z = jax.random.normal(jax.random.key(1), (chains, size) if chains > 1 else (size,))

        def seconds(make: Any, model: Any, weights: Any, chains: int = chains, z: Any = z) -> float:
            function = make(gradient(model, chains))
            return run_seconds(jax.jit(function), z, weights, y, batches=2 if smoke else 9)

        outside = seconds(lambda f: f, by_hand, net)
        print(f"  {chains} chain(s), gradient outside a loop: {outside * 1e6:.0f} µs")
        for name, loop in (("fori_loop", in_fori), ("while_loop", in_while)):
            make = partial(loop, steps=steps)
            hand = seconds(make, by_hand, net) / steps
            ours = seconds(make, with_prior, prior) / steps
            print(
                f"    in {name:<10}  ours / outside {ours / outside:5.2f}"
                f"  by hand / outside {hand / outside:5.2f}  by hand / ours {hand / ours:5.2f}"
            )


def show_nuts(net: Any, prior: Any, size: int, y: jax.Array, *, smoke: bool) -> None:
    """As many draws as warm-up steps, with the same seed and start; chains differ by rounding."""
    draws = 5 if smoke else 500
    seconds, compiling, steps = {}, {}, {}
    for name, model, weights in (("hand", by_hand, net), ("ours", with_prior, prior)):
        arguments, start = (weights, jnp.zeros(size), y), time.perf_counter()
        kernel = NUTS(model, init_strategy=init_to_value(values={"x_latent": jnp.zeros(size)}))
        initial_state = kernel.init(jax.random.key(2), draws, None, arguments, {})
        run = transitions(kernel, 2 * draws)
        jax.block_until_ready(run(initial_state, arguments))
        compiling[name] = time.perf_counter() - start
        seconds[name] = float("inf")
        for _ in range(1 if smoke else 3):
            start = time.perf_counter()
            _, (_, num_steps) = jax.block_until_ready(run(initial_state, arguments))
            seconds[name] = min(seconds[name], time.perf_counter() - start)
        steps[name] = int(num_steps.sum())
    each = {name: seconds[name] / steps[name] for name in steps}
    print(
        f"  NUTS, {draws} + {draws}: by hand / ours {seconds['hand'] / seconds['ours']:5.2f}, "
        f"per step {each['hand'] / each['ours']:5.2f}, "
        f"with compilation {compiling['hand'] / compiling['ours']:5.2f}  "
        f"| ours {seconds['ours']:.2f} s, {steps['ours']} steps, "
        f"by hand {seconds['hand']:.2f} s, {steps['hand']} steps"
    )


def by_convolutions(net: ConvDecoder, z: jax.Array) -> jax.Array:
    """`ConvDecoder` with ``lax`` convolutions in place of its matrix products."""
    stages = len(net.channels)
    x = net.dense(z)
    x = x.reshape(net.event_shape[0] >> stages, net.event_shape[1] >> stages, -1)
    for block in net.blocks:
        kernel = jnp.flip(block.weight, (1, 2)).transpose(1, 2, 0, 3)
        x = lax.conv_general_dilated(
            jax.nn.relu(x)[None],
            kernel,
            (1, 1),
            ((2, 2), (2, 2)),
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )[0]
        x = x + block.bias
    return jax.nn.sigmoid(x).reshape(net.event_shape)


def show_resampling(*, smoke: bool) -> None:
    """Gradient of a squared norm with respect to the latent, in milliseconds."""
    decoder = ConvDecoder(20, (28, 28), key=jax.random.key(0))
    convolutions: Any = jax.tree_util.Partial(by_convolutions, decoder)
    nets = {"matrix products": decoder, "channels-last": convolutions, "as written": convolutions}
    steps = 2 if smoke else 20
    for chains in (1, 4, 32):
        z = jax.random.normal(jax.random.key(1), (chains, 20) if chains > 1 else (20,))
        for name, net in nets.items():
            with ngp.networks.channels_last(name == "channels-last"):
                one = jax.grad(lambda z, net, y: ((net(z) - y) ** 2).sum())
                each = jax.vmap(one, (0, None, None)) if chains > 1 else one
                arguments = (z, ngp.networks.Frozen(net), jnp.zeros((28, 28)))
                batches = 2 if smoke else 9
                outside = run_seconds(jax.jit(each), *arguments, batches=batches)
                inside = run_seconds(jax.jit(in_while(each, steps)), *arguments, batches=batches)
            print(
                f"{chains:2} chain(s), {name:<15}  outside {outside * 1e3:7.2f} ms"
                f"  in while_loop {inside / steps * 1e3:7.2f} ms"
            )


# %%
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", help="an .npz file with the weights of the decoder")
    parser.add_argument("--smoke", action="store_true", help="few steps, one try")
    parser.add_argument("--resampling", action="store_true", help="matrix products or lax.conv")
    options = parser.parse_args(argv)
    if options.resampling:
        show_resampling(smoke=options.smoke)
        return
    key = jax.random.key(0)
    weights = stored_weights(options.weights) if options.weights else random_weights(key)
    net: Any = jax.tree_util.Partial(decoder, weights)
    shipped: Any = ngp.pretrained.load("mnist_conv_vae")
    cases = {
        "three transposed convolutions": (net, ngp.VAEPrior(net, 10, scale=NOISE)),
        "mnist_conv_vae": (shipped.net, shipped),
    }
    for name, (network, prior) in cases.items():
        size = prior.latent.event_shape[0]
        truth = jax.random.normal(jax.random.key(3), (size,))
        y = network(truth)
        y = y + NOISE * jax.random.normal(jax.random.key(4), y.shape)
        print(f"{name}: {size} latents to {y.shape}")
        show_gradients(network, prior, size, y, smoke=options.smoke)
        show_nuts(network, prior, size, y, smoke=options.smoke)


if __name__ == "__main__":
    main()
