"""Priors by name, built lazily, with the traits that tests branch on.

All are tiny (2 to 6 numbers per event): the tests look at shapes, gradients and densities, and
every case costs compilations. ``case.make(key)`` with two keys gives two sets of weights of one
skeleton.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from flowjax import bijections as fb
from flowjax import distributions as fd
from flowjax import flows as ff
from numpyro.distributions import constraints, transforms
from numpyro.distributions.flows import InverseAutoregressiveTransform

import numpyro_genprior as ngp
from numpyro_genprior.networks.architectures import ConvDecoder, MLPDecoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TensorFlow Probability announces what JAX will remove
    import distrax


@dataclass(frozen=True)
class Case:
    """A prior and its traits.

    ``bounded``: events do not fill the real space. ``one_way``: the flow has no inverse.
    ``iterative``: a direction of the flow is found by iteration, to a tolerance of its own.
    ``integer``: the condition is one of labels. ``pickles``: by cloudpickle. ``promotes``: a
    NumPyro distribution inside promotes ranks when it draws samples. ``simplex``: events have fewer
    free coordinates than numbers. ``flat``: the density is constant on its support.
    """

    name: str
    make: Callable[[jax.Array], Any]
    density: str
    latent_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    condition_shape: tuple[int, ...] | None = None
    integer: bool = False
    bounded: bool = False
    one_way: bool = False
    iterative: bool = False
    pickles: bool = True
    weights: bool = True
    promotes: bool = False
    simplex: bool = False
    flat: bool = False

    @property
    def exact(self) -> bool:
        return self.density == "exact"

    @property
    def conditional(self) -> bool:
        return self.condition_shape is not None

    @property
    def slow(self) -> bool:
        """Whether the default tier leaves this case out."""
        return self.name not in DEFAULT_TIER

    def __repr__(self) -> str:
        return self.name


CASES: dict[str, Case] = {}

# The default tier tests these: each density, library, trait and kind of latent at least once.
# `pytest --all` tests every case.
DEFAULT_TIER = {
    "gan",
    "gan_conv",
    "gan_labelled",
    "gan_of_a_number",
    "vae_with_scale_of_its_own",
    "vae_conditional",
    "vae_over_a_gan",
    "coupling_conditional",
    "planar",
    "flow_onto_the_unit_square",
    "distrax_coupling",
    "numpyro_autoregressive",
    "numpyro_simplex",
    "gaussian",
    "field_even",
}


def case(density, latent, event, **traits):
    """Register the decorated ``make`` under its name."""

    def register(make):
        name = make.__name__
        CASES[name] = Case(name, make, density, latent, event, **traits)
        return make

    return register


def select(**traits: Any) -> list[Any]:
    """The cases that have all of these traits."""
    return [
        c
        for c in CASES.values()
        if all(getattr(c, name) == value for name, value in traits.items())
    ]


class Heads(eqx.Module):
    """Mean and standard deviation, from one or two inputs."""

    loc: eqx.nn.Linear
    scale: eqx.nn.Linear

    def __init__(self, size_in, size_out, key):
        first, second = jr.split(key)
        self.loc = eqx.nn.Linear(size_in, size_out, key=first)
        self.scale = eqx.nn.Linear(size_in, size_out, key=second)

    def __call__(self, z, condition=None):
        h = z if condition is None else jnp.concatenate([z, condition])
        return jnp.tanh(self.loc(h)), 0.1 + jax.nn.softplus(self.scale(h))


class Labelled(eqx.Module):
    """A generator that takes an integer label."""

    table: jax.Array
    linear: eqx.nn.Linear

    def __init__(self, size_in, size_out, key):
        first, second = jr.split(key)
        self.table = jr.normal(first, (3, size_in))
        self.linear = eqx.nn.Linear(size_in, size_out, key=second)

    def __call__(self, z, label):
        return jnp.tanh(self.linear(z + self.table[label]))


def mlp(key, size_in, size_out, condition_size=None):
    return MLPDecoder(
        size_in,
        size_out,
        hidden=(4,),
        activation="tanh",
        output="identity",
        condition_size=condition_size,
        key=key,
    )


# ---- generators ----------------------------------------------------------------------------------


@case("none", (2,), (4,))
def gan(key):
    return ngp.GANPrior(mlp(key, 2, 4), 2)


@case("none", (2,), (2, 3))
def gan_of_a_closure(key):
    weights = jr.normal(key, (2, 3))
    return ngp.GANPrior(lambda z: jnp.tanh(z[:, None] * weights), 2)


@case("none", (2,), (4, 4, 1), bounded=True)
def gan_conv(key):
    net = ConvDecoder(2, (4, 4, 1), channels=(2,), activation="tanh", key=key)
    return ngp.GANPrior(net, 2, support=constraints.unit_interval)


@case("none", (2,), (3,), condition_shape=(2,))
def gan_conditional(key):
    return ngp.GANPrior(mlp(key, 2, 3, 2), 2, condition=jnp.array([0.5, -1.0]))


@case("none", (2,), (3,), condition_shape=(), integer=True)
def gan_labelled(key):
    return ngp.GANPrior(Labelled(2, 3, key), 2, condition=jnp.array(1))


@case("none", (2, 2), (3,))
def gan_of_a_latent_array(key):
    net = eqx.nn.MLP(4, 3, 4, 1, activation=jnp.tanh, key=key)
    return ngp.GANPrior(eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), net]), (2, 2))


@case("none", (2,), ())
def gan_of_a_number(key):
    return ngp.GANPrior(eqx.nn.MLP(2, "scalar", 4, 1, activation=jnp.tanh, key=key), 2)


@case("none", (2,), (4,), promotes=True)
def gan_of_another_latent_law(key):
    latent = dist.Laplace(jnp.array([0.5, -0.5]), 2.0).to_event(1)
    return ngp.GANPrior(mlp(key, 2, 4), latent)


# ---- decoders with noise -------------------------------------------------------------------------


@case("conditional", (2,), (4,))
def vae(key):
    return ngp.VAEPrior(mlp(key, 2, 4), 2, scale=0.3)


@case("conditional", (2,), (4,))
def vae_with_scale_of_entries(key):
    return ngp.VAEPrior(mlp(key, 2, 4), 2, scale=jnp.array([0.1, 0.2, 0.3, 0.4]))


@case("conditional", (2,), (4,))
def vae_with_scale_of_its_own(key):
    return ngp.VAEPrior(Heads(2, 4, key), 2, scale=None)


@case("conditional", (2,), (4,))
def vae_with_encoder(key):
    first, second = jr.split(key)
    return ngp.VAEPrior(mlp(first, 2, 4), 2, scale=0.3, encoder=Heads(4, 2, second))


@case("conditional", (2,), (3,), condition_shape=(2,))
def vae_conditional(key):
    first, second = jr.split(key)
    condition = jnp.array([0.5, -1.0])
    encoder = Heads(5, 2, second)
    net = mlp(first, 2, 3, 2)
    return ngp.VAEPrior(net, 2, scale=0.3, encoder=encoder, condition=condition)


@case("conditional", (2,), (3,), condition_shape=(), integer=True)
def vae_labelled(key):
    return ngp.VAEPrior(Labelled(2, 3, key), 2, scale=0.3, condition=jnp.array(2))


@case("conditional", (2,), (4,), pickles=False)
def vae_over_a_flow(key):
    first, second = jr.split(key)
    return ngp.VAEPrior(mlp(first, 2, 4), coupling_affine(second), scale=0.3)


@case("conditional", (3,), (4,))
def vae_over_a_gan(key):
    first, second = jr.split(key)
    return ngp.VAEPrior(mlp(first, 3, 4), ngp.GANPrior(mlp(second, 2, 3), 2), scale=0.3)


# ---- FlowJAX -------------------------------------------------------------------------------------


def coupling(key, dim, condition_size=None, transformer=None, **kwargs):
    flow = ff.coupling_flow(
        key,
        base_dist=fd.StandardNormal((dim,)),
        transformer=transformer,
        cond_dim=condition_size,
        flow_layers=2,
        nn_width=4,
        **kwargs,
    )
    return flow


@case("exact", (2,), (2,), pickles=False)
def coupling_affine(key):
    return ngp.FlowPrior(coupling(key, 2))


@case("exact", (3,), (3,), pickles=False)
def coupling_spline(key):
    spline = fb.RationalQuadraticSpline(knots=3, interval=3)
    return ngp.FlowPrior(coupling(key, 3, transformer=spline))


@case("exact", (2,), (2,), condition_shape=(2,), pickles=False)
def coupling_conditional(key):
    return ngp.FlowPrior(coupling(key, 2, 2), condition=jnp.array([0.5, -1.0]))


@case("exact", (2,), (2,), condition_shape=(2,), integer=True, pickles=False)
def coupling_labelled(key):
    return ngp.FlowPrior(coupling(key, 2, 2), condition=jnp.array([1, 0]))


@case("exact", (2,), (2,), condition_shape=(1,), pickles=False)
def masked_autoregressive(key):
    with jax.numpy_rank_promotion("allow"):  # FlowJAX compares ranks so
        flow = ff.masked_autoregressive_flow(
            key, base_dist=fd.StandardNormal((2,)), cond_dim=1, flow_layers=1, nn_width=4
        )
    return ngp.FlowPrior(flow, condition=jnp.array([0.7]))


@case("exact", (2,), (2,), iterative=True)
def block_autoregressive(key):
    flow = ff.block_neural_autoregressive_flow(
        key, base_dist=fd.StandardNormal((2,)), nn_block_dim=2, nn_depth=1
    )
    return ngp.FlowPrior(flow)


@case("exact", (2,), (2,), one_way=True)
def planar(key):
    """Tanh planar layers in the generating direction have no inverse."""
    flow = ff.planar_flow(key, base_dist=fd.StandardNormal((2,)), flow_layers=2, invert=False)
    return ngp.FlowPrior(flow)


@case("exact", (2,), (2,), condition_shape=(1,))
def planar_conditional(key):
    flow = ff.planar_flow(
        key,
        base_dist=fd.StandardNormal((2,)),
        cond_dim=1,
        flow_layers=2,
        negative_slope=0.3,
        width_size=4,
        depth=1,
    )
    return ngp.FlowPrior(flow, condition=jnp.array([0.7]))


@case("exact", (2,), (2,))
def triangular_spline(key):
    flow = ff.triangular_spline_flow(key, base_dist=fd.StandardNormal((2,)), flow_layers=1, knots=3)
    return ngp.FlowPrior(flow)


@case("exact", (2,), (2,), pickles=False)
def flow_over_normal(key):
    """A Normal base whose location and scale are weights."""
    base = fd.Normal(jnp.array([1.0, -1.0]), jnp.array([0.5, 2.0]))
    return ngp.FlowPrior(fd.Transformed(base, coupling(key, 2).bijection))


@case("exact", (2,), (2,), pickles=False)
def flow_over_student(key):
    base = fd.StudentT(jnp.array([4.0, 6.0]))
    return ngp.FlowPrior(fd.Transformed(base, coupling(key, 2).bijection))


@case("exact", (2,), (2,), bounded=True)
def log_normal(key):
    return ngp.FlowPrior(fd.LogNormal(0.3 * jr.normal(key, (2,)), jnp.array([0.5, 1.5])))


@case("exact", (2,), (2,), bounded=True, flat=True)
def uniform(key):
    return ngp.FlowPrior(fd.Uniform(jnp.full(2, -1.0), jnp.full(2, 3.0)))


@case("exact", (2,), (2,), bounded=True)
def beta(key):
    return ngp.FlowPrior(fd.Beta(jnp.array([2.0, 3.0]), jnp.array([2.5, 1.5])))


@case("exact", (2,), (2,), bounded=True)
def gamma(key):
    return ngp.FlowPrior(fd.Gamma(jnp.array([2.0, 3.5]), jnp.array([1.0, 0.5])))


@case("exact", (2,), (2,), bounded=True, pickles=False)
def flow_onto_the_unit_square(key):
    bijection = fb.Chain([coupling(key, 2).bijection, fb.Sigmoid((2,))])
    return ngp.FlowPrior(bijection)


# ---- Distrax and NumPyro -------------------------------------------------------------------------


class Conditioner(eqx.Module):
    """Parameters of three affine maps: a module, so that JAX sees its weights."""

    net: eqx.nn.MLP

    def __call__(self, x):
        return self.net(x).reshape(3, 2)


@case("exact", (3,), (3,))
def distrax_coupling(key):
    def affine(parameters):
        return distrax.ScalarAffine(parameters[..., 0], log_scale=jnp.tanh(parameters[..., 1]))

    layers = [
        distrax.MaskedCoupling(
            jnp.array(mask), Conditioner(eqx.nn.MLP(3, 6, 4, 1, activation=jnp.tanh, key=k)), affine
        )
        for mask, k in zip(([True, False, True], [False, True, False]), jr.split(key), strict=True)
    ]
    return ngp.FlowPrior(distrax.Chain(layers), latent=3)


@case("exact", (2,), (2,))
def distrax_affine(key):
    triangular = distrax.TriangularLinear(jnp.array([[1.5, 0.0], [-0.4, 0.7]]))
    shift = distrax.Block(distrax.ScalarAffine(jr.normal(key, (2,)), log_scale=jnp.ones(2)), 1)
    return ngp.FlowPrior(distrax.Chain([shift, triangular]), latent=2)


@case("exact", (2,), (2,), bounded=True)
def numpyro_exp(key):
    affine = transforms.AffineTransform(jr.normal(key, (2,)), jnp.array([0.5, 1.5]))
    flow = transforms.ComposeTransform([affine, transforms.ExpTransform()])
    return ngp.FlowPrior(flow, latent=2)


@case("exact", (2,), (2,))
def numpyro_cholesky(key):
    scale = jnp.array([[1.5, 0.0], [-0.4, 0.7]])
    return ngp.FlowPrior(transforms.LowerCholeskyAffine(jr.normal(key, (2,)), scale), latent=2)


class Masked(eqx.Module):
    """The autoregressive network of an inverse autoregressive flow on two numbers."""

    linear: eqx.nn.Linear

    def __call__(self, x):
        shift, log_scale = self.linear(x[:1])
        zero = jnp.zeros(())
        return jnp.stack([zero, shift]), jnp.stack([zero, log_scale])


@case("exact", (2,), (2,))
def numpyro_autoregressive(key):
    """NumPyro keeps the network of this transform among its static data."""
    network = Masked(eqx.nn.Linear(1, 2, key=key))
    return ngp.FlowPrior(InverseAutoregressiveTransform(network), latent=2)


@case("exact", (2,), (3,), bounded=True, weights=False, simplex=True)
def numpyro_simplex(key):
    return ngp.FlowPrior(transforms.StickBreakingTransform(), latent=2)


# ---- Gaussians -----------------------------------------------------------------------------------


@case("exact", (4,), (3,))
def gaussian(key):
    factor = jr.normal(key, (3, 1))
    return ngp.GaussianPrior(
        jnp.array([1.0, 0.0, -1.0]), factor=factor, diagonal=jnp.array([0.2, 0.5, 1.0])
    )


@case("exact", (5,), (2, 2))
def gaussian_image(key):
    return ngp.GaussianPrior(jnp.zeros((2, 2)), factor=jr.normal(key, (2, 2, 1)), diagonal=0.5)


@case("exact", (6,), (6,))
def field_even(key):
    level = jr.uniform(key, (), minval=1.0, maxval=2.0)
    return ngp.GaussianFieldPrior(6, lambda k: level / (0.05 + k**2))


@case("exact", (5,), (5,))
def field_odd(key):
    level = jr.uniform(key, (), minval=1.0, maxval=2.0)
    return ngp.GaussianFieldPrior(5, lambda k: level / (0.05 + k**2), loc=jnp.arange(5.0))


@case("exact", (2, 3), (2, 3))
def field_image(key):
    level = jr.uniform(key, (), minval=1.0, maxval=2.0)
    return ngp.GaussianFieldPrior((2, 3), lambda k: level * jnp.exp(-((2 * k) ** 2)))
