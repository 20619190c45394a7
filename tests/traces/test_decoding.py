"""`decode`, against NumPy."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from trace_model import WEIGHTS, generator, shifted

import numpyro_genprior as ngp


@pytest.mark.parametrize("batch_size", [None, 1, 7, 100, 1000])
def test_decode(z, events, batch_size):
    prior = ngp.GANPrior(generator, 2)
    decoded = ngp.decode(prior, z, batch_size=batch_size)
    assert isinstance(decoded, np.ndarray)
    np.testing.assert_allclose(decoded, events, atol=1e-6)


def test_decode_into_a_file(z, events, tmp_path):
    out = np.memmap(tmp_path / "events", np.float32, "w+", shape=events.shape)
    assert ngp.decode(ngp.GANPrior(generator, 2), z, batch_size=16, out=out) is out
    np.testing.assert_allclose(out, events, atol=1e-6)


def test_decode_with_conditions(z, events, rng):
    prior = ngp.GANPrior(shifted, 2, condition=0.0)
    batch = ngp.decode(prior.given(jnp.arange(2.0)), z.transpose(1, 0, 2), batch_size=7)
    np.testing.assert_allclose(
        batch, events.transpose(1, 0, 2, 3) + np.arange(2.0)[:, None, None], atol=1e-5
    )
    c = rng.normal(size=(2, 50)).astype(np.float32)
    expected = events + c[..., None, None]
    for decoded in (
        ngp.decode(prior, z, condition=c, batch_size=16),
        ngp.decode(prior.given(c), z, batch_size=16),
    ):
        np.testing.assert_allclose(decoded, expected, atol=1e-5)


def test_decode_of_nested_and_wrapped_priors(z, events):
    inner = ngp.GANPrior(lambda w: jnp.sin(w), 2)
    nested = ngp.GANPrior(generator, inner)
    through = ngp.decode(nested, ngp.decode(inner, z), batch_size=16)
    expected = np.tanh(np.sin(z) @ WEIGHTS.T).reshape(events.shape)
    np.testing.assert_allclose(through, expected, atol=1e-6)
    wrapped = ngp.GANPrior(generator, 2).expand([50]).to_event(1)
    np.testing.assert_allclose(ngp.decode(wrapped, z, batch_size=1), events, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "remedy"),
    [
        (lambda p: ngp.decode(p, np.zeros((5, 3))), ValueError, "x_latent"),
        (lambda p: ngp.decode(p, np.zeros((5, 2)), batch_size=0), ValueError, "leave it out"),
        (lambda p: ngp.decode(p, np.zeros((5, 2)), batch_size=2.5), ValueError, "leave it out"),
        (lambda p: ngp.decode(p, np.zeros((5, 2)), out=np.zeros(3)), ValueError, "of that shape"),
        (lambda p: ngp.decode(dist.Normal(), np.zeros((5, 2))), TypeError, "prior first"),
        (
            lambda p: ngp.decode(p, np.zeros((5, 2)), condition=np.zeros(5)),
            ValueError,
            "has no condition",
        ),
    ],
)
def test_mistakes_in_decoding(call, error, remedy):
    with pytest.raises(error, match=f"(?i){remedy}"):
        call(ngp.GANPrior(generator, 2))
