"""Checks of shapes, keys and supports."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist

from numpyro_genprior.priors import Prior
from numpyro_genprior.testing.expect import (
    check,
    decoded,
    draw,
    expect,
    expect_close,
    invertible,
    sampled,
)

SHAPES: tuple[tuple[int, ...], ...] = ((), (2,), (3, 2))


@check
def _shapes(prior: Prior, key: jax.Array) -> None:
    """Sample S + B + E, log_prob S + B, under expand and to_event."""
    has_density = invertible(prior)
    for batch in SHAPES:
        expanded: Any = prior.expand(batch + prior.batch_shape)
        for sample in SHAPES if not batch else SHAPES[:2]:
            x = jax.eval_shape(lambda k, p=expanded, s=sample: p.sample(k, s), key)
            expected = sample + batch + prior.batch_shape + prior.event_shape
            remedy = "map one latent to one event in _decode and leave batches to Prior"
            what = f"A sample of shape {sample} of the prior expanded to {batch} has another shape"
            expect(x.shape == expected, what, expected=expected, got=x.shape, remedy=remedy)
            expect(
                x.dtype == prior.event_dtype,
                "Samples have another dtype than event_dtype says",
                expected=prior.event_dtype,
                got=x.dtype,
                remedy="compute in the dtype of the weights and the latent",
            )
            if has_density:
                log_prob = jax.eval_shape(lambda x, p=expanded: p.log_prob(x), x)
                expected = sample + batch + prior.batch_shape
                what = "log_prob has another shape than the batch"
                expect(
                    log_prob.shape == expected, what, expected=expected, got=log_prob, remedy=remedy
                )
    event = prior.expand((3, 2, *prior.batch_shape)).to_event(1 + len(prior.batch_shape))
    shape = (2, *prior.batch_shape, *prior.event_shape)
    good = event.batch_shape == (3,) and event.event_shape == shape
    expect(good, "to_event miscounts dimensions", got=event, remedy="pass shapes to Prior.__init__")
    z = draw(prior, key, (2,))
    rows = jnp.stack([decoded(prior, row) for row in z])
    what = "decode of a batch differs from decode of its elements"
    expect_close(decoded(prior, z), rows, what, remedy="keep _decode free of batch statistics")
    expect_close(prior.decode(z[0]), rows[0], "decode differs under jit", remedy="keep it pure")


@check
def _keys(prior: Prior, key: jax.Array) -> None:
    """Typed and raw keys, the same numbers."""
    x = sampled(prior, key, (2,))
    raw = sampled(prior, jr.key_data(key), (2,))
    expect_close(x, raw, "A raw key gives another sample", remedy="use jax.random functions only")
    expect(jnp.all(jnp.isfinite(x)), "A sample is not finite", got=x, remedy="check the weights")
    other = sampled(prior, jr.fold_in(key, 1), (2,))
    expect(
        jnp.any(x != other), "Two keys give one sample", remedy="draw from the key, not the state"
    )


@check
def _support(prior: Prior, key: jax.Array) -> None:
    """The support covers one event, and samples lie in it."""
    support = prior.support
    expect(
        support.event_dim == len(prior.event_shape),
        "The support has another number of event dimensions than the event: NumPyro would multiply "
        "the density",
        expected=len(prior.event_shape),
        got=support.event_dim,
        remedy="pass the constraint of one number as support=, Prior makes it one of the event",
    )
    x = sampled(prior, key, (2,))
    inside = jax.vmap(support)(x) if not prior.batch_shape else support(x)
    expect(jnp.all(inside), f"Samples lie outside of {support}", got=x, remedy="correct support=")
    feasible = support.feasible_like(x)
    expect(
        feasible.shape == x.shape,
        "feasible_like returns another shape",
        got=feasible.shape,
        remedy="as NumPyro's do",
    )
    transform = dist.biject_to(support)
    free = transform.inverse_shape(prior.event_shape)
    back = transform.forward_shape(free)
    what = "biject_to(support) does not give events"
    expect(
        back == prior.event_shape, what, got=back, remedy="register the constraint with biject_to"
    )


@check
def _wrappers(prior: Prior, key: jax.Array) -> None:
    """Values under to_event and mask; the latent returned by sample_with_intermediates."""
    if not invertible(prior):
        return

    @jax.jit
    def values(prior: Prior, key: jax.Array) -> Any:
        x, intermediates = prior.sample_with_intermediates(key, (2,))
        log_prob = prior.log_prob(x)
        with_intermediates = prior.log_prob(x, intermediates) if intermediates else log_prob
        batch = prior.expand((2, *prior.batch_shape)).to_event(1 + len(prior.batch_shape))
        mask = jnp.array([True, False]).reshape(2, *[1] * len(prior.batch_shape))
        return log_prob, with_intermediates, batch.log_prob(x), prior.mask(mask).log_prob(x)

    log_prob, with_intermediates, total, kept = values(prior, key)
    what = "to_event does not sum the log density"
    expect_close(total, jnp.sum(log_prob), what, remedy="return one number per event")
    expect_close(kept[0], log_prob[0], "mask changes what it keeps", remedy="as NumPyro does")
    expect(jnp.all(kept[1] == 0), "mask keeps what it masks", got=kept, remedy="as NumPyro does")
    what = "The density with intermediates differs from the one without"
    expect_close(with_intermediates, log_prob, what, remedy="return latent and log determinant")
