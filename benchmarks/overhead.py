"""The cost of `numpyro.sample("x", prior)` relative to the same model written by hand.

Log density and its gradient with respect to the latent, with the same weights, for an MLP and a
convolutional decoder, one chain and 64. Prints ratios, ours over the hand-written model:

    python benchmarks/overhead.py
"""

# %%
from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from measure import cost, show_ratios
from numpyro.infer.util import log_density

import numpyro_genprior as ngp
from numpyro_genprior.networks.architectures import ConvDecoder, MLPDecoder


# %%
@ngp.latent
def with_prior(prior: Any, y: jax.Array) -> None:
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, 0.1).to_event(2), obs=y)


def by_hand(net: Any, y: jax.Array) -> None:
    z = numpyro.sample("x_latent", dist.Normal(0, 1).expand([20]).to_event(1))
    x = numpyro.deterministic("x", net(z))
    numpyro.sample("y", dist.Normal(x, 0.1).to_event(2), obs=y)


def value_and_grad(model: Any) -> Any:
    """Log density and gradient of one chain, and the event that NumPyro records."""

    def density(z: jax.Array, weights: Any, y: jax.Array) -> tuple[Any, Any]:
        value, trace = log_density(model, (weights, y), {}, {"x_latent": z})
        return value, trace["x"]["value"]

    return jax.value_and_grad(density, has_aux=True)


# %%
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small nets, one try")
    smoke = parser.parse_args(argv).smoke
    key = jax.random.key(0)
    hidden = (16,) if smoke else (500, 500)
    nets = {
        "MLP": MLPDecoder(20, (28, 28), hidden=hidden, key=key),
        "convolutional": ConvDecoder(20, (28, 28), key=key),
    }
    y = jnp.zeros((28, 28))
    for name, net in nets.items():
        for chains in (1, 64):
            z = jax.random.normal(key, (chains, 20) if chains > 1 else (20,))

            def make(model: Any, chains: int = chains) -> Any:
                function = value_and_grad(model)
                return jax.vmap(function, (0, None, None)) if chains > 1 else function

            tries = 1 if smoke else 7
            prior = ngp.GANPrior(net, 20)
            ours = cost(lambda make=make: make(with_prior), z, prior, y, tries=tries)
            peer = cost(
                lambda make=make: make(by_hand), z, jax.tree.map(jnp.asarray, net), y, tries=tries
            )
            show_ratios(f"{name} decoder, {chains} chain(s)", ours, peer)


if __name__ == "__main__":
    main()
