"""Mistakes, each with the message that it must give: the match is on the remedy.

Adapters of networks, files, traces and training have more of their own, beside their tests.
"""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from cases import CASES
from flowjax import bijections as fb
from flowjax import distributions as fd
from flowjax import flows as ff
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints, transforms
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import Adam

import numpyro_genprior as ngp
from numpyro_genprior.networks import architectures

KEY = jax.random.key(0)
Z, X = jnp.zeros(2), jnp.zeros(3)
W = jnp.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0]])
ERRORS = {}


def mistake(kind, match):
    """Register the decorated function as a mistake that raises `kind` with this remedy."""

    def register(function):
        assert function.__name__ not in ERRORS
        ERRORS[function.__name__] = (function, kind, match)
        return function

    return register


def linear(z):
    return W @ z


def conditional(z, c):
    return W @ z + c


def heads(z):
    return W @ z, jnp.exp(W @ z)


def gan(**kwargs):
    return ngp.GANPrior(linear, 2, **kwargs)


def vae(scale=0.1, **kwargs):
    return ngp.VAEPrior(linear, 2, scale=scale, **kwargs)


def flow(**kwargs):
    return ngp.FlowPrior(fd.Normal(jnp.zeros(3), jnp.ones(3)), **kwargs)


def model(prior, obs=None, mask=None):
    numpyro.sample("x", prior if mask is None else prior.mask(mask), obs=obs)


def run(model, *args, **kwargs):
    return handlers.trace(handlers.seed(model, KEY)).get_trace(*args, **kwargs)


# ---- networks ------------------------------------------------------------------------------------


@mistake(ValueError, r"Check latent= against the network's input size")
def wrong_latent_size():
    ngp.GANPrior(linear, 5)


@mistake(ValueError, r"Pass lambda z: net\(z\[None\]\)\[0\]")
def a_batched_network():
    def batched(z):
        return jnp.einsum("ni,ji->nj", z, W)

    ngp.GANPrior(batched, 2)


@mistake(TypeError, r"Use VAEPrior\(net, latent, scale=None\)")
def two_outputs_for_a_gan():
    ngp.GANPrior(heads, 2)


@mistake(TypeError, r"Pass scale=0\.1 \(or an array\) to VAEPrior")
def one_output_for_a_vae_without_scale():
    ngp.VAEPrior(linear, 2, scale=None)


@mistake(TypeError, r"VAEPrior\(net, latent, scale=None\)|return the first output")
def two_outputs_for_a_vae_with_scale():
    ngp.VAEPrior(heads, 2, scale=0.1)


@mistake(TypeError, r"Return one array of the event's shape")
def a_dictionary_from_the_network():
    ngp.GANPrior(lambda z: {"image": z}, 2)


@mistake(TypeError, r"model counts or labels in the likelihood")
def integer_events():
    ngp.GANPrior(lambda z: jnp.round(z).astype(int), 2)


@mistake(TypeError, r"floating|model counts or labels in the likelihood")
def complex_events():
    ngp.GANPrior(jnp.fft.fft, 2)


@mistake(ValueError, r"Load the weights again or train again")
def nan_weights():
    net = eqx.nn.MLP(2, 3, 4, 1, key=KEY)
    ngp.GANPrior(jax.tree.map(lambda a: a * jnp.nan if eqx.is_array(a) else a, net), 2)


@mistake(ValueError, r"Load the weights again or train again")
def infinite_weights_in_a_closure():
    weights = jnp.full((3, 2), jnp.inf)
    ngp.VAEPrior(lambda z: weights @ z, 2, scale=0.1)


@mistake(ValueError, r"Load the weights again or train again")
def nan_weights_of_a_flow():
    ngp.FlowPrior(fd.Normal(jnp.full(3, jnp.nan), jnp.ones(3)))


@mistake(TypeError, r"from_haiku,? .*Flax with from_flax or from_nnx")
def parameters_for_a_network():
    ngp.GANPrior({"w": W}, 2)


@mistake(TypeError, r"from_haiku,? .*Flax with from_flax or from_nnx")
def a_haiku_transform_for_a_network():
    ngp.GANPrior(hk.transform(linear), 2)


@mistake(TypeError, r"Pass ngp\.networks\.from_flax\(module, variables\)")
def a_flax_module_without_variables():
    import flax.linen as nn

    ngp.GANPrior(nn.Dense(3), 2)


@mistake(TypeError, r"Pass hk\.transform\(f\) with a function f of one latent")
def from_haiku_of_a_function():
    ngp.networks.from_haiku(linear, {})


@mistake(ValueError, r"Remove dropout or pass its switch")
def from_haiku_of_a_random_network():
    transformed = hk.transform(lambda z: hk.dropout(hk.next_rng_key(), 0.5, z))
    ngp.GANPrior(ngp.networks.from_haiku(transformed, {}), 2)


@mistake(ValueError, r"Pass it as the third argument")
def from_haiku_without_the_state():
    transformed = hk.transform_with_state(linear)
    ngp.networks.from_haiku(transformed, {})


@mistake(TypeError, r"Use from_nnx\(module\) for an nnx\.Module")
def from_flax_of_a_class():
    import flax.linen as nn

    ngp.networks.from_flax(nn.Dense, {})


@mistake(ValueError, r"Build the module yourself and pass it as `like=`")
def an_unknown_architecture():
    architectures.build("Transformer", {})


@mistake(ValueError, r"expected a name among relu")
def an_unknown_activation():
    architectures.MLPDecoder(2, 3, activation="swoosh", key=KEY)


# ---- latents and shapes --------------------------------------------------------------------------


@mistake(TypeError, r"Pass the size of a standard normal latent")
def a_float_for_a_latent():
    ngp.GANPrior(linear, 2.0)


@mistake(TypeError, r"Pass the size of a standard normal latent")
def a_latent_of_size_zero():
    ngp.GANPrior(linear, 0)


@mistake(ValueError, r"Make them event dimensions: latent\.to_event\(1\)")
def a_latent_with_batch_dimensions():
    ngp.GANPrior(linear, dist.Normal(jnp.zeros(2), 1.0))


@mistake(ValueError, r"Use one prior a value and mix them")
def a_discrete_latent():
    ngp.GANPrior(linear, dist.Bernoulli(0.5 * jnp.ones(2)).to_event(1))


@mistake(ValueError, r"Batch dimensions come first, the latent's own last")
def decoding_a_latent_of_another_size():
    gan().decode(jnp.zeros((4, 3)))


@mistake(ValueError, r"Batch dimensions come first, the event's own last")
def the_density_of_an_event_of_another_shape():
    flow().log_prob(jnp.zeros(4))


@mistake(ValueError, r"Batch dimensions come first, the event's own last")
def the_bound_of_an_event_of_another_shape():
    vae().log_prob_bound(KEY, jnp.zeros(4))


@mistake(ValueError, r"Pass the constraint of one number")
def a_support_with_too_many_dimensions():
    gan(support=constraints.independent(constraints.real, 2))


@mistake(ValueError, r"Model counts or labels in the likelihood")
def a_discrete_support():
    gan(support=constraints.nonnegative_integer)


# ---- conditions ----------------------------------------------------------------------------------


@mistake(ValueError, r"Pass condition=array; a model replaces it with prior\.given\(c\)")
def a_missing_condition():
    ngp.GANPrior(conditional, 2)


@mistake(ValueError, r"or leave out condition=")
def a_condition_for_an_unconditional_network():
    gan(condition=jnp.zeros(3))


@mistake(ValueError, r"Give one condition \(batch dimensions in front\)")
def a_condition_of_the_wrong_shape():
    net = architectures.MLPDecoder(2, 3, hidden=(4,), condition_size=3, key=KEY)
    ngp.GANPrior(net, 2, condition=jnp.zeros(4))


@mistake(ValueError, r"Put batch dimensions in front")
def another_condition_of_the_wrong_shape():
    ngp.GANPrior(conditional, 2, condition=jnp.zeros(3)).given(jnp.zeros(4))


@mistake(ValueError, r"Build it with condition= from a network that takes \(latent, condition\)")
def given_on_an_unconditional_prior():
    gan().given(jnp.zeros(3))


@mistake(TypeError, r"Pass labels as an integer array")
def a_float_for_a_label():
    CASES["gan_labelled"].make(KEY).given(0.5)


@mistake(ValueError, r"Number the labels from zero")
def a_label_too_large():
    ngp.GANPrior(lambda z, c: z * c, 2, condition=2**25)


@mistake(ValueError, r"Pass condition=array; a model replaces it with prior\.given\(c\)")
def a_conditional_flow_without_condition():
    base = fd.StandardNormal((2,))
    ngp.FlowPrior(ff.coupling_flow(KEY, base_dist=base, cond_dim=3, flow_layers=1))


@mistake(ValueError, r"Leave out condition=, or train a conditional flow")
def a_condition_for_an_unconditional_flow():
    flow(condition=jnp.zeros(2))


# ---- scales and densities ------------------------------------------------------------------------


@mistake(ValueError, r"for no noise at all use GANPrior")
def a_scale_of_zero():
    vae(scale=0.0)


@mistake(ValueError, r"for no noise at all use GANPrior")
def thickened_by_a_negative_scale():
    gan().thicken(-1.0)


@mistake(ValueError, r"Give one value, or one value for each entry of the event")
def a_scale_of_the_wrong_shape():
    vae(scale=jnp.ones(2))


@mistake(ValueError, r"Return the mean and the standard deviation of the latent")
def an_encoder_with_outputs_of_another_size():
    vae(encoder=lambda x: (x, x))


@mistake(TypeError, r"Return the mean and the standard deviation of the latent")
def an_encoder_with_one_output():
    vae(encoder=lambda x: x[:2])


@mistake(ValueError, r"Pass an unbatched network that returns \(loc, scale\)")
def an_encoder_of_events_of_another_size():
    vae(encoder=eqx.nn.Linear(7, 2, key=KEY))


@mistake(ValueError, r"Pass num_samples=64")
def a_bound_from_no_samples():
    vae().log_prob_bound(KEY, X, num_samples=0)


@mistake(NotImplementedError, r"@ngp\.latent.*ngp\.sample.*thicken")
def the_density_of_a_gan():
    gan().log_prob(X)


@mistake(NotImplementedError, r"@ngp\.latent.*log_prob_bound")
def the_density_of_a_vae():
    vae().log_prob(X)


@mistake(NotImplementedError, r"@ngp\.latent")
def the_score_of_a_vae():
    vae().score(X)


@mistake(NotImplementedError, r"Use it under @ngp\.latent\(explicit=True\)")
def the_density_of_a_flow_without_inverse():
    CASES["planar"].make(KEY).log_prob(Z)


# ---- flows and Gaussians -------------------------------------------------------------------------


@mistake(TypeError, r"Wrap it as one of these, or pass a decoder to GANPrior or VAEPrior")
def a_function_for_a_flow():
    ngp.FlowPrior(linear, latent=2)


@mistake(ValueError, r"Pass latent=d \(a standard normal of size d\)")
def a_transform_without_a_latent():
    ngp.FlowPrior(transforms.ExpTransform())


@mistake(ValueError, r"Leave out latent= to take the flow's own base")
def a_latent_that_does_not_fit_the_flow():
    flow(latent=5)


@mistake(ValueError, r"Leave out support=, or end the flow with a map onto the support")
def a_support_that_the_flow_does_not_have():
    flow(support=constraints.positive)


@mistake(ValueError, r"Pass e\.g\. support=constraints\.unit_interval, or constraints\.real")
def a_flow_whose_support_is_unknown():
    spline = fb.RationalQuadraticSpline(knots=3, interval=1)
    ngp.FlowPrior(fb.Chain([fb.Exp(), spline]))


@mistake(NotImplementedError, r"Build it the other way round \(FlowJAX: invert=False\)")
def a_flow_that_cannot_be_sampled():
    ngp.FlowPrior(ff.planar_flow(KEY, base_dist=fd.StandardNormal((2,)), flow_layers=1))


@mistake(ValueError, r"Move the condition into the bijection")
def a_flow_over_a_conditional_base():
    base = ff.coupling_flow(KEY, base_dist=fd.StandardNormal((2,)), cond_dim=1, flow_layers=1)

    class Law(fd.AbstractDistribution):
        law: fd.AbstractDistribution
        shape: tuple = (2,)
        cond_shape: tuple = (1,)

        def _sample(self, key, condition=None):
            return self.law._sample(key, condition)

        def _log_prob(self, x, condition=None):
            return self.law._log_prob(x, condition)

    ngp.FlowPrior(fd.Transformed(Law(base), fb.Identity((2,))), condition=jnp.zeros(1))


@mistake(ValueError, r"Put the rank last; use rank 0 for independent entries")
def a_factor_without_rank():
    ngp.GaussianPrior(X, factor=jnp.ones(3), diagonal=1.0)


@mistake(ValueError, r"Pass a standard deviation|positive")
def a_variance_of_zero():
    ngp.GaussianPrior(X, factor=jnp.ones((3, 1)), diagonal=jnp.array([1.0, 0.0, 1.0]))


@mistake(ValueError, r"Choose a smaller rank, or give more events")
def more_rank_than_events():
    ngp.GaussianPrior.from_samples(np.eye(4), rank=4)


@mistake(ValueError, r"Stack the events along a first dimension")
def one_event_for_samples():
    ngp.GaussianPrior.from_samples(np.ones(4), rank=1)


@mistake(ValueError, r"Remove those events")
def nan_in_samples():
    ngp.GaussianPrior.from_samples(np.full((5, 4), np.nan), rank=1)


@mistake(ValueError, r"Bound it at frequency 0")
def a_spectrum_that_is_infinite_at_zero():
    with np.errstate(divide="ignore"):
        ngp.GaussianFieldPrior(8, lambda k: 1 / k**2)


@mistake(ValueError, r"Pass a function of the radial frequency")
def a_spectrum_of_the_wrong_shape():
    ngp.GaussianFieldPrior(8, jnp.ones(8))


@mistake(ValueError, r"Pass e\.g\. \(64, 64\)")
def a_grid_without_points():
    ngp.GaussianFieldPrior((), lambda k: k)


# ---- keys ----------------------------------------------------------------------------------------


@mistake(
    TypeError, r"Pass jax\.random\.key\(0\); inside a model, run it under numpyro\.handlers\.seed"
)
def an_integer_for_a_key():
    gan().sample(0)


@mistake(ValueError, r"Pass jax\.random\.key\(0\), or seed the model")
def no_key():
    ngp.sample("x", gan())


@mistake(TypeError, r"Pass jax\.random\.key\(0\)")
def several_keys():
    flow().sample(jax.random.split(KEY, 3))


@mistake(TypeError, r"Pass jax\.random\.key\(0\)")
def floats_for_a_key():
    vae().log_prob_bound(jnp.zeros(2), X)


# ---- models --------------------------------------------------------------------------------------


@mistake(NotImplementedError, r"Put @ngp\.latent on the model")
def nuts_without_the_decorator():
    mcmc = MCMC(NUTS(model), num_warmup=1, num_samples=1, progress_bar=False)
    mcmc.run(KEY, gan())


@mistake(NotImplementedError, r"Put @ngp\.latent on the model")
def svi_without_the_decorator():
    SVI(model, AutoNormal(model), Adam(1e-3), Trace_ELBO()).init(KEY, vae())


@mistake(ValueError, r"Observe the data through a likelihood")
def an_observed_gan():
    run(ngp.latent(model), gan(), X)


@mistake(ValueError, r"Observe the data through a likelihood")
def an_observed_gan_of_one_site():
    handlers.seed(lambda: ngp.sample("x", gan(), obs=X), KEY)()


@mistake(ValueError, r'Use noise="centered" \(or None\), which takes obs')
def an_observed_vae_with_noncentered_noise():
    run(ngp.latent(model, noise="noncentered"), vae(), X)


@mistake(ValueError, r"Observe the data through a likelihood|noise=")
def an_observed_vae_without_noise():
    run(ngp.latent(model, noise="none"), vae(), X)


@mistake(ValueError, r"Leave noise=None for the usual choice")
def an_unknown_noise():
    ngp.latent(model, noise="white")


@mistake(ValueError, r'Use noise="none" with record=False')
def an_unrecorded_event_with_its_noise_recorded():
    run(ngp.latent(model, record=False), vae())


@mistake(ValueError, r"Leave this site out of the config of handlers\.reparam")
def latent_reparam_of_a_normal():
    config = {"x": ngp.LatentReparam()}
    run(handlers.reparam(model, config=config), dist.Normal(0.0, 1.0))


@mistake(ValueError, r"Give a value to 'x_latent', or observe 'x' through a likelihood")
def a_conditioned_event():
    run(handlers.condition(ngp.latent(model), {"x": X}), gan())


@mistake(ValueError, r"Give a value to 'x_latent', or observe 'x' through a likelihood")
def an_intervention_on_an_event():
    run(handlers.do(ngp.latent(model), {"x": X}), gan())


@mistake(ValueError, r"Give a value to 'x_latent', or observe 'x' through a likelihood")
def a_substituted_event():
    run(handlers.substitute(ngp.latent(model), {"x": X}), gan())


@mistake(ValueError, r"Give a value to 'x_latent', or observe 'x' through a likelihood")
def a_replayed_event():
    guide = run(lambda: numpyro.sample("x", dist.Normal(X, 1.0).to_event(1)))
    run(handlers.replay(ngp.latent(model), guide), gan())


@mistake(NotImplementedError, r"Decorate the model with @ngp\.latent")
def an_exact_prior_in_scan_without_the_decorator():
    def scanned(prior):
        scan(lambda carry, _: (carry, numpyro.sample("x", prior)), 0.0, None, length=2)

    run(scanned, flow())


@mistake(TypeError, r"Pass the prior itself; for other networks use numpyro\.param")
def param_of_a_network():
    run(lambda: ngp.param("net", linear))


@mistake(ValueError, r"Pass the network as an Equinox module")
def param_of_a_network_without_weights():
    run(lambda: ngp.param("prior", ngp.GANPrior(jnp.tanh, 2)))


@mistake(ValueError, r"Leave out scale=True")
def param_of_a_scale_that_is_not_there():
    run(lambda: ngp.param("prior", gan(), scale=True))


# ---- keeping, traces, training -------------------------------------------------------------------


@mistake(FileNotFoundError, r"nowhere\.prior")
def loading_a_file_that_is_not_there():
    ngp.load("nowhere.prior")


@mistake(TypeError, r"(?i)prior")
def saving_a_network():
    ngp.save("network.prior", linear)


@mistake(ValueError, r"call mcmc\.run first|Call mcmc\.run first")
def arviz_of_a_run_that_did_not_happen():
    ngp.to_arviz(MCMC(NUTS(model), num_warmup=1, num_samples=1))


@mistake(TypeError, r"(?i)prior")
def decoding_by_a_network():
    ngp.decode(linear, jnp.zeros((4, 2)))


@mistake(TypeError, r"Derive the class from ngp\.Prior")
def checking_a_normal():
    ngp.testing.check_prior(dist.Normal(0.0, 1.0))


@mistake(ValueError, r"Choose from .*shapes")
def an_unknown_check():
    ngp.testing.check_prior(gan(), checks=["everything"])


@pytest.mark.parametrize("name", ERRORS)
def test_message(name):
    function, kind, match = ERRORS[name]
    with pytest.raises(kind, match=match):
        function()


def test_the_table_is_long_enough():
    assert len(ERRORS) >= 40


def test_value_dependent_faults_do_not_raise():
    """Outside of the support, at NaN and at infinity the density is zero: NumPyro diverges."""
    prior = ngp.FlowPrior(fd.LogNormal(jnp.zeros(2)))
    bad = jnp.array([[-1.0, 1.0], [jnp.nan, 1.0], [jnp.inf, 1.0], [1.0, 1.0]])
    log_prob = jax.jit(prior.log_prob)(bad)
    assert np.isneginf(log_prob[:3]).all()
    assert np.isfinite(log_prob[3])


def test_an_undecorated_model_given_draws_of_the_latent_warns():
    from numpyro.infer import Predictive

    draws = {"x_latent": jnp.ones((3, 2))}
    with pytest.warns(UserWarning, match=r"Decorate the model with @ngp\.latent"):
        Predictive(model, draws)(KEY, gan())
    for handler in (handlers.substitute, handlers.condition):
        with pytest.warns(UserWarning, match=r"Decorate the model with @ngp\.latent"):
            run(handler(model, {"x_latent": Z}), gan())
