"""`diagnostics.sensitivity` against closed forms of linear models, and finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import numpyro_genprior as ngp

G = np.random.default_rng(0).normal(size=(6, 4))
A = np.random.default_rng(1).normal(size=(3, 6))
SIGMA = np.array([0.5, 0.1, 2.0])
M = A @ G / SIGMA[:, None]  # of (x_latent), by hand


@ngp.latent
def linear(y):
    x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.asarray(G) @ z, 4))
    numpyro.sample("y", dist.Normal(jnp.asarray(A) @ x, jnp.asarray(SIGMA)).to_event(1), obs=y)


Y = jnp.zeros(3)
Z = {"x_latent": jnp.array([0.3, -1.0, 0.5, 0.0])}


@pytest.fixture(scope="module")
def full():
    return ngp.diagnostics.sensitivity(linear, Z, Y)


def check_against_matrix(s, rtol):
    _, singular, rows = np.linalg.svd(M)
    np.testing.assert_allclose(s.singular_values[:3], singular, rtol=rtol)
    assert s.singular_values[3] < 1e-4 * singular[0]
    np.testing.assert_allclose(np.abs(s.latent_directions @ rows.T), np.eye(4), atol=10 * rtol)
    np.testing.assert_allclose(s.fisher(), M.T @ M, rtol=rtol, atol=rtol * singular[0] ** 2)
    v = jnp.arange(4.0)
    np.testing.assert_allclose(s.fisher_product(v), M.T @ M @ v, rtol=10 * rtol, atol=10 * rtol)
    np.testing.assert_array_equal(s.identifiable[:3], singular > 1)
    shrinkage = np.append(1 / (1 + singular**2), 1.0)
    np.testing.assert_allclose(s.posterior_shrinkage, shrinkage, rtol=10 * rtol)
    pushed = np.asarray(s.latent_directions) @ G.T
    np.testing.assert_allclose(s.event_directions, pushed, rtol=rtol, atol=10 * rtol)


def test_closed_form(full):
    check_against_matrix(full, 1e-5)


@pytest.mark.float64
def test_closed_form_to_rounding():
    check_against_matrix(ngp.diagnostics.sensitivity(linear, Z, Y), 1e-12)


def test_dimensions_of_a_plate_are_not_those_of_the_event():
    def model(y):
        with numpyro.plate("rows", 2):
            x = ngp.sample("x", ngp.GANPrior(lambda z: jnp.asarray(G) @ z, 4))
            numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)

    values = {"x_latent": jnp.zeros((2, 4))}
    data = ngp.diagnostics.sensitivity(model, values, jnp.zeros((2, 6))).to_dataset()
    assert data.event_x.dims == ("direction", "batch_dim_0", "entry")
    assert data.event_x.shape == (8, 2, 6)


def test_shrinkage_is_that_of_the_gaussian_posterior(full):
    covariance = np.linalg.inv(np.eye(4) + M.T @ M)
    along = full.latent_directions @ covariance @ full.latent_directions.T
    np.testing.assert_allclose(np.diag(along), full.posterior_shrinkage, rtol=1e-4)


def test_cramer_rao_of_functionals(full):
    information = M.T @ M
    seen = A @ G  # functionals of the event that the data see
    bound = full.cramer_rao(lambda x: jnp.asarray(A) @ x)
    inverse = np.linalg.pinv(information, rcond=1e-10)
    np.testing.assert_allclose(bound, np.diag(seen @ inverse @ seen.T), rtol=1e-3)
    assert np.isinf(full.cramer_rao(lambda x: x)).all()  # each entry has an unseen part
    posterior = np.linalg.inv(np.eye(4) + information)
    mean = G.mean(0)
    np.testing.assert_allclose(
        full.cramer_rao(lambda x: x.mean(), prior=True), mean @ posterior @ mean, rtol=1e-4
    )
    expected = np.diag(G @ posterior @ G.T)
    np.testing.assert_allclose(full.cramer_rao(lambda x: x, prior=True), expected, rtol=1e-4)
    np.testing.assert_allclose(full.cramer_rao(prior=True), full.posterior_shrinkage)
    np.testing.assert_allclose(full.cramer_rao()[:3], 1 / full.singular_values[:3] ** 2, rtol=1e-5)
    assert np.isinf(full.cramer_rao()[3])


def test_cramer_rao_is_met_by_maximum_likelihood():
    """Least squares of simulated data, in a model whose latents are all identified."""
    wide = np.random.default_rng(2).normal(size=(7, 6))

    @ngp.latent
    def model(y):
        x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.asarray(G) @ z, 4))
        numpyro.sample("y", dist.Normal(jnp.asarray(wide) @ x, 0.3).to_event(1), obs=y)

    bound = ngp.diagnostics.sensitivity(model, Z, jnp.zeros(7)).cramer_rao(lambda x: x)
    rng, draws = np.random.default_rng(3), 20_000
    z = np.asarray(Z["x_latent"])
    data = wide @ G @ z + 0.3 * rng.normal(size=(draws, 7))
    estimates = data @ np.linalg.pinv(wide @ G).T @ G.T
    variance = estimates.var(axis=0, ddof=1)
    assert np.all(np.abs(variance / bound - 1) < 5 * np.sqrt(2 / draws))


def test_low_rank_has_the_first_directions():
    rng = np.random.default_rng(4)
    left, right = (
        np.linalg.qr(rng.normal(size=(40, 40)))[0],
        np.linalg.qr(rng.normal(size=(50, 40)))[0],
    )
    s = 30.0 * 0.6 ** np.arange(40)
    matrix = jnp.asarray((left * s) @ right.T, jnp.float32)

    def model(y):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([50]).to_event(1))
        numpyro.sample("y", dist.Normal(matrix @ z, 1.0).to_event(1), obs=y)

    found = ngp.diagnostics.sensitivity(model, {"z": jnp.zeros(50)}, jnp.zeros(40), rank=10)
    np.testing.assert_allclose(found.singular_values, s[:10], rtol=1e-4)
    overlap = np.abs(np.asarray(found.latent_directions) @ right[:, :10])
    np.testing.assert_allclose(np.diag(overlap), 1, atol=1e-3)
    np.testing.assert_allclose(found.largest_discarded, s[10], rtol=0.05)
    assert "10 directions were sought" in str(found)
    assert "the others left to the prior" in str(found)
    short = str(dataclasses.replace(found, largest_discarded=3.0))  # as if rank had been too low
    assert "at least" in short
    assert "left to the prior" not in short
    assert "prior alone" not in short
    np.testing.assert_allclose(found.fisher(), matrix.T @ matrix, atol=1e-3 * s[0] ** 2)


@ngp.latent
def photons(y, dose):
    """A nonlinear decoder, counts, and a normal scale parameter."""
    x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.sin(z[0] * z) + 2.0, 3))
    gain = numpyro.sample("gain", dist.Normal(1.0, 0.1))
    numpyro.sample("y", dist.Poisson(dose * gain**2 * x).to_event(1), obs=y)


@pytest.mark.float64
def test_average_over_draws():
    """Mean over draws of the information, by finite differences of the rates."""
    z = np.random.default_rng(5).normal(size=(4, 3))
    gain = 1 + 0.1 * np.random.default_rng(6).normal(size=4)
    values = {"x_latent": jnp.asarray(z), "gain": jnp.asarray(gain)}
    s = ngp.diagnostics.sensitivity(photons, values, jnp.ones(3), 5.0)

    def rate(xi):
        return 5.0 * (1 + 0.1 * xi[3]) ** 2 * (np.sin(xi[0] * xi[:3]) + 2.0)

    information = 0
    for point in np.concatenate([z, (gain[:, None] - 1) / 0.1], 1):
        steps = 1e-6 * np.eye(4)
        jacobian = np.stack([(rate(point + h) - rate(point - h)) / 2e-6 for h in steps], 1)
        information += jacobian.T @ (jacobian / rate(point)[:, None]) / 4
    np.testing.assert_allclose(s.fisher(), information, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        s.singular_values**2, np.linalg.eigvalsh(information)[::-1], rtol=1e-5
    )
    assert "averaged over 4 draws" in str(s)
    assert s.latents == ("x_latent[0]", "x_latent[1]", "x_latent[2]", "gain")


def test_a_map_is_a_point():
    estimate = ngp.infer.find_map(linear, jax.random.key(0), Y, num_starts=2, progress_bar=False)
    s = ngp.diagnostics.sensitivity(linear, estimate, Y)
    np.testing.assert_allclose(s.singular_values[:3], np.linalg.svd(M)[1], rtol=1e-4)
    text = str(s)
    assert f"{int((np.linalg.svd(M)[1] > 1).sum())} directions identified" in text
    assert "comes from the prior alone" in text


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({}, "no value for latent site 'x_latent'"),
        ({"x_latent": jnp.zeros(3)}, "wrong shape"),
        ({"x_latent": jnp.full(4, jnp.nan)}, "not finite"),
        (jnp.zeros(4), "est.values"),
    ],
)
def test_mistakes(values, match):
    with pytest.raises((ValueError, TypeError), match=match):
        ngp.diagnostics.sensitivity(linear, values, Y)


def test_no_event_to_show():
    def model(y):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)

    s = ngp.diagnostics.sensitivity(model, {"z": jnp.zeros(())}, jnp.zeros(()))
    np.testing.assert_allclose(s.singular_values, [1.0])
    with pytest.raises(ValueError, match="records no event"):
        _ = s.event_directions
