"""The pages docs/recipes/likelihood.md and diagnostic.md run."""

import jax
import numpy as np
from recipes import run_recipe

from numpyro_genprior.infer.fisher.registry import RULES


def test_likelihood():
    page = run_recipe("likelihood")
    draws = np.asarray(page["Rayleigh"](2.0).sample(jax.random.key(1), (10_000,)))
    error = 5 * np.sqrt((2 - np.pi / 2) / 10_000)
    assert abs(draws.mean() / 2.0 - np.sqrt(np.pi / 2)) < error
    assert RULES.pop(page["Rayleigh"])


def test_diagnostic():
    page = run_recipe("diagnostic")
    axes = page["result"].plot()
    assert page["result"].plot(axes) is axes
    assert page["result"].warnings == ()
    stiff = page["Stiffness"](np.array([[1.0, 1e4]]))
    assert stiff.verdict == "stiff"
    assert len(stiff.warnings) == 1
    assert stiff.warnings[0] in str(stiff)
