"""Fast compilation for the tests of the Fisher information."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation():
    """Programs run once here, so that most of XLA's optimisation costs more than it saves."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
