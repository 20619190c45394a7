"""Checks of a prior as a pytree: jit, vmap, copies, pickles."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp

from numpyro_genprior.priors import Prior
from numpyro_genprior.testing.expect import check, decoded, draw, expect, expect_close


@check
def _pytree(prior: Prior, key: jax.Array) -> None:
    """Jit argument and return value, one trace for two sets of weights, copies, stacking."""
    traces = []

    @jax.jit
    def through(prior: Prior) -> Prior:
        traces.append(prior)
        return prior

    returned = through(prior)
    other = jax.tree.map(lambda leaf: 1.01 * leaf, prior)
    for again in (other, copy.deepcopy(prior), returned):
        through(again)
    expect(
        len(traces) == 1,
        "Two sets of weights of one structure, or a copy, compile two programs",
        expected="one trace",
        got=f"{len(traces)} traces",
        remedy="keep static fields hashable and equal: list them in pytree_aux_fields, arrays in "
        "pytree_data_fields",
    )
    z = draw(prior, key)
    event = decoded(prior, z)
    remedy = "list arrays in pytree_data_fields, the rest in pytree_aux_fields"
    for what, copied in (
        ("returned by jit", returned),
        ("copied deeply", copy.deepcopy(prior)),
        ("flattened and rebuilt", jax.tree.map(lambda leaf: leaf, prior)),
    ):
        expect(repr(copied) == repr(prior), f"A prior {what} differs", got=copied, remedy=remedy)
        got = decoded(copied, z)
        expect_close(got, event, f"A prior {what} decodes differently", remedy=remedy)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), prior, other)
    expect(
        stacked.batch_shape == prior.batch_shape,
        "Stacking the leaves of priors changes the batch shape",
        got=stacked,
        remedy=remedy,
    )
    in_axes = (0 if jax.tree.leaves(stacked) else None, None)
    events = jax.vmap(lambda p, z: p.decode(z), in_axes, axis_size=2)(stacked, z)
    expected = jnp.stack([event, decoded(other, z)])
    what = "decode of stacked priors under vmap differs from decode of each"
    expect_close(events, expected, what, remedy="never infer shapes from leaves")


@check
def _pickling(prior: Prior, key: jax.Array) -> None:
    """Pickling works, or raises an error that names ngp.save."""
    if "<locals>" in type(prior).__qualname__:
        return  # no class inside of a function can be pickled
    try:
        pickle.dumps(prior)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        remedy = "hold the network in ngp.networks.Frozen"
        expect("ngp.save" in str(error), "pickle fails without a remedy", got=error, remedy=remedy)
