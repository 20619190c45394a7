"""Scopes, and values that handlers outside give to sites: those accepted, those refused."""

import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from numpyro.infer import Predictive, init_to_value
from numpyro.infer.util import initialize_model
from site_models import (
    EVENT,
    LATENT,
    NOISE,
    SCALE,
    X,
    Z,
    decorated,
    flow,
    gan,
    generate,
    one_site,
    sites,
    trace_of,
    vae,
)

import numpyro_genprior as ngp


@pytest.mark.parametrize("inside", [True, False])
def test_scopes(inside):
    if inside:
        model = ngp.latent(handlers.scope(one_site, prefix="a"))
    else:
        model = handlers.scope(ngp.latent(one_site), prefix="a")
    expected = {"a/x_latent": LATENT, "a/x_noise": NOISE, "a/x": EVENT}
    assert sites(trace_of(model, vae())) == expected
    two = handlers.scope(handlers.scope(one_site, prefix="a"), prefix="b")
    assert set(sites(trace_of(ngp.latent(two), gan()))) == {"b/a/x_latent", "b/a/x"}


GIVEN = {"x": X}
REFUSED = {
    "condition": lambda m: handlers.condition(m, GIVEN),
    "condition_fn": lambda m: handlers.condition(m, condition_fn=lambda s: GIVEN.get(s["name"])),
    "do": lambda m: handlers.do(m, GIVEN),
    "substitute": lambda m: handlers.substitute(m, GIVEN),
    "substitute_fn": lambda m: handlers.substitute(m, substitute_fn=lambda s: GIVEN.get(s["name"])),
    "replay": lambda m: handlers.replay(m, trace_of(one_site, flow())),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", ["gan", "vae", "explicit"])
def test_values_of_events_from_outside_are_refused(name, kind):
    prior = {"gan": gan, "vae": vae, "explicit": flow}[kind]()
    with pytest.raises(ValueError, match="x_latent"):
        trace_of(REFUSED[name](ngp.latent(one_site, explicit=kind == "explicit")), prior)


def test_values_that_reach_the_latent_are_taken():
    model = ngp.latent(one_site)
    latent = {"x_latent": Z}
    for handler in (handlers.condition, handlers.do, handlers.substitute):
        np.testing.assert_allclose(
            trace_of(handler(model, latent), gan())["x"]["value"], generate(Z)
        )
    replayed = handlers.replay(model, trace_of(model, gan()))
    np.testing.assert_array_equal(
        handlers.trace(replayed).get_trace(gan())["x"]["value"],
        trace_of(model, gan())["x"]["value"],
    )
    exact = trace_of(handlers.condition(model, GIVEN), flow())  # an exact event has a density
    assert exact["x"]["is_observed"]


BY_FUNCTION = {
    "condition_fn": lambda m, d: handlers.condition(m, condition_fn=lambda s: d.get(s["name"])),
    "substitute_fn": lambda m, d: handlers.substitute(m, substitute_fn=lambda s: d.get(s["name"])),
}
GIVERS = {"condition": handlers.condition, "do": handlers.do, "substitute": handlers.substitute}
GIVERS |= BY_FUNCTION


@pytest.mark.parametrize("handler", GIVERS)
def test_a_whole_draw_is_taken_and_the_latent_decides(handler):
    """An event along with its latent and noise; where they disagree, the event follows."""
    give = GIVERS[handler]
    whole = {"x_latent": Z, "x_noise": 0.5 * X, "x": jnp.zeros(3)}
    event = generate(Z) + SCALE * 0.5 * X
    model = ngp.latent(one_site)
    trace = trace_of(give(model, whole), vae())
    np.testing.assert_allclose(trace["x"]["value"], event, rtol=1e-6)
    np.testing.assert_allclose(handlers.seed(give(model, whole), 0)(vae()), event, rtol=1e-6)
    del whole["x_noise"]
    np.testing.assert_allclose(trace_of(give(model, whole), gan())["x"]["value"], generate(Z))
    with pytest.raises(ValueError, match="Give a value to 'x_noise', or observe 'x'"):
        trace_of(give(model, whole), vae())
    omitted = trace_of(give(ngp.latent(one_site, noise="omit"), whole), vae())
    np.testing.assert_allclose(omitted["x"]["value"], generate(Z))


def test_a_whole_draw_from_two_handlers_in_a_scope():
    scoped = handlers.scope(ngp.latent(one_site), prefix="a")
    latent = handlers.substitute(scoped, {"a/x_latent": Z})
    trace = trace_of(handlers.condition(latent, {"a/x": X}), gan())
    np.testing.assert_allclose(trace["a/x"]["value"], generate(Z))


def test_a_whole_draw_of_a_centered_event():
    """The event is then a sample site, whose value is taken."""
    model = ngp.latent(one_site, noise="centered")
    trace = trace_of(handlers.condition(model, {"x_latent": Z, "x": X}), vae())
    np.testing.assert_array_equal(trace["x"]["value"], X)
    replayed = handlers.replay(model, trace_of(model, vae()))
    drawn = handlers.trace(replayed).get_trace(vae())
    np.testing.assert_array_equal(drawn["x"]["value"], trace_of(model, vae())["x"]["value"])


def test_a_whole_draw_of_a_nested_latent():
    prior = ngp.GANPrior(generate, ngp.GANPrior(jnp.sin, 2))
    model = ngp.latent(one_site)
    draw = {name: trace_of(model, prior)[name]["value"] for name in ("x", "x_latent")}
    with pytest.raises(ValueError, match="Give a value to 'x_latent_latent'"):
        trace_of(handlers.substitute(model, draw), prior)
    draw["x_latent_latent"] = Z
    trace = trace_of(handlers.substitute(model, draw), prior)
    assert trace["x"]["type"] == "deterministic"


def test_events_alone_are_refused_by_predictive(key):
    with pytest.raises(ValueError, match="x_latent"):
        Predictive(decorated, {"x": X[None]})(key, gan())


def test_a_start_at_an_event_is_refused(key):
    """NumPyro ignores an initial value of a deterministic site."""

    def start(**values):
        strategy = init_to_value(values=values)
        return initialize_model(key, decorated, init_strategy=strategy, model_args=(gan(), X))

    with pytest.raises(ValueError, match=r"Give a value to 'x_latent'"):
        start(x=X)
    np.testing.assert_array_equal(start(x_latent=Z).param_info.z["x_latent"], Z)
    scoped = handlers.scope(ngp.latent(one_site), prefix="a")
    with pytest.raises(ValueError, match=r"Give a value to 'a/x_latent'"):
        trace_of(handlers.condition(scoped, {"a/x": X}), gan())


@pytest.mark.parametrize("parallel", [False, True])
def test_draws_for_a_model_without_latent_warn(parallel, key):
    draws = Predictive(decorated, num_samples=3)(key, gan(), X)
    plain = decorated.fn
    with pytest.warns(UserWarning, match=r"Decorate the model with @ngp\.latent"):
        Predictive(plain, {"x_latent": draws["x_latent"]}, parallel=parallel)(key, gan())


def test_a_latent_substituted_into_a_model_without_latent_warns(key):
    """A flow gives NumPyro its intermediates; this path has to warn, too."""

    def model(prior):
        return numpyro.sample("x", prior)

    given = handlers.substitute(model, {"x_latent": jnp.zeros(flow().event_shape)})
    with pytest.warns(UserWarning, match=r"Decorate the model with @ngp\.latent"):
        handlers.seed(given, key)(flow())


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("noise", ["auto", "centered", "omit"])
def test_draws_give_their_events_back(noise, parallel, key):
    """Predictive with posterior draws, events among them, returns the same events."""
    model = ngp.latent(decorated.fn, noise=noise)
    draws = Predictive(model, num_samples=4)(key, vae())
    del draws["y"]
    sites = ["x_latent", "x", "y"]
    again = Predictive(model, draws, parallel=parallel, return_sites=sites)(key, vae())
    np.testing.assert_array_equal(again["x_latent"], draws["x_latent"])
    np.testing.assert_allclose(again["x"], draws["x"], rtol=1e-6)
    assert again["y"].shape == (4, 3)
    if noise != "centered":  # the latents alone will do
        del draws["x"]
        without = Predictive(model, draws, parallel=parallel, return_sites=sites)(key, vae())
        np.testing.assert_array_equal(without["x"], again["x"])
