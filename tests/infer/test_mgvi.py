"""MGVI against closed forms and quadrature, its draws, its warnings, and fields of counts."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import optimize, special

import numpyro_genprior as ngp
from numpyro_genprior.infer.linalg.conjugate_gradient import solve
from numpyro_genprior.infer.mgvi import step as mgvi_step
from numpyro_genprior.infer.mgvi.mgvi import MGVI
from numpyro_genprior.infer.mgvi.step import Settings
from numpyro_genprior.infer.posterior import Posterior

# ---- conjugate gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [1e1, 1e4, 1e6])
def test_error_meets_the_tolerance(largest, rng):
    """In the norm of the metric, for any condition number; two systems in lock-step."""
    n, asked = 2000, 0.05
    eigenvalues = np.float32(np.geomspace(1, largest, n))
    right = np.float32(np.sqrt(eigenvalues) * rng.normal(size=(2, n)))
    metric = jnp.asarray(eigenvalues)[None, :]
    found = jax.jit(lambda b: solve(lambda v: metric * v, b, error=asked * n**0.5, max_steps=3000))(
        right
    )
    eigenvalues = eigenvalues.astype(float)[None, :]
    exact = right.astype(float) / eigenvalues
    error = np.sqrt((eigenvalues * (found.x - exact) ** 2).sum(1) / n)
    assert found.converged.all()
    assert (error < asked).all()
    assert (error > asked / 10).all()  # without many iterations more than needed
    np.testing.assert_allclose(found.square, (eigenvalues * exact**2).sum(1), rtol=0.01)


def test_a_million_coordinates_in_single_precision():
    """Lineax mistakes their curvature for zero there."""
    n = 1_000_000
    eigenvalues = 1 + 3 * jax.random.uniform(jax.random.key(0), (n,))
    found = solve(lambda v: eigenvalues * v, jnp.ones(n), error=0.01 * n**0.5, max_steps=50)
    assert found.converged
    assert np.mean(eigenvalues * (found.x - 1 / eigenvalues) ** 2) < 1e-4


def test_solve_that_fails_reports_it():
    metric = jnp.geomspace(1, 1e4, 50)
    assert not solve(lambda v: metric * v, metric, error=1e-3, max_steps=5).converged
    assert not solve(lambda v: jnp.nan * v, metric, error=1e-3, max_steps=50).converged
    nothing = solve(lambda v: metric * v, 0 * metric, error=0.0, max_steps=50)
    assert nothing.converged
    assert nothing.steps == 0


# ---- a linear generator with Gaussian noise, in closed form --------------------------------------

W = np.array([[1.0, 0.5, 0.0], [0.0, 2.0, 1.0], [-1.0, 1.0, 0.5]])
A = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
SIGMA = 0.2


@ngp.latent
def linear(prior, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(jnp.asarray(A) @ x, SIGMA).to_event(1), obs=y)


def prior():
    weights = jnp.asarray(W)
    return ngp.GANPrior(lambda z: weights @ z + 0.5, 3)


def closed_form(y):
    forward = A @ W / SIGMA
    covariance = np.linalg.inv(np.eye(3) + forward.T @ forward)
    return covariance @ forward.T @ (y - A @ np.full(3, 0.5)) / SIGMA, covariance


@pytest.mark.float64
def test_linear_gaussian():
    """The mean to the tolerance, pairs around it, and the covariance of independent draws."""
    tolerance, y = 1e-6, np.array([1.3, -0.4])
    mgvi = MGVI(linear, tolerance=tolerance, progress_bar=False)
    result = mgvi.run(jax.random.key(0), 2, prior(), y=jnp.asarray(y))
    mean, covariance = closed_form(y)
    precision = np.linalg.inv(covariance)
    error = np.asarray(result.xi) - mean
    assert np.sqrt(error @ precision @ error) < 5 * tolerance
    assert result.warnings == ()
    assert result.moved[1] < 5 * tolerance
    np.testing.assert_allclose(result.values["x"], W @ mean + 0.5, atol=1e-4)

    pairs = result.sample_posterior(jax.random.key(1), (3, 2))
    assert pairs["x_latent"].shape == (3, 2, 3)
    assert pairs["x"].shape == (3, 2, 3)
    middle = np.broadcast_to(result.xi, (3, 3))
    np.testing.assert_allclose(pairs["x_latent"].mean(1), middle, atol=1e-12)
    np.testing.assert_allclose(pairs["x"], pairs["x_latent"] @ W.T + 0.5, atol=1e-12)

    number = 4096
    draws = result.sample_posterior(jax.random.key(2), (number,), antithetic=False)["x_latent"]
    white = (draws - mean) @ np.linalg.cholesky(precision)
    assert np.abs(white.mean(0)).max() < 5 / number**0.5
    error = np.sqrt((1 + np.eye(3)) / number)  # of the covariance of standard normals
    assert np.abs(white.T @ white / number - np.eye(3)).max() < (5 * error).max()
    assert (np.abs(white.T @ white / number - np.eye(3)) < 5 * error).all()


@pytest.mark.slow
def test_steps_of_many_data_sets_at_once():
    """The pure functions under ``vmap``, as for SBC: means, and covariances of draws."""
    y = np.random.default_rng(0).normal(size=(5, 2)) * 2
    settings = Settings(num_samples=1, tolerance=1e-3)
    weights = prior()

    def one(key, y):
        posterior = Posterior(linear, (weights,), {"y": y})
        xi, steps = mgvi_step.fit(
            key, posterior, mgvi_step.initial_mean(key, posterior), 2, settings
        )
        return xi, steps, mgvi_step.sample_residuals(key, posterior, xi, 2000, settings).s

    keys = jax.random.split(jax.random.key(0), len(y))
    xi, steps, draws = jax.jit(jax.vmap(one))(keys, jnp.asarray(y, jnp.float32))
    assert (steps.stopped_early == 0).all()
    for i in range(len(y)):
        mean, covariance = closed_form(y[i])
        root = np.linalg.cholesky(np.linalg.inv(covariance))
        assert np.abs((np.asarray(xi[i]) - mean) @ root).max() < 0.01
        white = np.asarray(draws[i]) @ root
        error = np.sqrt((1 + np.eye(3)) / 2000)
        assert (np.abs(white.T @ white / 2000 - np.eye(3)) < 5 * error).all()


# ---- counts: a fixed point by quadrature ---------------------------------------------------------

COUNTS, SCALE = np.array([3.0, 5.0, 4.0]), 1.5


def counted(y):
    z = numpyro.sample("z", dist.Normal(0.5, SCALE))
    numpyro.sample("y", dist.Poisson(jnp.exp(z)).expand([3]).to_event(1), obs=y)


def test_counts_reach_the_fixed_point():
    """One latent: the mean where the expected gradient under N(ξ̄, 1/M(ξ̄)) is 0, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def rate(xi):
        return np.exp(0.5 + SCALE * xi)

    def gradient(xi):
        return xi - SCALE * COUNTS.sum() + 3 * SCALE * rate(xi)

    def expected(mean):
        deviation = (1 + 3 * SCALE**2 * rate(mean)) ** -0.5
        return weights @ gradient(mean + deviation * nodes)

    mean = optimize.brentq(expected, -3, 3)
    deviation = (1 + 3 * SCALE**2 * rate(mean)) ** -0.5
    pairs = 2000
    mgvi = MGVI(counted, pairs, tolerance=1e-3, progress_bar=False)
    result = mgvi.run(jax.random.key(0), 4, jnp.asarray(COUNTS, jnp.float32))
    assert result.warnings == ()
    # The Monte Carlo error of the mean over pairs of gradients, as an error of ξ̄.
    of_pairs = 0.5 * (gradient(mean + deviation * nodes) + gradient(mean - deviation * nodes))
    error = deviation**2 * np.sqrt(weights @ of_pairs**2 / pairs)
    assert abs(float(result.xi[0]) - mean) < 5 * error + 2e-3 * deviation
    # The Gaussian is close to the posterior, whose mean is known too (a skew of one in √12).
    grid = np.linspace(-4, 4, 20_001)
    log_density = -0.5 * grid**2 + SCALE * COUNTS.sum() * grid - 3 * rate(grid)
    density = np.exp(log_density - special.logsumexp(log_density))
    assert abs(mean - density @ grid) < 0.05 * deviation


# ---- a field, without matrices -------------------------------------------------------------------

SIDE, TRACES = 64, []


@ngp.latent(explicit=True)
def field_counts(field, y):
    TRACES.append("")
    x = numpyro.sample("x", field)
    numpyro.sample("y", dist.Poisson(jnp.exp(x)).to_event(2), obs=y)


def field_data(seed):
    """A log-normal field with standard deviation 1 and about 2 counts per pixel."""
    field = ngp.GaussianFieldPrior((SIDE, SIDE), lambda k: (0.2 / (0.03**2 + k**2)) ** 2 / 140)
    truth = field.sample(jax.random.key(seed))
    return field, truth, jax.random.poisson(jax.random.key(seed + 1), jnp.exp(truth))


@pytest.mark.slow
def test_field_of_counts(capsys):
    """Energies fall, draws cover the truth, no matrix is formed, new data compile nothing."""
    field, truth, y = field_data(1)
    mgvi = MGVI(field_counts, 2)
    result = mgvi.run(jax.random.key(0), 3, field, y)
    assert "MGVI" in capsys.readouterr().err
    assert result.warnings == ()
    assert result.kl.shape == (3,)
    found = result.to_dataset()
    assert found["sampling_iterations"].dims == ("step", "pair")
    np.testing.assert_array_equal(found["moved"], result.moved)
    np.testing.assert_array_equal(found["xi"], result.xi)
    assert len(repr(result)) < 100
    assert "3 steps of 2 pairs" in str(result)
    assert (result.kl <= result.kl_before).all()
    assert result.kl[0] < result.kl_before[0] - 1000
    assert result.moved[2] < 0.2 < result.moved[0]
    draws = result.sample_posterior(jax.random.key(1), (16,))
    assert draws["x"].shape == (16, SIDE, SIDE)
    score = (draws["x"].mean(0) - np.asarray(truth)) / draws["x"].std(0)
    assert 0.8 < np.sqrt(np.mean(score**2)) < 1.25

    text = mgvi_step.jit_step.lower(
        jax.random.key(0), result.posterior, result.xi, mgvi.settings
    ).as_text()
    shapes = re.findall(r"tensor<([\dx]+)x[a-z]", text)
    largest = max(math.prod(map(int, shape.split("x"))) for shape in shapes)
    assert largest <= 4 * SIDE**2  # samples times latents

    TRACES.clear()
    field, _, y = field_data(3)
    MGVI(field_counts, 2, progress_bar=False).run(jax.random.key(5), 3, field, y)
    assert len(TRACES) == 1  # to read the sites of the model


# ---- other sites ---------------------------------------------------------------------------------


@ngp.latent
def mixed(prior, y):
    """A scale, a prior, and two groups in a plate."""
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("groups", 2):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, scale).to_event(1), obs=y)


@pytest.mark.slow
def test_scale_and_plate():
    y = jnp.array([[0.4, 1.1, 1.2], [0.5, 0.5, 0.4]])
    weights = prior()
    result = MGVI(mixed, 64, progress_bar=False).run(jax.random.PRNGKey(0), 6, weights, y)
    assert result.warnings == ()
    draw = result.sample_posterior(jax.random.PRNGKey(1))
    assert {name: value.shape for name, value in draw.items()} == {
        "scale": (),
        "x_latent": (2, 3),
        "x": (2, 3),
    }
    assert draw["scale"] > 0
    values = result.values
    np.testing.assert_allclose(values["x"], values["x_latent"] @ W.T + 0.5, rtol=1e-4)
    mgvi = MGVI(mixed, 64, init=values, progress_bar=False)
    start = mgvi.run(jax.random.PRNGKey(1), 1, weights, y)
    assert start.moved[0] < 0.3 < result.moved[0]


# ---- errors --------------------------------------------------------------------------------------


def unconstrained(y):
    width = numpyro.sample("width", dist.Weibull(1.0, 2.0))
    numpyro.sample("y", dist.Normal(width, 1.0), obs=y)


def factored(y):
    z = numpyro.sample("z", dist.Normal())
    numpyro.factor("penalty", -(z**2))


def without_data(y):
    numpyro.sample("z", dist.Normal())


def impossible(y):
    z = numpyro.sample("z", dist.Normal())
    numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "y", "match"),
    [
        (unconstrained, 1.0, "MGVI needs standard normal .*'width'"),
        (factored, 1.0, "'penalty'"),
        (without_data, 1.0, "no observed site"),
        (impossible, np.nan, "give init="),
    ],
)
def test_refused(model, y, match):
    with pytest.raises(ValueError, match=match):
        MGVI(model, progress_bar=False).run(jax.random.key(0), 1, jnp.asarray(y))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"num_samples": 0}, "Pass a larger num_samples"),
        ({"max_cg_steps": 0}, "Pass a larger max_cg_steps"),
        ({"max_newton_steps": 0}, "Pass a larger max_newton_steps"),
        ({"tolerance": 0.0}, "Leave it out"),
    ],
)
def test_settings_out_of_range(settings, match):
    with pytest.raises(ValueError, match=match):
        MGVI(counted, **settings)
    with pytest.raises(ValueError, match="Pass a larger num_steps"):
        MGVI(counted).run(jax.random.key(0), 0, jnp.asarray(COUNTS))
    with pytest.raises(TypeError, match="Pass an integer for num_steps"):
        MGVI(counted).run(jax.random.key(0), jnp.asarray(COUNTS))


# ---- warnings ------------------------------------------------------------------------------------


def test_doubtful_result_warns_once():
    """Too few iterations of each kind, from a start far from the posterior."""
    mgvi = MGVI(linear, 2, max_cg_steps=1, max_newton_steps=1, progress_bar=False)
    with pytest.warns(RuntimeWarning, match="raise max_cg_steps") as record:
        result = mgvi.run(jax.random.key(0), 1, prior(), y=jnp.array([10.0, 10.0]))
    assert len(record) == 1
    text = " ".join(result.warnings)
    assert text in str(record[0].message)
    assert all(f"Warning: {warning}" in str(result) for warning in result.warnings)
    assert "stopped short of the tolerance in 3 of 3 solves" in text
    assert "raise max_newton_steps" in text
    assert "raise num_steps" in text
    with pytest.warns(RuntimeWarning, match="in 2 of 2 solves"):
        result.sample_posterior(jax.random.key(1), (3,))


def steep(y):
    """Overflows at one prior draw in ten; the data hardly constrain it."""
    z = numpyro.sample("z", dist.Normal())
    numpyro.sample("y", dist.Normal(jnp.exp(60 * z), 1e18), obs=y)


def test_samples_that_overflow():
    with pytest.warns(RuntimeWarning, match="In 2 of 2 steps .* not finite"):
        result = MGVI(steep, 32, progress_bar=False).run(jax.random.key(0), 2, jnp.array(1.0))
    assert jnp.isfinite(result.xi).all()
    assert (result.moved == 0).all()
