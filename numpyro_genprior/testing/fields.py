"""The first check: no attribute is lost when a prior is flattened."""

from __future__ import annotations

import jax

from numpyro_genprior.priors import Prior
from numpyro_genprior.testing.expect import check, expect


@check
def _fields(prior: Prior, key: jax.Array) -> None:
    """No attribute is lost when the prior is flattened."""
    lost = set(vars(prior)) - set(vars(jax.tree.map(lambda leaf: leaf, prior)))
    expect(
        not lost,
        "Flattening the prior loses attributes",
        got=", ".join(sorted(lost)),
        remedy="list arrays and networks in pytree_data_fields, the rest in pytree_aux_fields",
    )
