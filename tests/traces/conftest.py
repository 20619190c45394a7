"""What the tests of `traces` share: a run of NUTS, its ArviZ object, and draws of a latent."""

import jax
import numpy as np
import pytest
from trace_model import FIELDS, WEIGHTS, Y, generator, infer, model

import numpyro_genprior as ngp


@pytest.fixture(scope="session")
def mcmc():
    return infer(model, ngp.GANPrior(generator, 2), Y, extra_fields=FIELDS)


@pytest.fixture(scope="session")
def trace(mcmc):
    return ngp.to_arviz(
        mcmc,
        coords={"row": [0.1, 0.2, 0.3], "epoch": ["first", "second"]},
        prior=7,
        posterior_predictive=True,
        log_likelihood=True,
        constant_data={"mask": np.ones((3, 4), bool)},
        key=jax.random.key(1),
        batch_size=16,
    )


@pytest.fixture
def z(rng):
    return rng.normal(size=(2, 50, 2)).astype(np.float32)


@pytest.fixture
def events(z):
    return np.tanh(z @ WEIGHTS.T).reshape(2, 50, 3, 4)
