"""Batches of one size that cover all draws once, and arrays joined on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_genprior.infer import Posterior, host_batching
from numpyro_genprior.infer.host_batching import batches, collect, host_values


@pytest.mark.parametrize(("number", "size"), [(0, 3), (2, 2), (7, 3), (6, 3), (10, 7)])
def test_batches_cover_all_rows_once_with_one_shape(number, size):
    keys, shapes = jax.random.split(jax.random.key(0), number), set()

    def function(batch):
        rows = batch.take(np.arange(number))
        shapes.add(rows.shape)
        data = jax.random.key_data(batch.take(keys))
        return {"index": jnp.asarray(rows), "key": data}

    joined = collect(function, number, size)
    assert shapes <= {(size,)}
    if number:
        np.testing.assert_array_equal(joined["index"], np.arange(number))
        np.testing.assert_array_equal(joined["key"], jax.random.key_data(keys))
    assert sum(batch.count for batch in batches(number, size)) == number


def test_host_values_do_not_depend_on_the_batch_size(monkeypatch):
    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        numpyro.deterministic("outer", jnp.outer(x, x))

    posterior, xi = Posterior(model), np.random.default_rng(0).normal(size=(7, 3)).astype("f")
    expected = {"x": xi, "outer": xi[:, :, None] * xi[:, None, :]}
    for elements in (2**23, 3 * 12):  # all at once, and three draws at a time
        monkeypatch.setattr(host_batching, "MAX_BATCH_ELEMENTS", elements)
        values = host_values(posterior, xi)
        assert set(values) == {"x", "outer"}
        for name, value in values.items():
            assert isinstance(value, np.ndarray)
            np.testing.assert_allclose(value, expected[name], rtol=1e-6)
