"""Settings that hold for every test.

Tiers
    ``pytest`` runs the default tier, on two processes, in minutes; ``pytest --all`` everything:
    ``@pytest.mark.slow`` marks what the default tier leaves out, because a cheaper test of the same
    kind stays in it; of the cases of cases.py the default tier has two fifths. ``-n 0`` runs in one
    process (for a debugger)::

        pytest  # default tier
        pytest - -all  # everything

Compilation
    Tests compile much and compute little, so XLA's optimisations are off, and programs are kept in
    pytest's cache folder (``--cache-clear`` empties it), which both processes and later runs read.
    Environment variables such as ``JAX_DISABLE_MOST_OPTIMIZATIONS=0`` take precedence.

Precision
    The suite runs twice, once in each precision, and a test belongs to one of the two runs::

        pytest                      # float32: every test without the marker `float64`
        JAX_ENABLE_X64=1 pytest     # float64: every test with it

    Mark with ``@pytest.mark.float64`` what needs double precision: finite differences,
    log-determinants to rounding, closed forms, the dtype that is stated under x64. The tests of the
    other run are deselected, not skipped, and the closing line counts them.

Devices
    ``@pytest.mark.devices(2)`` marks what needs two devices; it is deselected where there are
    fewer::

        XLA_FLAGS=--xla_force_host_platform_device_count=2 pytest -m devices

Shapes
    Rank promotion raises: a vector is never broadcast against a matrix by accident. Code of other
    packages that promotes is called under ``with jax.numpy_rank_promotion("allow"):``, one call at
    a time.

Warnings
    Warnings are errors (``filterwarnings`` in pyproject.toml, each exception with its reason). A
    test that expects one says so with ``pytest.warns``.

Randomness
    ``key`` and ``rng`` are the same in every run. Nothing draws from global state; it is seeded all
    the same, for packages that do.
"""

from __future__ import annotations

import os
import random

import jax
import matplotlib
import numpy as np
import pytest

SEED = 20240607

jax.config.update("jax_numpy_rank_promotion", "raise")
matplotlib.use("Agg")


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="also run the tests marked slow")


def pytest_configure(config):
    """Compile fast, and compile each program once. Environment variables take precedence."""
    settings = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(config.cache.mkdir("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)


def is_slow(item):
    """Whether the default tier leaves a test out: by its mark, or by its case of cases.py."""
    case = getattr(item, "callspec", None) and item.callspec.params.get("case")
    return item.get_closest_marker("slow") is not None or getattr(case, "slow", False)


def pytest_collection_modifyitems(config, items):
    """Keep the tests of this tier and this precision that the devices here can run."""
    selected, deselected = [], []
    everything = config.getoption("--all")
    for item in items:
        in_tier = everything or not is_slow(item)
        in_precision = (item.get_closest_marker("float64") is not None) == jax.config.jax_enable_x64
        devices = item.get_closest_marker("devices")
        on_devices = devices is None or jax.device_count() >= devices.args[0]
        kept = in_tier and in_precision and on_devices
        (selected if kept else deselected).append(item)
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = selected


@pytest.fixture(autouse=True)
def _seeded():
    """Seed the global generators, which some packages draw from."""
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002


@pytest.fixture(autouse=True, scope="module")
def _bounded_memory():
    """Forget a module's compiled programs when it is done: thousands exhaust memory maps."""
    yield
    jax.clear_caches()


@pytest.fixture
def key():
    """A fixed typed key."""
    return jax.random.key(SEED)


@pytest.fixture
def rng():
    """A fixed NumPy generator."""
    return np.random.default_rng(SEED)
