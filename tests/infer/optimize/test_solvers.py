"""`find_map(solver=...)` with our minimisers and optimistix's, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optimistix
import pytest

import numpyro_genprior as ngp
from numpyro_genprior.infer import LBFGS, LevenbergMarquardt, Posterior, find_map
from numpyro_genprior.infer.optimize.minimise import minimise
from numpyro_genprior.infer.optimize.residuals import residuals
from numpyro_genprior.results import Result

KEY = jax.random.key(5)
A = np.array([[1.0, 0.5, -0.3], [0.2, -2.0, 1.0]])
Y, SIGMA = np.array([1.3, -0.4]), 0.5

SOLVERS = {
    "ours, LBFGS": LBFGS(atol=1e-16),
    "ours, LevenbergMarquardt": LevenbergMarquardt(),
    "BFGS": optimistix.BFGS(rtol=1e-9, atol=1e-9),
    "NonlinearCG": optimistix.NonlinearCG(rtol=1e-9, atol=1e-9),
    "LevenbergMarquardt": optimistix.LevenbergMarquardt(rtol=1e-9, atol=1e-9),
    "Dogleg": optimistix.Dogleg(rtol=1e-9, atol=1e-9),
}
OURS = ("ours, LBFGS", "ours, LevenbergMarquardt")


def find(model, *args, **kwargs):
    return find_map(model, KEY, *args, progress_bar=False, **{"num_starts": 3, **kwargs})


def linear(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(jnp.asarray(A) @ z, SIGMA).to_event(1), obs=y)


def cubic(y):
    """Monotonic in z, so that there is one mode."""
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z + z**3, 0.2), obs=y)


@pytest.mark.float64
@pytest.mark.parametrize("name", SOLVERS)
def test_linear_gaussian(name):
    found = find(linear, jnp.asarray(Y), solver=SOLVERS[name], max_steps=2000)
    mean = A.T @ np.linalg.solve(A @ A.T + SIGMA**2 * np.eye(2), Y)
    np.testing.assert_allclose(found.xi, mean, atol=1e-7)
    residual = (Y - A @ mean) / SIGMA
    energy = 0.5 * (mean @ mean + residual @ residual)
    energy += 2.5 * np.log(2 * np.pi) + 2 * np.log(SIGMA)
    np.testing.assert_allclose(found.energy, energy, rtol=1e-10)
    assert found.starts.converged.all()
    assert not found.warnings
    assert len(found.modes) == 1
    prefix = "" if name in OURS else "optimistix."
    assert f"by {prefix}{type(SOLVERS[name]).__name__}: " in str(found)


@pytest.mark.float64
@pytest.mark.parametrize("name", SOLVERS)
def test_nonlinear(name):
    """The derivative of the energy, z + (z + z³ - y)(1 + 3z²)/s², vanishes at the mode."""
    found = find(cubic, jnp.array(1.7), solver=SOLVERS[name], max_steps=2000)
    polynomial = np.polynomial.Polynomial([0.0, 1.0, 0.0, 1.0])
    slope = np.polynomial.Polynomial([0.0, 1.0])
    slope = slope + (polynomial - 1.7) * polynomial.deriv() / 0.04
    root = next(r.real for r in slope.roots() if abs(r.imag) < 1e-9)
    np.testing.assert_allclose(found.xi, [root], atol=1e-6)
    assert found.starts.converged.all()


def test_single_precision_and_vmap():
    """As simulation-based calibration would use it, with data as a batch."""
    data = jnp.asarray(Y + np.array([[0.0, 0.0], [1.0, -2.0]]), jnp.float32)
    solver = optimistix.BFGS(rtol=1e-4, atol=1e-4)

    @jax.jit
    @jax.vmap
    def modes(y):
        return minimise(Posterior(linear, (y,)), jnp.zeros((2, 3)), solver)

    minima = modes(data)
    mean = np.linalg.solve(A @ A.T + SIGMA**2 * np.eye(2), np.asarray(data).T).T @ A
    assert minima.converged.all()
    np.testing.assert_allclose(minima.xi, np.stack([mean, mean], 1), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("solver", [LBFGS(), LevenbergMarquardt()])
def test_ours_under_optimistix_minimise(solver):
    posterior = Posterior(linear, (jnp.asarray(Y, jnp.float32),))
    solution = optimistix.minimise(
        lambda xi, posterior: (posterior.energy(xi), xi.sum()),
        solver,
        jnp.ones(3),
        posterior,
        has_aux=True,
    )
    direct = minimise(posterior, jnp.ones((1, 3)), solver)
    assert solution.result == optimistix.RESULTS.successful
    np.testing.assert_allclose(solution.value, direct.xi[0], rtol=1e-5)
    np.testing.assert_allclose(solution.aux, direct.xi[0].sum(), rtol=1e-5)
    np.testing.assert_allclose(solution.stats["energy"], direct.energy[0], rtol=1e-6)


def test_our_levenberg_marquardt_needs_a_posterior():
    with pytest.raises(TypeError, match=r"Call optimistix\.minimise.*or use LBFGS"):
        optimistix.minimise(lambda x, _: jnp.sum(x**2), LevenbergMarquardt(), jnp.ones(3))


# ---- residuals -----------------------------------------------------------------------------------

FACTOR = np.array([[1.0, 0.0], [0.5, -1.0], [0.3, 0.2]])


def masked_and_weighted(z):
    with numpyro.plate("data", 3), numpyro.handlers.scale(scale=2.5):
        mask = jnp.array([True, False, True])
        numpyro.sample("y", dist.Normal(z, 0.3).mask(mask), obs=jnp.array([0.1, 9.0, -0.4]))


OBSERVED = {
    "Normal": lambda z: numpyro.sample(
        "y", dist.Normal(z, jnp.array([0.3, 1.0, 2.0])).to_event(1), obs=jnp.array([0.5, 1.0, -1.0])
    ),
    "Normal with a mask and a weight": masked_and_weighted,
    "expanded Normal": lambda z: numpyro.sample(
        "y", dist.Normal(z[0] * z[1], 0.5).expand([2, 3]), obs=jnp.arange(6.0).reshape(2, 3)
    ),
    "LogNormal": lambda z: numpyro.sample(
        "y", dist.LogNormal(z, 0.4).to_event(1), obs=jnp.array([0.5, 1.0, 3.0])
    ),
    "MultivariateNormal": lambda z: numpyro.sample(
        "y",
        dist.MultivariateNormal(z, jnp.asarray(FACTOR @ FACTOR.T) + jnp.eye(3)),
        obs=jnp.array([[0.5, 1.0, 3.0], [0.0, -1.0, 1.0]]),
    ),
    "LowRankMultivariateNormal": lambda z: numpyro.sample(
        "y",
        dist.LowRankMultivariateNormal(z, jnp.asarray(FACTOR), jnp.array([0.3, 1.0, 2.0])),
        obs=jnp.array([0.5, 1.0, 3.0]),
    ),
    "MarginalNormal": lambda z: numpyro.sample(
        "y",
        ngp.operators.MarginalNormal(
            ngp.operators.Dense(jnp.asarray(A), event_shape=(3,)),
            z,
            event_scale=0.3,
            noise_scale=0.5,
        ),
        obs=jnp.asarray(Y),
    ),
}


@pytest.mark.float64
@pytest.mark.parametrize("name", OBSERVED)
def test_half_the_squared_norm_is_the_energy_up_to_a_constant(name):
    def model():
        z = numpyro.sample("z", dist.Normal(0.5, 2.0).expand([3]).to_event(1))
        OBSERVED[name](z + jnp.sin(z))

    posterior = Posterior(model)
    points = jax.random.normal(KEY, (4, 3))
    half = 0.5 * np.array([jnp.sum(residuals(xi, posterior) ** 2) for xi in points])
    energy = np.array([posterior.energy(xi) for xi in points])
    np.testing.assert_allclose(half - half[0], energy - energy[0], rtol=1e-10, atol=1e-10)


def unknown_scale(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z, jnp.exp(z)), obs=y)


def moving_transform(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    shift = dist.transforms.AffineTransform(z, 1.0)
    numpyro.sample("y", dist.TransformedDistribution(dist.Normal(0.0, 1.0), shift), obs=y)


def poisson(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Poisson(jnp.exp(z)), obs=y)


def factor(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.factor("penalty", -(z**4))
    numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


WITHOUT_RESIDUALS = {
    "'y', which is Normal with a scale that depends on latents.*Pass a minimiser": unknown_scale,
    "'y', which has a transform that depends on latents.*Pass a minimiser": moving_transform,
    "'y', which is Poisson.*Pass a minimiser": poisson,
    "'penalty', which is Unit.*Pass a minimiser": factor,
}


@pytest.mark.parametrize("words", WITHOUT_RESIDUALS)
def test_least_squares_solvers_refuse_other_energies(words):
    with pytest.raises(ValueError, match=words):
        find(WITHOUT_RESIDUALS[words], jnp.array(1.0), solver=SOLVERS["Dogleg"])


def test_least_squares_solvers_refuse_unconstrained_coordinates():
    with pytest.raises(ValueError, match=r"A least-squares solver needs standard.*'z'"):
        find(cubic, jnp.array(1.0), solver=SOLVERS["Dogleg"], unconstrained=True)


# ---- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "solver", ["lm", LBFGS, optimistix.Newton(rtol=1e-6, atol=1e-6)], ids=["name", "class", "root"]
)
def test_what_is_not_a_solver_is_refused(solver):
    with pytest.raises(TypeError, match="Leave solver=None for the usual choice"):
        find(linear, jnp.asarray(Y), solver=solver)


def test_too_few_steps_are_reported():
    solver = optimistix.BFGS(rtol=1e-6, atol=1e-6)
    with pytest.warns(RuntimeWarning, match="3 of 3 starts did not converge in 2 steps. Pass"):
        found = find(linear, jnp.asarray(Y, jnp.float32), solver=solver, max_steps=2)
    assert not found.starts.converged.any()
    assert "did not converge" in found.warnings[0]


def test_divergence_is_reported():
    """A step a thousand times too long."""
    solver = optimistix.GradientDescent(learning_rate=1e3, rtol=1e-6, atol=1e-6)
    with pytest.warns(RuntimeWarning, match="did not converge|diverged"):
        found = find(linear, jnp.asarray(Y, jnp.float32), solver=solver, max_steps=3)
    assert not found.starts.converged.any()
    with pytest.raises(ValueError, match="not finite at any"):
        find(linear, jnp.asarray(Y, jnp.float32), solver=solver, max_steps=50)


# ---- the result ----------------------------------------------------------------------------------


def two_modes(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z**2, 0.2), obs=y)


def test_the_estimate_is_a_result():
    with pytest.warns(UserWarning, match="2 distinct modes"):
        found = find(two_modes, jnp.array(1.0), num_starts=6)
    assert isinstance(found, Result)
    assert repr(found).startswith("MAPEstimate(energy=")
    assert len(repr(found)) < 100
    data = found.to_dataset()
    assert dict(data.sizes) == {"start": 6, "coordinate": 1, "mode": 2}
    assert data.attrs["solver"] == "LevenbergMarquardt"
    for start, mode in enumerate(data["mode_of_start"].values):
        assert start in found.modes[mode].starts
    np.testing.assert_allclose(data["mode_share"].sum(), 1)
    ax = found.plot()
    drawn = {line.get_label(): len(line.get_xdata()) for line in ax.get_lines()}
    for index, mode in enumerate(found.modes):
        assert drawn[f"mode {index + 1}, {mode.share:.0%}"] == len(mode.starts)
    assert found.plot(ax) is ax
