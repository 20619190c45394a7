"""Distributions without a Fisher information are refused, and rules can be registered."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import numpyro_genprior as ngp
from numpyro_genprior.infer.fisher import (
    fisher_information,
    register_fisher,
    whitened_parameters,
)

ONE = jnp.ones(3)
REFUSED_AT_ONCE = {
    "LeftTruncatedDistribution.*register_fisher": lambda t: dist.TruncatedNormal(t[0], 1, low=0.0),
    "ZeroInflatedProbs.*register_fisher": lambda t: dist.ZeroInflatedDistribution(
        dist.Poisson(t[0]), gate=0.1
    ),
    "MixtureGeneral.*register_fisher": lambda t: dist.MixtureGeneral(
        dist.Categorical(probs=jnp.ones(2) / 2), [dist.Normal(t[0], 1), dist.Normal(0, 1)]
    ),
    "numpyro.factor": lambda t: dist.Unit(t[0]),
    "with noise": lambda t: dist.Delta(t[0]),
    "thicken": lambda t: ngp.GANPrior(lambda z: jnp.tile(z, 2), 2),
    "event_given": lambda t: ngp.VAEPrior(lambda z: jnp.tile(z, 2), 2, scale=0.1),
}
REFUSED_WHEN_LATENT = {
    "dist.MultivariateNormal": lambda t, c: dist.LowRankMultivariateNormal(
        t, c[:, None], jnp.ones(3)
    ),
    "covariance of an observed GaussianPrior": lambda t, c: ngp.GaussianPrior(
        t, factor=jnp.ones((3, 1)), diagonal=c
    ),
    "into the base distribution": lambda t, c: dist.TransformedDistribution(
        dist.Normal(t, 1.0), dist.transforms.AffineTransform(c, 1.0)
    ),
    "support moves": lambda t, c: dist.Uniform(c, 5.0),
}


@pytest.mark.parametrize("match", REFUSED_AT_ONCE)
def test_distribution_without_a_rule_is_refused_by_name(match):
    distribution = REFUSED_AT_ONCE[match](ONE)
    with pytest.raises(ValueError, match=match) as raised:
        whitened_parameters(distribution, distribution, name="y")
    assert "'y'" in str(raised.value)


@pytest.mark.parametrize("match", REFUSED_WHEN_LATENT)
def test_constant_parameters_must_not_depend_on_latent_variables(match):
    distribution = REFUSED_WHEN_LATENT[match]

    def fixed(t):
        return whitened_parameters(distribution(t, ONE), distribution(t, ONE))

    def moving(t):
        return whitened_parameters(distribution(t, ONE), distribution(t, jnp.exp(t)))

    jax.eval_shape(jax.jit(jax.jacrev(fixed)), ONE)
    jax.eval_shape(jax.vmap(jax.jacfwd(fixed)), jnp.ones((2, 3)))
    for derivative in (
        jax.jacfwd(moving),
        jax.jacrev(jax.jit(moving)),
        jax.jit(jax.jacfwd(moving)),
    ):
        with pytest.raises(ValueError, match=match):
            jax.eval_shape(derivative, ONE)


def test_distributions_of_different_structure_are_refused():
    with pytest.raises(ValueError, match="same function"):
        whitened_parameters(dist.Normal(0, 1), dist.Cauchy(0, 1))


def test_rule_is_registered_and_inherited():
    class Wave(dist.Normal):
        """A normal with a constant scale."""

    class Swell(Wave):
        pass

    register_fisher(
        Wave,
        parameters=lambda wave: jnp.broadcast_to(wave.loc, wave.batch_shape),
        whiten=lambda wave, tangent: tangent / wave.scale,
    )
    np.testing.assert_allclose(fisher_information(Swell(1.0, 0.5)), [[4.0]])
    register_fisher(Wave, parameters=lambda wave: wave.loc, whiten=lambda wave, t: jnp.zeros(7))
    swell = Swell(jnp.zeros(3), 0.5)
    with pytest.raises(ValueError, match="batch shape"):
        whitened_parameters(swell, swell)
    with pytest.raises(TypeError, match="BernoulliProbs"):
        register_fisher(dist.Bernoulli, parameters=lambda d: d, whiten=lambda d, t: t)
