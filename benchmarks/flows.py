"""A spline coupling flow through `FlowPrior`, FlowJAX, and NumPyro's `TransformedDistribution`.

`log_prob`, its gradient and `sample`, one event and 256. Prints ratios, ours over the peer's:

    python benchmarks/flows.py
"""

# %%
from __future__ import annotations

import argparse
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import StandardNormal
from flowjax.experimental.numpyro import _BijectionToNumpyro
from flowjax.flows import coupling_flow
from measure import cost, show_ratios

import numpyro_genprior as ngp


# %%
def numpyro_path(flow: Any) -> Any:
    """NumPyro's transformed distribution: the inverse, then the log-determinant in another pass."""
    base = dist.Normal(0, 1).expand(flow.shape).to_event(len(flow.shape))
    return dist.TransformedDistribution(base, _BijectionToNumpyro(flow.bijection))


def tasks(distribution: Any) -> dict[str, Any]:
    """The functions to time, each of (weights, events); `distribution` is a function of weights."""

    def log_prob(weights: Any, x: jax.Array) -> jax.Array:
        return distribution(weights).log_prob(x)

    def gradient(weights: Any, x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: jnp.sum(distribution(weights).log_prob(x)))(x)

    def sample(weights: Any, x: jax.Array) -> jax.Array:
        return distribution(weights).sample(jax.random.key(0), x.shape[:-1])

    return {"log_prob": log_prob, "gradient": gradient, "sample": sample}


# %%
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a small flow, one try")
    smoke = parser.parse_args(argv).smoke
    layers, width, dim, tries = (1, 8, 4, 1) if smoke else (4, 64, 16, 3)
    flow = coupling_flow(
        jax.random.key(0),
        base_dist=StandardNormal((dim,)),
        transformer=RationalQuadraticSpline(knots=8, interval=4),
        flow_layers=layers,
        nn_width=width,
    )
    weights, static = eqx.partition(flow, eqx.is_inexact_array)
    peers = {
        "FlowJAX": (weights, lambda w: eqx.combine(w, static)),
        "NumPyro": (weights, lambda w: numpyro_path(eqx.combine(w, static))),
    }
    ours = tasks(lambda prior: prior)
    for number in (1, 256):
        x = jax.random.normal(jax.random.key(1), (number, dim))
        for peer, (peer_weights, distribution) in peers.items():
            for task, function in tasks(distribution).items():
                show_ratios(
                    f"{task} of {number} event(s), over {peer}",
                    cost(lambda task=task: _fresh(ours[task]), ngp.FlowPrior(flow), x, tries=tries),
                    cost(lambda function=function: _fresh(function), peer_weights, x, tries=tries),
                )


def _fresh(function: Any) -> Any:
    """The same function as a new object, so that it is compiled again."""
    return lambda weights, x: function(weights, x)


if __name__ == "__main__":
    main()
