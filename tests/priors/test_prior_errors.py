"""Errors about scales, densities, flows, Gaussians and keys, with their messages."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from error_cases import KEY, Table, X, Z, flow, gan, linear, vae
from flowjax import bijections as fb
from flowjax import distributions as fd
from flowjax import flows as ff
from numpyro.distributions import constraints, transforms

import numpyro_genprior as ngp

ERRORS = Table()


# ---- scales and densities ------------------------------------------------------------------------


@ERRORS.mistake(ValueError, r"for no noise at all use GANPrior")
def a_scale_of_zero():
    vae(scale=0.0)


@ERRORS.mistake(ValueError, r"for no noise at all use GANPrior")
def thickening_by_a_negative_scale():
    gan().thicken(-1.0)


@ERRORS.mistake(ValueError, "is not positive")
def replacing_the_scale_by_zero():
    vae().with_scale(0.0)


@ERRORS.mistake(ValueError, r"expected finite values above zero; got inf")
def an_infinite_scale():
    vae(scale=jnp.array([1.0, jnp.inf, 1.0]))


@ERRORS.mistake(ValueError, r"for no noise at all use GANPrior")
def a_complex_scale():
    vae(scale=1.0 + 0j)


@ERRORS.mistake(ValueError, r"Give one value, or one value for each entry of the event")
def a_scale_of_the_wrong_shape():
    vae(scale=jnp.ones(2))


@ERRORS.mistake(ValueError, r"Return the mean and the standard deviation of the latent")
def an_encoder_with_outputs_of_another_size():
    vae(encoder=lambda x: (x, x))


@ERRORS.mistake(TypeError, r"Return the mean and the standard deviation of the latent")
def an_encoder_with_one_output():
    vae(encoder=lambda x: x[:2])


@ERRORS.mistake(ValueError, r"Pass an unbatched network that returns \(loc, scale\)")
def an_encoder_of_events_of_another_size():
    vae(encoder=eqx.nn.Linear(7, 2, key=KEY))


@ERRORS.mistake(ValueError, r"Pass num_samples=64")
def a_bound_from_no_samples():
    vae().log_prob_bound(KEY, X, num_samples=0)


@ERRORS.mistake(ValueError, r"Pass num_samples=64")
def a_bound_from_a_fraction_of_a_sample():
    vae().log_prob_bound(KEY, X, num_samples=2.5)


@ERRORS.mistake(NotImplementedError, r"Use prior\.decode\(z\), which is the event")
def the_conditional_density_of_a_gan():
    gan().event_given(Z)


@ERRORS.mistake(NotImplementedError, r"@ngp\.latent.*ngp\.sample.*thicken")
def the_density_of_a_gan():
    gan().log_prob(X)


@ERRORS.mistake(NotImplementedError, r"@ngp\.latent.*log_prob_bound")
def the_density_of_a_vae():
    vae().log_prob(X)


@ERRORS.mistake(NotImplementedError, r"@ngp\.latent")
def the_score_of_a_vae():
    vae().score(X)


@ERRORS.mistake(NotImplementedError, r"Use it under @ngp\.latent\(explicit=True\)")
def the_density_of_a_flow_without_inverse():
    CASES["planar"].make(KEY).log_prob(Z)


# ---- flows and Gaussians -------------------------------------------------------------------------


@ERRORS.mistake(TypeError, r"Wrap it as one of these, or pass a decoder to GANPrior or VAEPrior")
def a_function_for_a_flow():
    ngp.FlowPrior(linear, latent=2)


@ERRORS.mistake(ValueError, r"Pass latent=d \(a standard normal of size d\)")
def a_transform_without_a_latent():
    ngp.FlowPrior(transforms.ExpTransform())


@ERRORS.mistake(ValueError, r"Leave out latent= to use the base distribution of the flow")
def a_latent_that_does_not_fit_the_flow():
    flow(latent=5)


@ERRORS.mistake(ValueError, r"Pass latent= of the size on which the flow acts")
def a_latent_that_the_flow_would_broadcast():
    import distrax

    ngp.FlowPrior(distrax.Block(distrax.ScalarAffine(jnp.zeros(3)), 1), latent=1)


@ERRORS.mistake(ValueError, r"Leave out support=, or end the flow with a map onto the support")
def the_support_of_another_interval():
    ngp.FlowPrior(transforms.SigmoidTransform(), latent=2, support=constraints.interval(0.0, 2.0))


@ERRORS.mistake(ValueError, r"Leave out support=, or end the flow with a map onto the support")
def a_support_that_the_flow_does_not_have():
    flow(support=constraints.positive)


@ERRORS.mistake(ValueError, r"Pass e\.g\. support=constraints\.unit_interval, or constraints\.real")
def a_flow_whose_support_is_unknown():
    spline = fb.RationalQuadraticSpline(knots=3, interval=1)
    ngp.FlowPrior(fb.Chain([fb.Exp(), spline]))


@ERRORS.mistake(NotImplementedError, r"Build it the other way round \(FlowJAX: invert=False\)")
def a_flow_that_cannot_be_sampled():
    ngp.FlowPrior(ff.planar_flow(KEY, base_dist=fd.StandardNormal((2,)), flow_layers=1))


@ERRORS.mistake(ValueError, r"Move the condition into the bijection")
def a_flow_over_a_conditional_base():
    base = ff.coupling_flow(KEY, base_dist=fd.StandardNormal((2,)), cond_dim=1, flow_layers=1)

    class Wrapped(fd.AbstractDistribution):
        inner: fd.AbstractDistribution
        shape: tuple = (2,)
        cond_shape: tuple = (1,)

        def _sample(self, key, condition=None):
            return self.inner._sample(key, condition)

        def _log_prob(self, x, condition=None):
            return self.inner._log_prob(x, condition)

    ngp.FlowPrior(fd.Transformed(Wrapped(base), fb.Identity((2,))), condition=jnp.zeros(1))


@ERRORS.mistake(ValueError, r"Put the rank last; use rank 0 for independent entries")
def a_factor_without_a_rank_dimension():
    ngp.GaussianPrior(X, factor=jnp.ones(3), diagonal=1.0)


@ERRORS.mistake(ValueError, r"Pass variances above zero")
def a_variance_of_zero():
    ngp.GaussianPrior(X, factor=jnp.ones((3, 1)), diagonal=jnp.array([1.0, 0.0, 1.0]))


@ERRORS.mistake(ValueError, r"Choose a smaller rank, or pass more events")
def a_rank_above_the_number_of_events():
    ngp.GaussianPrior.from_samples(np.eye(4), rank=4)


@ERRORS.mistake(ValueError, r"Stack the events along a first dimension")
def from_samples_of_one_event():
    ngp.GaussianPrior.from_samples(np.ones(4), rank=1)


@ERRORS.mistake(ValueError, r"Remove those events")
def from_samples_with_nan():
    ngp.GaussianPrior.from_samples(np.full((5, 4), np.nan), rank=1)


@ERRORS.mistake(ValueError, r"Pass events that differ")
def from_samples_that_are_all_equal():
    ngp.GaussianPrior.from_samples(np.ones((5, 4)), rank=1)


@ERRORS.mistake(ValueError, r"expected an integer from 0 to 3")
def a_rank_that_is_no_integer():
    ngp.GaussianPrior.from_samples(np.eye(4), rank=0.5)


@ERRORS.mistake(ValueError, r"Give one number, or one for each point of the grid")
def a_mean_that_does_not_fit_the_grid():
    ngp.GaussianFieldPrior((4, 8), lambda k: 1 / (1 + k**2), loc=jnp.zeros(8))


@ERRORS.mistake(ValueError, r"expected positive integers")
def a_grid_size_that_is_no_integer():
    ngp.GaussianFieldPrior((2.5,), lambda k: 1 / (1 + k**2))


@ERRORS.mistake(ValueError, r"Bound it at frequency 0")
def a_spectrum_that_is_infinite_at_zero():
    with np.errstate(divide="ignore"):
        ngp.GaussianFieldPrior(8, lambda k: 1 / k**2)


@ERRORS.mistake(ValueError, r"Pass a function of the radial frequency")
def a_spectrum_of_the_wrong_shape():
    ngp.GaussianFieldPrior(8, jnp.ones(8))


@ERRORS.mistake(ValueError, r"Pass e\.g\. \(64, 64\)")
def a_grid_without_points():
    ngp.GaussianFieldPrior((), lambda k: k)


# ---- keys ----------------------------------------------------------------------------------------


@ERRORS.mistake(
    TypeError, r"Pass jax\.random\.key\(0\); inside a model, run it under numpyro\.handlers\.seed"
)
def an_integer_for_a_key():
    gan().sample(0)


@ERRORS.mistake(ValueError, r"Pass jax\.random\.key\(0\), or seed the model")
def no_key():
    ngp.sample("x", gan())


@ERRORS.mistake(TypeError, r"Pass jax\.random\.key\(0\)")
def several_keys():
    flow().sample(jax.random.split(KEY, 3))


@ERRORS.mistake(TypeError, r"Pass jax\.random\.key\(0\)")
def floats_for_a_key():
    vae().log_prob_bound(jnp.zeros(2), X)


@pytest.mark.parametrize("name", ERRORS)
def test_message(name):
    ERRORS.check(name)
