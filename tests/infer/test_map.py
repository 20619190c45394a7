"""`find_map` and its core against closed forms, scipy and roots of polynomials."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats

import numpyro_genprior as ngp
from numpyro_genprior.infer import LBFGS, LevenbergMarquardt, find_map
from numpyro_genprior.infer.optimize.minimise import minimise
from numpyro_genprior.infer.posterior import Posterior

KEY = jax.random.key(11)
W = np.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0]])
B = np.array([0.5, -0.5, 1.0])
A = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
Y = np.array([1.3, -0.4])
SIGMA, SCALE = 0.5, 0.7


def quiet(model, *args, key=KEY, **kwargs):
    return find_map(model, key, *args, progress_bar=False, **kwargs)


@ngp.latent
def linear(prior, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(jnp.asarray(A) @ x, SIGMA).to_event(1), obs=y)


def generator(**kwargs):
    return ngp.GANPrior(lambda z: jnp.asarray(W) @ z + jnp.asarray(B), 2, **kwargs)


def closed_form(whole, y):
    """Mode of the standard normals, and the energy there."""
    forward = A @ whole / SIGMA
    residual = (y - A @ B) / SIGMA
    mean = np.linalg.solve(np.eye(whole.shape[1]) + forward.T @ forward, forward.T @ residual)
    log_joint = scipy.stats.norm.logpdf(mean).sum()
    log_joint += scipy.stats.norm.logpdf(y, A @ (whole @ mean + B), SIGMA).sum()
    return mean, -log_joint


@pytest.mark.float64
@pytest.mark.parametrize(
    ("solver", "digits"),
    [(LevenbergMarquardt(), 1e-12), (LBFGS(atol=1e-18), 1e-8)],
    ids=["LevenbergMarquardt", "LBFGS"],
)
def test_linear_gaussian(solver, digits):
    """By Newton's last step to rounding; by L-BFGS to the tolerance that it is given."""
    whole = np.concatenate([W, SCALE * np.eye(3)], 1)
    found = quiet(linear, generator().thicken(SCALE), jnp.asarray(Y), num_starts=4, solver=solver)
    mean, energy = closed_form(whole, Y)
    np.testing.assert_allclose(found.xi, mean, rtol=digits, atol=digits)
    np.testing.assert_allclose(found.energy, energy, rtol=1e-12)
    np.testing.assert_allclose(found.values["x"], whole @ mean + B, rtol=digits, atol=digits)
    assert set(found.values) == {"x_latent", "x_noise", "x"}
    assert len(found.modes) == 1
    assert found.modes[0].share == 1


@pytest.mark.float64
def test_many_coordinates_by_conjugate_gradients(rng):
    """Beyond 256 coordinates no metric is formed."""
    matrix = rng.normal(size=(5, 300))
    y = rng.normal(size=5)

    def model(y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([300]).to_event(1))
        numpyro.sample("y", dist.Normal(jnp.asarray(matrix) @ z, 0.5).to_event(1), obs=y)

    found = quiet(model, jnp.asarray(y), num_starts=2, solver=LevenbergMarquardt(atol=1e-12))
    mean = matrix.T @ np.linalg.solve(matrix @ matrix.T + 0.25 * np.eye(5), y)
    np.testing.assert_allclose(found.xi, mean, atol=1e-6)


def test_core_under_vmap_over_data():
    """As simulation-based calibration uses it, with data as a batch."""
    data = Y + np.array([[0.0, 0.0], [1.0, -2.0], [-3.0, 0.5]])

    @jax.jit
    def modes(data):
        def one(y):
            return minimise(
                Posterior(linear, (generator(), y)), jnp.array([[1.0, -1.0], [0.0, 3.0]])
            )

        return jax.vmap(one)(data)

    at = modes(jnp.asarray(data, jnp.float32))
    assert at.converged.all()
    for y, xi, energy in zip(data, at.xi, at.energy, strict=True):
        mean, expected = closed_form(W, y)
        np.testing.assert_allclose(xi, np.stack([mean, mean]), atol=1e-4)
        np.testing.assert_allclose(energy, expected, rtol=1e-5)


# ---- several modes -------------------------------------------------------------------------------


def square(y, scale=0.2):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z**2, scale), obs=y)


def test_two_modes():
    """The derivative of z²/2 + (z² - y)²/(2s²) vanishes at z² = y - s²/2."""
    with pytest.warns(UserWarning, match="2 distinct modes lie within 3 nats.*ParallelTempering"):
        found = quiet(square, jnp.array(1.0), num_starts=24)
    assert len(found.modes) == 2
    roots = sorted(float(mode.xi[0]) for mode in found.modes)
    np.testing.assert_allclose(roots, [-np.sqrt(0.98), np.sqrt(0.98)], atol=2e-3)
    assert sum(mode.share for mode in found.modes) == pytest.approx(1)
    for mode in found.modes:  # a start ends on its own side, nearly always: binomial with p = 1/2
        assert abs(len(mode.starts) - 12) <= 5 * np.sqrt(24 / 4)
        ends = found.starts.xi[np.array(mode.starts), 0]
        assert (np.sign(ends) == np.sign(mode.xi[0])).all()
    assert "2 of them within 3 nats" in str(found)
    assert found.warnings[0].startswith("2 distinct modes")
    assert repr(found.modes[0]).startswith("Mode(energy=")


def test_a_mode_of_much_higher_energy_is_listed_without_a_warning():
    """At -3.2 and at 1.2: the first is found, and does not compete."""

    def model(y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z**2 + 2 * z, 0.1), obs=y)

    found = quiet(model, jnp.array(4.0), num_starts=24)
    assert len(found.modes) == 2
    assert found.modes[1].energy - found.energy > 3
    polynomial = np.polynomial.Polynomial([0, 2, 1])
    slope = np.polynomial.Polynomial([0, 1]) + (polynomial - 4.0) * polynomial.deriv() / 0.01
    stationary = slope.roots()
    ends = [float(mode.xi[0]) for mode in found.modes]
    np.testing.assert_allclose(sorted(ends), [stationary.min(), stationary.max()], atol=1e-3)


def test_one_flat_valley_is_one_mode():
    """Minimisations that stop early in a valley are joined: there is no barrier between them."""

    def model(y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(z[0] + z[1], 0.01), obs=y)

    found = quiet(model, jnp.array(1.0), num_starts=8, solver=LevenbergMarquardt(atol=1.0))
    assert len(found.modes) == 1


def test_a_mode_on_a_kink(rng):
    """Noisy |z| beside a slope: the mode is where the gradient jumps. Quadratic on either side."""
    slopes = rng.normal(size=(6, 4))

    def model(y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([4]).to_event(1))
        mean = jnp.abs(jnp.asarray(slopes, jnp.float32) @ z)
        numpyro.sample("y", dist.Normal(mean, 0.3).to_event(1), obs=y)

    data = np.array([-1.0, -0.5, -1.0, 0.4, 0.3, -0.2])

    def energy(z, s):  # for signs s of the kinks, convex; |.| is the larger of both signs
        return z @ z / 2 + np.sum((data - s * (slopes @ z)) ** 2) / 0.18

    # On each of the 3⁶ faces (positive, negative, on the kink) the minimum is a linear system.
    best = np.inf
    for face in np.ndindex(*[3] * 6):
        s = np.array([1.0, -1.0, 0.0])[list(face)]
        if (s == 0).sum() > 4:
            continue
        free = scipy.linalg.null_space(slopes[s == 0]) if (s == 0).any() else np.eye(4)
        design = (s[:, None] * slopes) @ free
        right = design.T @ data / 0.09
        z = free @ np.linalg.solve(np.eye(free.shape[1]) + design.T @ design / 0.09, right)
        if (s * (slopes @ z) >= -1e-9).all():
            best = min(best, energy(z, s))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = quiet(model, jnp.asarray(data, jnp.float32), num_starts=24)
    constant = 2 * np.log(2 * np.pi) + 6 * (0.5 * np.log(2 * np.pi) + np.log(0.3))
    np.testing.assert_allclose(found.energy, best + constant, atol=0.02)
    assert (np.abs(slopes @ np.asarray(found.xi)) < 1e-2).any()
    assert "at a kink of a piecewise linear network" in str(found)


# ---- other likelihoods ---------------------------------------------------------------------------


def test_poisson_against_scipy():
    counts, design = np.array([3, 0, 7, 2]), np.array([0.5, -1.0, 1.5, 0.2])

    def model(y):
        a = numpyro.sample("a", dist.Normal(0.0, 2.0))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        rate = jnp.exp(a + b * jnp.asarray(design, jnp.float32))
        with numpyro.plate("data", 4):
            numpyro.sample("y", dist.Poisson(rate), obs=y)

    def energy(p):
        log_rate = p[0] + p[1] * design
        prior = scipy.stats.norm.logpdf(p[0], 0, 2) + scipy.stats.norm.logpdf(p[1])
        return -prior - scipy.stats.poisson.logpmf(counts, np.exp(log_rate)).sum()

    expected = scipy.optimize.minimize(energy, np.zeros(2), tol=1e-10).x
    found = quiet(model, jnp.asarray(counts), num_starts=8)
    assert isinstance(found.solver, LevenbergMarquardt)
    np.testing.assert_allclose([found.values["a"], found.values["b"]], expected, atol=2e-3)
    np.testing.assert_allclose(found.energy, energy(expected) - np.log(2), atol=1e-3)  # dξ = da / 2


@pytest.mark.slow
def test_unknown_scale_beside_the_prior():
    """HalfNormal noise by its quantile function: ξ is standard normal."""
    y = np.array([1.1, 0.4, -0.7, 2.0])

    def model(y):
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", 4):
            numpyro.sample("y", dist.Normal(z, sigma), obs=y)

    def energy(xi):
        sigma = scipy.stats.halfnorm.ppf(scipy.stats.norm.cdf(xi[0]))
        return -scipy.stats.norm.logpdf(xi).sum() - scipy.stats.norm.logpdf(y, xi[1], sigma).sum()

    expected = scipy.optimize.minimize(energy, np.zeros(2), tol=1e-9)
    found = quiet(model, jnp.asarray(y, jnp.float32), num_starts=8)
    np.testing.assert_allclose(found.xi, expected.x, atol=5e-3)
    np.testing.assert_allclose(found.energy, expected.fun, atol=1e-3)
    assert "unconstrained" not in str(found)

    exact = quiet(model, jnp.full(4, 0.3), num_starts=8)  # met by z = 0.3: σ runs to 0
    assert exact.values["sigma"] < 1e-5
    assert "does a scale in .values tend to 0?" in str(exact)

    moved = quiet(model, jnp.asarray(y, jnp.float32), num_starts=8, unconstrained=True)

    def other(u):  # log σ and z
        prior = scipy.stats.halfnorm.logpdf(np.exp(u[0])) + u[0] + scipy.stats.norm.logpdf(u[1])
        return -prior - scipy.stats.norm.logpdf(y, u[1], np.exp(u[0])).sum()

    expected = scipy.optimize.minimize(other, np.zeros(2), tol=1e-9)
    np.testing.assert_allclose(moved.xi, expected.x, atol=5e-3)
    assert "unconstrained for sigma, z" in str(moved)


def test_distributions_without_a_fisher_rule_take_lbfgs():
    """A mixture: the mode against a search on a grid."""

    def model(y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        parts = dist.Normal(jnp.stack([z, z + 1.0]), 0.5)
        numpyro.sample(
            "y", dist.MixtureSameFamily(dist.Categorical(jnp.array([0.3, 0.7])), parts), obs=y
        )

    found = quiet(model, jnp.array(1.2), num_starts=4)
    assert isinstance(found.solver, LBFGS)
    grid = np.linspace(-4, 4, 80001)
    likelihood = 0.3 * scipy.stats.norm.pdf(1.2, grid, 0.5)
    likelihood += 0.7 * scipy.stats.norm.pdf(1.2, grid + 1, 0.5)
    best = grid[np.argmax(scipy.stats.norm.logpdf(grid) + np.log(likelihood))]
    np.testing.assert_allclose(found.xi[0], best, atol=0.02)


# ---- starts --------------------------------------------------------------------------------------


def test_the_encoder_gives_a_start_if_the_data_have_the_shape_of_an_event():
    def decoder(z):
        return jnp.tile(z, 2)

    prior = ngp.VAEPrior(decoder, 2, scale=0.1, encoder=lambda x: (x[:2] + x[2:], jnp.ones(2)))

    @ngp.latent(noise="omit")
    def model(prior, y, keep=4):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x[:keep], 0.5).to_event(1), obs=y)

    y = jnp.array([0.1, 0.2, 0.3, 0.4])
    found = quiet(model, prior, y, num_starts=2)
    np.testing.assert_allclose(found.starts.initial[0], [0.4, 0.6], rtol=1e-6)
    assert "2 starts, 1 by the encoder" in str(found)
    # y[i] = z[i mod 2] + noise: two observations of each latent
    np.testing.assert_allclose(found.xi, 4 * np.array([0.4, 0.6]) / 9, atol=1e-4)

    masked = quiet(model, prior, y[:3], num_starts=2, keep=3)
    assert masked.starts.num_encoded == 0


def overflowing(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(jnp.where(z > 0, z, jnp.nan), 1.0), obs=y)


def test_starts_that_are_not_finite_are_counted():
    with pytest.warns(RuntimeWarning, match="of 16 starts have an energy that is not finite"):
        found = quiet(overflowing, jnp.array(2.0))
    assert 0 < (~found.starts.finite).sum() < 16
    np.testing.assert_allclose(found.xi, 1.0, atol=1e-3)
    assert found.modes[0].share == found.starts.finite.mean()
    assert "began where the energy is not finite" in str(found)
    assert "not finite" in found.warnings[0]


def test_no_finite_start_is_refused():
    with pytest.raises(ValueError, match=r"at any of 3 starts.*Look for NaN in the data"):
        quiet(square, jnp.array(jnp.nan), num_starts=3)


def test_too_few_steps():
    with pytest.warns(RuntimeWarning, match="3 of 3 starts did not converge in 1 step") as caught:
        found = quiet(square, jnp.array(9.0), num_starts=3, max_steps=1)
    assert caught[0].filename == __file__
    assert not found.starts.converged.any()
    assert found.energy == found.starts.energy.min()
    assert len(found.modes) == 1


def test_both_kinds_of_keys_find_the_same_modes():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = quiet(square, jnp.array(1.0), num_starts=3, key=jax.random.key(3))
        two = quiet(square, jnp.array(1.0), num_starts=3, key=jax.random.PRNGKey(3))
    np.testing.assert_array_equal(one.starts.xi, two.starts.xi)


REFUSED = {
    "num_starts of at least 1": (square, {"num_starts": 0}),
    "'k' is discrete": (
        lambda y: numpyro.sample(
            "y", dist.Normal(numpyro.sample("k", dist.Poisson(2.0)), 1.0), obs=y
        ),
        {},
    ),
    "no latent sites": (lambda y: numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y), {}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_refusals(words):
    model, switches = REFUSED[words]
    with pytest.raises(ValueError, match=words):
        quiet(model, jnp.array(1.0), **switches)


def test_progress_bar(capsys):
    find_map(linear, KEY, generator(), jnp.asarray(Y, jnp.float32), num_starts=2)
    assert "energy=" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trained_decoder():
    """A half seen digit: the best of few starts explains the data to the noise."""
    prior = ngp.pretrained.load("digits_vae")
    truth = prior.decode(jnp.linspace(-1.0, 1.0, 12))

    @ngp.latent(noise="omit")
    def model(prior, y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x[:5], 0.05).to_event(2), obs=y)

    y = truth[:5] + 0.05 * jax.random.normal(KEY, (5, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = quiet(model, prior, y, num_starts=6)
    assert found.starts.converged.all()
    misfit = np.sum((np.asarray(found.values["x"][:5]) - np.asarray(y)) ** 2) / 0.05**2
    at_truth = Posterior(model, (prior, y)).energy(jnp.linspace(-1.0, 1.0, 12))
    assert found.energy < at_truth
    assert misfit < 40 + 5 * np.sqrt(2 * 40)
