"""Mistakes with networks, latents and conditions, each with the message that it must give.

Mistakes with the adapters to other libraries are in test_adapters.py.
"""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from cases import CASES
from error_cases import KEY, Table, W, conditional, flow, gan, heads, linear, vae
from flowjax import distributions as fd
from flowjax import flows as ff
from numpyro.distributions import constraints

import numpyro_genprior as ngp
from numpyro_genprior.networks import architectures

ERRORS = Table()


# ---- networks ------------------------------------------------------------------------------------


@ERRORS.mistake(ValueError, r"Check latent= against the network's input size")
def wrong_latent_size():
    ngp.GANPrior(linear, 5)


@ERRORS.mistake(ValueError, r"Pass lambda z: net\(z\[None\]\)\[0\]")
def a_batched_network():
    def batched(z):
        return jnp.einsum("ni,ji->nj", z, W)

    ngp.GANPrior(batched, 2)


@ERRORS.mistake(TypeError, r"Use VAEPrior\(net, latent, scale=None\)")
def two_outputs_for_a_gan():
    ngp.GANPrior(heads, 2)


@ERRORS.mistake(TypeError, r"Pass scale=0\.1 \(or an array\) to VAEPrior")
def one_output_for_a_vae_without_scale():
    ngp.VAEPrior(linear, 2, scale=None)


@ERRORS.mistake(TypeError, r"VAEPrior\(net, latent, scale=None\)|return the first output")
def two_outputs_for_a_vae_with_scale():
    ngp.VAEPrior(heads, 2, scale=0.1)


@ERRORS.mistake(TypeError, r"Return one array of the event's shape")
def a_dictionary_from_the_network():
    ngp.GANPrior(lambda z: {"image": z}, 2)


@ERRORS.mistake(TypeError, r"model counts or labels in the likelihood")
def integer_events():
    ngp.GANPrior(lambda z: jnp.round(z).astype(int), 2)


@ERRORS.mistake(TypeError, r"floating|model counts or labels in the likelihood")
def complex_events():
    ngp.GANPrior(jnp.fft.fft, 2)


@ERRORS.mistake(ValueError, r"Load the weights again or train again")
def nan_weights():
    net = eqx.nn.MLP(2, 3, 4, 1, key=KEY)
    ngp.GANPrior(jax.tree.map(lambda a: a * jnp.nan if eqx.is_array(a) else a, net), 2)


@ERRORS.mistake(ValueError, r"Load the weights again or train again")
def infinite_weights_in_a_closure():
    weights = jnp.full((3, 2), jnp.inf)
    ngp.VAEPrior(lambda z: weights @ z, 2, scale=0.1)


@ERRORS.mistake(ValueError, r"Load the weights again or train again")
def nan_weights_of_a_flow():
    ngp.FlowPrior(fd.Normal(jnp.full(3, jnp.nan), jnp.ones(3)))


@ERRORS.mistake(TypeError, r"from_haiku,? .*Flax with from_flax or from_nnx")
def parameters_for_a_network():
    ngp.GANPrior({"w": W}, 2)


@ERRORS.mistake(TypeError, r"from_haiku,? .*Flax with from_flax or from_nnx")
def a_haiku_transform_for_a_network():
    ngp.GANPrior(hk.transform(linear), 2)


@ERRORS.mistake(TypeError, r"Pass ngp\.networks\.from_flax\(module, variables\)")
def a_flax_module_without_variables():
    import flax.linen as nn

    ngp.GANPrior(nn.Dense(3), 2)


@ERRORS.mistake(TypeError, r"Pass hk\.transform\(f\) with a function f of one latent")
def from_haiku_of_a_function():
    ngp.networks.from_haiku(linear, {})


@ERRORS.mistake(ValueError, r"Remove dropout or pass its switch")
def from_haiku_of_a_random_network():
    transformed = hk.transform(lambda z: hk.dropout(hk.next_rng_key(), 0.5, z))
    ngp.GANPrior(ngp.networks.from_haiku(transformed, {}), 2)


@ERRORS.mistake(ValueError, r"Pass it as the third argument")
def from_haiku_without_the_state():
    transformed = hk.transform_with_state(linear)
    ngp.networks.from_haiku(transformed, {})


@ERRORS.mistake(TypeError, r"Use from_nnx\(module\) for an nnx\.Module")
def from_flax_of_a_class():
    import flax.linen as nn

    ngp.networks.from_flax(nn.Dense, {})


@ERRORS.mistake(ValueError, r"Build the module yourself and pass it as `like=`")
def an_unknown_architecture():
    architectures.build("Transformer", {})


@ERRORS.mistake(ValueError, r"expected a name among relu")
def an_unknown_activation():
    architectures.MLPDecoder(2, 3, activation="swoosh", key=KEY)


@ERRORS.mistake(TypeError, r"Pass an instance of it")
def a_class_for_a_network():
    ngp.GANPrior(eqx.nn.MLP, 2)


@ERRORS.mistake(TypeError, r"Pass ngp\.networks\.from_flax\(\*module\.unbind\(\)\)")
def a_bound_flax_module():
    import flax.linen as nn

    module = nn.Dense(3)
    ngp.GANPrior(module.bind(module.init(KEY, jnp.zeros(2))), 2)


@ERRORS.mistake(TypeError, r"Pass ngp\.networks\.from_nnx\(module\)")
def an_nnx_module():
    from flax import nnx

    ngp.GANPrior(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), 2)


@ERRORS.mistake(ValueError, r"Write it with jax\.numpy, without branches on values")
def a_network_in_numpy():
    ngp.GANPrior(lambda z: np.tanh(np.asarray(W) @ np.asarray(z)), 2)


@ERRORS.mistake(ValueError, r"eqx\.nn\.inference_mode\(net\)")
def dropout_in_training_mode():
    ngp.GANPrior(eqx.nn.Sequential([eqx.nn.Linear(2, 3, key=KEY), eqx.nn.Dropout()]), 2)


@ERRORS.mistake(ValueError, r"Return one positive standard deviation, or one for each entry")
def an_own_scale_of_the_wrong_shape():
    ngp.VAEPrior(lambda z: (W @ z, z), 2, scale=None)


@ERRORS.mistake(NotImplementedError, r"Write _decode\(self, z, condition\)")
def a_prior_without_decode():
    class Empty(ngp.Prior):
        pass

    Empty(2)


# ---- latents and shapes --------------------------------------------------------------------------


@ERRORS.mistake(TypeError, r"Pass the size of a standard normal latent")
def a_float_for_a_latent():
    ngp.GANPrior(linear, 2.0)


@ERRORS.mistake(TypeError, r"Pass the size of a standard normal latent")
def a_latent_of_size_zero():
    ngp.GANPrior(linear, 0)


@ERRORS.mistake(ValueError, r"Make them event dimensions: latent\.to_event\(1\)")
def a_latent_with_batch_dimensions():
    ngp.GANPrior(linear, dist.Normal(jnp.zeros(2), 1.0))


@ERRORS.mistake(ValueError, r"Use one prior for each value and mix them")
def a_discrete_latent():
    ngp.GANPrior(linear, dist.Bernoulli(0.5 * jnp.ones(2)).to_event(1))


@ERRORS.mistake(ValueError, r"Batch dimensions come first, the latent's own last")
def decoding_a_latent_of_another_size():
    gan().decode(jnp.zeros((4, 3)))


@ERRORS.mistake(ValueError, r"Batch dimensions come first, the event's own last")
def the_density_of_an_event_of_another_shape():
    flow().log_prob(jnp.zeros(4))


@ERRORS.mistake(ValueError, r"Batch dimensions come first, the event's own last")
def the_bound_of_an_event_of_another_shape():
    vae().log_prob_bound(KEY, jnp.zeros(4))


@ERRORS.mistake(ValueError, r"Pass the constraint of one number")
def a_support_with_too_many_dimensions():
    gan(support=constraints.independent(constraints.real, 2))


@ERRORS.mistake(TypeError, r"Pass a number or an array")
def decoding_a_dictionary():
    gan().decode({"x_latent": jnp.zeros(2)})


@ERRORS.mistake(TypeError, r"Pass real x")
def the_density_of_a_complex_event():
    flow().log_prob(jnp.zeros(3, complex))


@ERRORS.mistake(TypeError, r"Pass e\.g\. constraints\.unit_interval")
def a_support_that_is_a_class():
    gan(support=constraints.interval)


@ERRORS.mistake(ValueError, r"Model counts or labels in the likelihood")
def a_discrete_support():
    gan(support=constraints.nonnegative_integer)


# ---- conditions ----------------------------------------------------------------------------------


@ERRORS.mistake(ValueError, r"Pass condition=array; a model replaces it with prior\.given\(c\)")
def a_missing_condition():
    ngp.GANPrior(conditional, 2)


@ERRORS.mistake(ValueError, r"or leave out condition=")
def a_condition_for_an_unconditional_network():
    gan(condition=jnp.zeros(3))


@ERRORS.mistake(ValueError, r"Give one condition \(batch dimensions in front; labels as integers\)")
def a_condition_of_the_wrong_shape():
    net = architectures.MLPDecoder(2, 3, hidden=(4,), condition_size=3, key=KEY)
    ngp.GANPrior(net, 2, condition=jnp.zeros(4))


@ERRORS.mistake(TypeError, r"Pass a number or an array")
def a_word_for_a_condition():
    ngp.GANPrior(conditional, 2, condition="seven")


@ERRORS.mistake(ValueError, r"Pass finite numbers")
def a_condition_of_nan():
    ngp.GANPrior(conditional, 2, condition=jnp.full(3, jnp.nan))


@ERRORS.mistake(ValueError, r"Give one value for each condition")
def latents_that_do_not_fit_the_conditions():
    ngp.GANPrior(conditional, 2, condition=jnp.zeros((4, 3))).decode(jnp.zeros((5, 2)))


@ERRORS.mistake(ValueError, r"A switch, a key or a state is not a condition")
def a_missing_switch():
    ngp.GANPrior(lambda z, train: W @ z, 2)


@ERRORS.mistake(ValueError, r"Put batch dimensions in front")
def another_condition_of_the_wrong_shape():
    ngp.GANPrior(conditional, 2, condition=jnp.zeros(3)).given(jnp.zeros(4))


@ERRORS.mistake(ValueError, r"Build it with condition= from a network of \(latent, condition\)")
def given_on_an_unconditional_prior():
    gan().given(jnp.zeros(3))


@ERRORS.mistake(TypeError, r"Pass labels as an integer array")
def a_float_for_a_label():
    CASES["gan_labelled"].make(KEY).given(0.5)


@ERRORS.mistake(ValueError, r"Number the labels from zero")
def a_label_too_large():
    ngp.GANPrior(lambda z, c: z * c, 2, condition=2**25)


@ERRORS.mistake(ValueError, r"Pass condition=array; a model replaces it with prior\.given\(c\)")
def a_conditional_flow_without_condition():
    base = fd.StandardNormal((2,))
    ngp.FlowPrior(ff.coupling_flow(KEY, base_dist=base, cond_dim=3, flow_layers=1))


@ERRORS.mistake(ValueError, r"Leave out condition=, or train a conditional flow")
def a_condition_for_an_unconditional_flow():
    flow(condition=jnp.zeros(2))


@pytest.mark.parametrize("name", ERRORS)
def test_message(name):
    ERRORS.check(name)
