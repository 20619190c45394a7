"""The quickstart says in words which modes its chains are in. `.ci/run` runs it whole."""

import importlib.util
import pathlib
import types

import numpy as np
import pytest
import xarray as xr

PATH = pathlib.Path(__file__).parents[1] / "examples" / "quickstart.py"


@pytest.fixture(scope="module")
def quickstart():
    spec = importlib.util.spec_from_file_location("quickstart", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trace_of(latents, log_density=None):
    chains, draws = latents.shape[:2]
    log_density = np.zeros((chains, draws)) if log_density is None else log_density
    dims = ("chain", "draw")
    return types.SimpleNamespace(
        posterior=xr.Dataset({"x_latent": ((*dims, "x_latent_dim"), latents)}),
        sample_stats=xr.Dataset(
            {"lp": (dims, log_density), "diverging": (dims, np.zeros((chains, draws), bool))}
        ),
    )


def test_chains_that_agree(quickstart, rng):
    latents = rng.normal(size=(4, 2000, 3))
    assert quickstart.modes(latents) == [[0, 1, 2, 3]]
    assert "agree: r_hat is at most 1.0" in quickstart.verdict(trace_of(latents))


def test_separate_modes_are_named_with_their_chains_and_densities(quickstart, rng):
    latents = rng.normal(size=(4, 500, 3))
    latents[1:3, :, 1] += 6.0
    log_density = np.broadcast_to(np.array([-10.0, -20.0, -22.0, -12.0])[:, None], (4, 500))
    assert quickstart.modes(latents) == [[0, 3], [1, 2]]
    words = quickstart.verdict(trace_of(latents, log_density))
    assert words.startswith("THE CHAINS DISAGREE")
    assert "chains 0, 3 (mean log density -11.0); chains 1, 2 (mean log density -21.0)" in words


def test_stuck_chains_are_not_called_good(quickstart, rng):
    slow = np.cumsum(rng.normal(size=(4, 300, 2)), axis=1)
    assert quickstart.verdict(trace_of(slow)).startswith("THE CHAINS")
    assert quickstart.verdict(trace_of(np.zeros((4, 50, 2)))).startswith("THE CHAINS HAVE NOT")


def test_data_are_of_a_held_out_digit(quickstart):
    truth, y = quickstart.observe(3, 0)
    assert truth.shape == (28, 28)
    assert y.shape == (14, 28)
    rows = np.load(quickstart.DIGITS)["rows"]
    held_out = np.random.default_rng(0).permutation(10_000)[9_000:]
    assert set(rows) <= set(held_out)
