"""The page docs/recipes/network_adapter.md runs, and its adapter serves a prior."""

import jax
from recipes import run_recipe

import numpyro_genprior as ngp


def test_network_adapter():
    page = run_recipe("network_adapter")
    net = page["from_tinynet"](page["network"], page["params"], train=False)
    ngp.testing.check_prior(ngp.GANPrior(net, 2))
    assert jax.tree.structure(net) == jax.tree.structure(page["net"])
