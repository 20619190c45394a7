"""Every check can fail: priors with one error each, and the check that finds it."""

import jax
import jax.numpy as jnp
import pytest
from numpyro.distributions import constraints

import numpyro_genprior as ngp
from numpyro_genprior.testing import CHECKS, check_prior


class Affine(ngp.Prior):
    """x = loc + scale z: a correct prior, from which those with an error derive."""

    density = "exact"
    pytree_data_fields = ("loc", "scale")

    def __init__(self, **kwargs):
        self.loc, self.scale = jnp.array([1.0, -1.0, 0.5]), jnp.array([0.5, 2.0, 1.5])
        super().__init__(3, **kwargs)

    def _decode(self, z, condition):
        return self.loc + self.scale * z

    def _log_prob(self, x, condition):
        z = (x - self.loc) / self.scale
        return self.latent.log_prob(z) - jnp.log(self.scale).sum()


class WithoutDeterminant(Affine):
    def _log_prob(self, x, condition):
        return self.latent.log_prob((x - self.loc) / self.scale)


class WithNumbersForEvents(Affine):
    """Trap: NumPyro multiplies the density by the size of the event."""

    support = constraints.real


class OutsideOfItsSupport(Affine):
    def __init__(self):
        super().__init__(support=constraints.positive)


class WithoutGradientByWeights(Affine):
    def _decode(self, z, condition):
        return jax.lax.stop_gradient(self.loc) + self.scale * z


class WithoutGradientByLatent(Affine):
    def _decode(self, z, condition):
        return self.loc + self.scale * jax.lax.stop_gradient(z)


class WithoutGradientByEvent(Affine):
    def _log_prob(self, x, condition):
        return super()._log_prob(jax.lax.stop_gradient(x), condition)


class WithBatchStatistics(Affine):
    def decode(self, z):
        x = super().decode(z)
        return x - x.mean(axis=tuple(range(x.ndim - 1)), keepdims=True)


class WithOneNumberAnEntry(Affine):
    def log_prob(self, value, intermediates=None):
        return -0.5 * ((value - self.loc) / self.scale) ** 2


class WithHiddenWeights(Affine):
    """An attribute that JAX does not see is lost when the prior is rebuilt."""

    pytree_data_fields = ("loc",)

    def __init__(self):
        self.hidden = jnp.ones(3)
        super().__init__()

    def _decode(self, z, condition):
        return super()._decode(z, condition) * getattr(self, "hidden", 0.0)


class WithStaticThatDiffers(Affine):
    """A static field without equality compiles a new program for every copy."""

    pytree_aux_fields = ("token",)

    def __init__(self):
        super().__init__()
        self.token = object()


class DrawnFromItsState(Affine):
    def _sample_latent(self, key, sample_shape):
        return super()._sample_latent(jax.random.key(0), sample_shape)


class WithADensityThatIsNone(Affine):
    """It says that it has no density but returns a number."""

    density = "none"
    log_prob = score = lambda self, value: jnp.zeros(())


class WithoutRemedy(Affine):
    density = "none"
    no_density = "no"


class WithIntermediatesOfAnother(Affine):
    def sample_with_intermediates(self, key, sample_shape=()):
        return self.sample(key, sample_shape), [jnp.zeros(3)]

    def log_prob(self, value, intermediates=None):
        if intermediates:
            return self.latent.log_prob(intermediates[0])
        return super().log_prob(value)


BROKEN = {
    WithoutDeterminant: ("density_against_jacobian", "sign and event dimensions"),
    WithNumbersForEvents: ("support", "would multiply"),
    OutsideOfItsSupport: ("support", "lie outside of"),
    WithoutGradientByWeights: ("gradients", "respect to the prior"),
    WithoutGradientByLatent: ("gradients", "respect to the latent"),
    WithoutGradientByEvent: ("gradients", "respect to the event"),
    WithBatchStatistics: ("shapes", "batch"),
    WithOneNumberAnEntry: ("shapes", "another shape than the batch"),
    WithHiddenWeights: ("fields", "loses attributes"),
    WithStaticThatDiffers: ("pytree", "two programs"),
    DrawnFromItsState: ("keys", "Two keys give one sample"),
    WithADensityThatIsNone: ("no_density", "returns a number"),
    WithoutRemedy: ("no_density", "no remedy"),
    WithIntermediatesOfAnother: ("wrappers", "with intermediates"),
}


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_a_broken_prior_fails_its_check(cls):
    check, words = BROKEN[cls]
    with pytest.raises(AssertionError, match=words) as caught:
        check_prior(cls(), checks=[check])
    assert f"in check {check!r}" in caught.value.__notes__[-1]


@pytest.mark.slow
def test_a_correct_prior_passes():
    check_prior(Affine())


@pytest.mark.float64
def test_a_correct_prior_passes_in_double_precision():
    check_prior(Affine(), checks=["density_against_jacobian", "gradients"])


def test_every_check_fails_for_a_broken_prior_or_is_tested_elsewhere():
    """Of the rest, `plates`, `scan` and `predictive` look at NumPyro models of a prior."""
    rest = {"plates", "scan", "predictive", "pickling", "conditional_density"}
    assert {check for check, _ in BROKEN.values()} | rest == set(CHECKS)
