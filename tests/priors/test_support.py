"""The support of a flow is inferred if possible; otherwise ``support=`` is required."""

import distrax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

import numpyro_genprior as ngp


def uniform():
    return dist.Uniform(0.0, 1.0).expand([2]).to_event(1)


UNKNOWN = {
    "distrax, bounded latent": lambda **s: ngp.FlowPrior(
        distrax.ScalarAffine(jnp.zeros(2), jnp.full(2, 2.0)), latent=uniform(), **s
    ),
    "distrax, bounded layer": lambda **s: ngp.FlowPrior(distrax.Sigmoid(), latent=2, **s),
    "numpyro, bounded latent": lambda **s: ngp.FlowPrior(
        nt.AffineTransform(0.0, 2.0), latent=uniform(), **s
    ),
    "numpyro, affine after exp": lambda **s: ngp.FlowPrior(
        nt.ComposeTransform([nt.ExpTransform(), nt.AffineTransform(1.0, 2.0)]), latent=2, **s
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_bounded_support_is_never_taken_for_the_real_line(name):
    """A wrong support makes NUTS diverge; the message names the keyword."""
    with pytest.raises(ValueError, match=r"[Pp]ass e\.g\. support="):
        UNKNOWN[name]()
    declared = UNKNOWN[name](support=constraints.positive)
    assert declared.support.event_dim == 1


def test_supports_that_are_inferred():
    real = ngp.FlowPrior(distrax.ScalarAffine(jnp.zeros(2), jnp.full(2, 2.0)), latent=2)
    assert real.support.base_constraint is constraints.real
    nested = nt.ComposeTransform([nt.AffineTransform(1.0, 2.0), nt.ExpTransform()])
    positive = ngp.FlowPrior(nested, latent=2)
    assert positive.support.base_constraint is constraints.positive
    domain = nt.AffineTransform(0.0, 2.0, domain=constraints.unit_interval)
    assert float(ngp.FlowPrior(domain, latent=uniform()).support.base_constraint.upper_bound) == 2.0
