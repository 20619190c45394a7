"""Priors in plates, expanded, masked and subsampled, compared with hand-written densities."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from numpyro.optim import Adam
from site_models import SCALE, density, flow, gan, generate, normal, rows, run, vae

import numpyro_genprior as ngp

# ---- plates, masks, shapes -----------------------------------------------------------------------


def nested(prior):
    with numpyro.plate("rows", 4, dim=-2), numpyro.plate("columns", 2, dim=-1):
        numpyro.sample("x", prior)


def expanded(prior):
    numpyro.sample("x", prior.expand([4]))


def expanded_in_plate(prior):
    with numpyro.plate("columns", 2):
        numpyro.sample("x", prior.expand([4, 1]).to_event(0))


def eventful(prior):
    numpyro.sample("x", prior.expand([4, 2]).to_event(1))


def sample_shaped(prior):
    numpyro.sample("x", prior, sample_shape=(4,))


@pytest.mark.parametrize("name", ["gan", "vae", "flow"])
@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (rows, (4,)),
        (nested, (4, 2)),
        (expanded, (4,)),
        (expanded_in_plate, (4, 2)),
        (eventful, (4, 2)),
        (sample_shaped, (4,)),
    ],
)
def test_batches(model, batch, name, rng):
    prior = {"gan": gan, "vae": vae, "flow": flow}[name]()
    handled = ngp.latent(model, explicit=True)
    size = prior.latent.event_shape
    params = {"x_latent": jnp.asarray(rng.normal(size=batch + size), jnp.float32)}
    event = prior.decode(params["x_latent"])
    if name == "vae":
        params["x_noise"] = jnp.asarray(rng.normal(size=(*batch, 3)), jnp.float32)
        event = event + SCALE * params["x_noise"]
    got, trace = density(handled, params, prior)
    np.testing.assert_allclose(got, sum(map(normal, params.values())), rtol=1e-5)
    np.testing.assert_allclose(trace["x"]["value"], event, rtol=1e-5)
    fn = trace["x_latent"]["fn"]
    assert fn.batch_shape + fn.event_shape == batch + size
    assert len(fn.event_shape) == 1 + (model is eventful)


MASK = jnp.array([True, False, True, False])


def mask_of_the_prior(prior):
    with numpyro.plate("rows", 4):
        numpyro.sample("x", prior.mask(MASK))


def mask_of_the_expanded(prior):
    numpyro.sample("x", prior.expand([4]).mask(MASK))


def mask_of_a_handler(prior):
    with numpyro.plate("rows", 4), handlers.mask(mask=MASK):
        numpyro.sample("x", prior)


def two_masks(prior):
    with numpyro.plate("rows", 4), handlers.mask(mask=jnp.array([True, True, False, False])):
        numpyro.sample("x", prior.mask(jnp.array([True, False, True, True])))


@pytest.mark.parametrize("name", ["gan", "vae"])
@pytest.mark.parametrize(
    "model", [mask_of_the_prior, mask_of_the_expanded, mask_of_a_handler, two_masks]
)
def test_masks_mask_the_latent(model, name, rng):
    prior = {"gan": gan, "vae": vae}[name]()
    mask = MASK if model is not two_masks else jnp.array([True, False, False, False])
    params = {"x_latent": rng.normal(size=(4, 2)), "x_noise": rng.normal(size=(4, 3))}
    if name == "gan":
        del params["x_noise"]
    params = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}
    got, _ = density(ngp.latent(model), params, prior)
    expected = sum(normal(value[mask]) for value in params.values())
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_mask_of_centered_noise():
    params = {"x_latent": jnp.ones((4, 2)), "x": jnp.ones((4, 3))}
    got, _ = density(ngp.latent(mask_of_the_prior, noise="centered"), params, vae())
    one = normal(jnp.ones(2)) + normal(jnp.ones(3), generate(jnp.ones(2)), SCALE)
    np.testing.assert_allclose(got, 2 * one, rtol=1e-5)


# ---- subsampled plates ---------------------------------------------------------------------------

NUMBER, SLOPE, SIGMA = 6, 2.0, 0.5
EVIDENCE = dist.Normal(0.0, float(np.hypot(SLOPE, SIGMA)))
POSTERIOR_SD = (1 + SLOPE**2 / SIGMA**2) ** -0.5
POSTERIOR_SLOPE = POSTERIOR_SD**2 * SLOPE / SIGMA**2


def lines():
    """A latent and an event of one number each: x = 2 z."""
    return ngp.GANPrior(lambda z: SLOPE * z, 1)


@ngp.latent
def subsampled(prior, y, size=2):
    with numpyro.plate("rows", NUMBER, subsample_size=size):
        x = numpyro.sample("x", prior)
        batch = numpyro.subsample(y, event_dim=0)
        numpyro.sample("y", dist.Normal(x[..., 0], SIGMA), obs=batch)


def guide(prior, y, size=2):
    loc = numpyro.param("loc", jnp.zeros(NUMBER))
    log_sd = numpyro.param("log_sd", jnp.zeros(NUMBER))
    with numpyro.plate("rows", NUMBER, subsample_size=size) as chosen:
        rows = dist.Normal(loc[chosen][:, None], jnp.exp(log_sd[chosen])[:, None])
        numpyro.sample("x_latent", rows.to_event(1))


def test_a_subsampled_plate_is_rescaled(key):
    """If the guide is the posterior, the ELBO has no variance and is the log evidence."""
    y = jnp.full(NUMBER, 1.5)
    params = {
        "loc": POSTERIOR_SLOPE * y,
        "log_sd": jnp.full(NUMBER, jnp.log(POSTERIOR_SD)),
    }
    expected = -NUMBER * EVIDENCE.log_prob(1.5)
    for size in (1, 2, NUMBER):
        loss = Trace_ELBO().loss(key, params, subsampled, guide, lines(), y, size=size)
        np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_svi_on_a_subsampled_plate_meets_the_posterior(key):
    y = jnp.linspace(-2.0, 2.0, NUMBER)
    svi = SVI(subsampled, guide, Adam(0.05), TraceMeanField_ELBO(num_particles=4))
    result = svi.run(key, 1500, lines(), y, progress_bar=False)
    # Adam at this step wanders by about 5 % around the optimum.
    np.testing.assert_allclose(result.params["loc"], POSTERIOR_SLOPE * y, atol=0.1)
    np.testing.assert_allclose(jnp.exp(result.params["log_sd"]), POSTERIOR_SD, rtol=0.2)


def test_nuts_refuses_a_subsampled_plate(key):
    with pytest.raises((RuntimeError, ValueError), match="subsampl"):
        run(subsampled, key, lines(), jnp.ones(NUMBER))
