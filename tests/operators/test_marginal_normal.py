"""`MarginalNormal` against dense covariances in SciPy, finite differences and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer import Predictive
from numpyro.infer.util import log_density
from scipy.stats import multivariate_normal

import numpyro_genprior as ngp
from numpyro_genprior.infer import Posterior
from numpyro_genprior.infer.fisher import fisher_information
from numpyro_genprior.operators import Blur, Dense, Fourier, MarginalNormal, Mask

SHAPE = (3, 4)
SEEN = np.arange(12).reshape(SHAPE) % 3 != 1
MATRIX = np.random.default_rng(3).normal(size=(5, 12))
TAU, SIGMA = 0.7, 0.3
OPERATORS = {
    "mask": lambda: Mask(SEEN),
    "dense": lambda: Dense(MATRIX, SHAPE),
    "tall": lambda: Dense(np.vstack([np.eye(12), MATRIX]), SHAPE),
    "fourier": lambda: Fourier(SHAPE, mask=np.arange(9).reshape(3, 3) % 2 == 0),
    "blur": lambda: Blur(SHAPE, 0.8),
    "mask_of_blur": lambda: Mask(SEEN) @ Blur(SHAPE, 0.8),
}


def marginal(operator, loc, tau=TAU, sigma=SIGMA, **options):
    return MarginalNormal(operator, loc, event_scale=tau, noise_scale=sigma, **options)


def dense_of(operator, loc, tau=TAU, sigma=SIGMA):
    a = np.asarray(operator.matrix(), float)
    return a @ np.ravel(loc), sigma**2 * np.eye(len(a)) + tau**2 * a @ a.T


@pytest.mark.float64
@pytest.mark.parametrize("name", OPERATORS)
def test_density_and_gradients(name, rng):
    operator = OPERATORS[name]()
    loc, y = rng.normal(size=SHAPE), rng.normal(size=operator.data_shape)
    fn = marginal(operator, loc)
    mean, covariance = dense_of(operator, loc)
    expected = multivariate_normal(mean, covariance).logpdf(y.ravel())
    np.testing.assert_allclose(fn.log_prob(y), expected, rtol=1e-12)
    np.testing.assert_allclose(fn.mean.ravel(), mean, atol=1e-13)
    np.testing.assert_allclose(fn.variance.ravel(), np.diag(covariance), rtol=1e-12)

    def value(loc, tau, sigma):
        mean, covariance = dense_of(operator, loc, tau, sigma)
        return multivariate_normal(mean, covariance).logpdf(y.ravel())

    gradients = jax.jit(
        jax.grad(lambda m, t, s, y: marginal(operator, m, t, s).log_prob(y), argnums=(0, 1, 2, 3))
    )(jnp.asarray(loc), TAU, SIGMA, y)
    step = np.random.default_rng(0).normal(size=SHAPE)
    h = 1e-6
    ahead, behind = value(loc + h * step, TAU, SIGMA), value(loc - h * step, TAU, SIGMA)
    np.testing.assert_allclose(jnp.sum(gradients[0] * step), (ahead - behind) / (2 * h), rtol=1e-6)
    ahead, behind = value(loc, TAU + h, SIGMA), value(loc, TAU - h, SIGMA)
    np.testing.assert_allclose(gradients[1], (ahead - behind) / (2 * h), rtol=1e-6)
    ahead, behind = value(loc, TAU, SIGMA + h), value(loc, TAU, SIGMA - h)
    np.testing.assert_allclose(gradients[2], (ahead - behind) / (2 * h), rtol=1e-6)
    score = -np.linalg.solve(covariance, y.ravel() - mean)
    np.testing.assert_allclose(gradients[3].ravel(), score, rtol=1e-9, atol=1e-12)


@pytest.mark.float64
@pytest.mark.parametrize("name", ["dense", "tall", "blur", "mask_of_blur"])
def test_event_given_data(name, key, rng):
    operator = OPERATORS[name]()
    loc, y = rng.normal(size=SHAPE), rng.normal(size=operator.data_shape)
    fn = marginal(operator, loc)
    a = np.asarray(operator.matrix(), float)
    covariance = np.linalg.inv(np.eye(12) / TAU**2 + a.T @ a / SIGMA**2)
    mean = covariance @ (loc.ravel() / TAU**2 + a.T @ y.ravel() / SIGMA**2)
    np.testing.assert_allclose(fn.event_mean(y).ravel(), mean, rtol=1e-9, atol=1e-12)
    draws = fn.sample_event(key, y, (20_000,)).reshape(-1, 12)
    whitened = (np.asarray(draws) - mean) @ np.linalg.cholesky(np.linalg.inv(covariance))
    assert np.abs(whitened.mean(0) * np.sqrt(20_000)).max() < 5
    error = (np.cov(whitened.T) - np.eye(12)) * np.sqrt(20_000)
    assert np.abs(error).max() < 5 * np.sqrt(2)


@pytest.mark.parametrize("name", ["dense", "blur"])
def test_draws_have_the_moments_of_the_distribution(name, key):
    operator = OPERATORS[name]()
    fn = marginal(operator, jnp.linspace(-1, 1, 12).reshape(SHAPE))
    mean, covariance = dense_of(operator, fn.event_loc)
    drawn, white = jax.jit(
        lambda fn: (
            y := fn.sample(key, (20_000,)),
            fn.whiten(y - fn.mean[None]),
        )
    )(fn)
    draws, white = (np.asarray(x).reshape(20_000, -1) for x in (drawn, white))
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (draws - mean).T)
    assert np.abs(whitened.mean(1) * np.sqrt(20_000)).max() < 5
    assert np.abs((np.cov(whitened) - np.eye(len(mean))) * np.sqrt(20_000)).max() < 5 * np.sqrt(2)
    assert np.abs((np.cov(white.T) - np.eye(len(mean))) * np.sqrt(20_000)).max() < 5 * np.sqrt(2)


def test_shapes_batches_and_wrappers(key):
    operator = OPERATORS["dense"]()
    loc, tau = jnp.arange(24.0).reshape(2, *SHAPE) / 12, jnp.array([[0.5], [1.0], [2.0]])
    fn = marginal(operator, loc, tau)
    assert (fn.batch_shape, fn.event_shape, fn.has_rsample) == (
        (3, 2),
        (5,),
        True,
    )
    assert (fn.support.event_dim, fn.arg_constraints["event_loc"].event_dim) == (1, 2)

    @jax.jit
    def everything(fn, key):
        y = fn.rsample(key, (4,))
        one = marginal(fn.operator, fn.event_loc[0, 1], fn.event_scale[2, 0])
        with jax.numpy_rank_promotion("allow"):  # inside NumPyro
            wide = fn.expand((6, 3, 2))
            wrapped = {
                "wide_draw": wide.sample(key, (2,)),
                "wide": wide.log_prob(y[0])[1],
                "independent": fn.to_event(1).log_prob(y),
                "masked": fn.mask(jnp.array([True, False])).log_prob(y)[..., 1],
            }
        stacked = jax.vmap(lambda m: marginal(fn.operator, m).log_prob(y[0, 0, 0]))(fn.event_loc[0])
        return wrapped | {
            "fn": fn,
            "y": y,
            "log_prob": fn.log_prob(y),
            "one": (one.log_prob(y[3, 2, 1]), one.variance, one.event_mean(y[3, 2, 1])),
            "moments": (fn.mean, fn.variance, fn.event_mean(y)),
            "events": fn.sample_event(key, y, (7,)),
            "vmapped": (
                stacked,
                marginal(fn.operator, fn.event_loc[0]).log_prob(y[0, 0, 0]),
            ),
        }

    got = everything(fn, key)
    log_prob, (mean, variance, event_mean) = got["log_prob"], got["moments"]
    assert got["y"].shape == (4, 3, 2, 5)
    assert log_prob.shape == (4, 3, 2)
    np.testing.assert_allclose(log_prob[3, 2, 1], got["one"][0], rtol=1e-5)
    assert mean.shape == variance.shape == (3, 2, 5)
    np.testing.assert_allclose(variance[2, 1], got["one"][1], rtol=1e-5)
    assert event_mean.shape == (4, 3, 2, *SHAPE)
    np.testing.assert_allclose(event_mean[3, 2, 1], got["one"][2], atol=1e-4)
    assert got["events"].shape == (7, 4, 3, 2, *SHAPE)
    assert got["wide_draw"].shape == (2, 6, 3, 2, 5)
    np.testing.assert_allclose(got["wide"], log_prob[0], rtol=1e-5)
    np.testing.assert_allclose(got["independent"], log_prob.sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(got["masked"], 0)
    np.testing.assert_allclose(*got["vmapped"], rtol=1e-5)
    assert got["fn"].arg_constraints["event_loc"].event_dim == 2
    assert got["fn"].batch_shape == (3, 2)


@pytest.mark.parametrize("moving", [False, True])
def test_scan(moving):
    """The operator returns from a scan with a leading dimension, in front of a plate's."""
    operator = OPERATORS["dense"]()
    rng = np.random.default_rng(5)
    ys, loc = jnp.asarray(rng.normal(size=(4, 2, 5))), jnp.asarray(rng.normal(size=(4, 2, *SHAPE)))
    operators = jax.tree.map(lambda x: jnp.stack([x * k for k in (1, 2, 3, 4)]), operator)

    def model(operator, ys):
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))

        def step(carry, at):
            y, own = at
            with numpyro.plate("frames", 2):
                x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand(SHAPE).to_event(2))
                fn = marginal(operator if own is None else own, x, tau)
                numpyro.sample("y", fn, obs=y)
            return carry, None

        scan(step, 0.0, (ys, operators if moving else None))

    values = {"x": loc, "tau": jnp.array(0.7)}
    with jax.numpy_rank_promotion("allow"):
        _, trace = log_density(numpyro.handlers.seed(model, 0), (operator, ys), {}, values)
        found = trace["y"]["fn"].log_prob(ys)
    each = (lambda t: jax.tree.map(lambda x: x[t], operators)) if moving else (lambda t: operator)
    expected = jnp.stack([marginal(each(t), loc[t], 0.7).log_prob(ys[t]) for t in range(4)])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


G = np.random.default_rng(11).normal(size=(12, 3)) / 2


@ngp.latent(noise="omit")
def model(operator, y=None):
    prior = ngp.GANPrior(lambda z: (jnp.asarray(G, z.dtype) @ z).reshape(SHAPE), 3)
    x = numpyro.sample("x", prior)
    log_tau = numpyro.sample("log_tau", dist.Normal(-0.4, 0.5))
    fn = MarginalNormal(operator, x, event_scale=jnp.exp(log_tau), noise_scale=SIGMA)
    numpyro.sample("y", fn, obs=y)


def test_in_a_model(key):
    operator = OPERATORS["mask"]()
    drawn = Predictive(model, num_samples=6)(key, operator)
    assert drawn["y"].shape == (6, *operator.data_shape)
    fn = marginal(operator, drawn["x"], jnp.exp(drawn["log_tau"]))
    assert fn.sample_event(key, drawn["y"]).shape == (6, *SHAPE)
    est = ngp.infer.find_map(model, key, operator, drawn["y"][0], num_starts=2, progress_bar=False)
    assert isinstance(est.solver, ngp.infer.LevenbergMarquardt)
    s = ngp.diagnostics.sensitivity(model, est, operator, drawn["y"][0])
    assert s.singular_values.shape == (4,)


@pytest.mark.float64
@pytest.mark.parametrize("name", ["dense", "tall"])
def test_fisher_is_the_hessian_of_the_divergence(name, rng):
    operator = OPERATORS[name]()
    loc = rng.normal(size=SHAPE)

    m0, k0 = dense_of(operator, loc)
    theta = np.concatenate([loc.ravel(), [TAU, SIGMA]])

    def divergence(step):
        """KL of two normals with dense covariances, from the distribution at the first point."""
        moved = theta + step
        m, k = dense_of(operator, moved[:12], moved[12], moved[13])
        return 0.5 * (
            np.trace(np.linalg.solve(k, k0))
            + (m - m0) @ np.linalg.solve(k, m - m0)
            + np.linalg.slogdet(k)[1]
        )

    h = 1e-3 * np.eye(14)
    hessian = [
        [
            sum(a * b * divergence(a * h[i] + b * h[j]) for a in (1, -1) for b in (1, -1)) / 4e-6
            for j in range(14)
        ]
        for i in range(14)
    ]
    information = fisher_information(marginal(operator, loc))
    np.testing.assert_allclose(information, hessian, rtol=1e-3, atol=1e-3)


def test_fisher_refuses_an_operator_that_moves():
    def moving(y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        fn = marginal(ngp.operators.Diagonal(jnp.exp(w) * jnp.ones(3)), jnp.ones(3))
        numpyro.sample("y", fn, obs=y)

    posterior = Posterior(moving, (jnp.zeros(3),))
    with pytest.raises(ValueError, match="Build the operator outside the model"):
        posterior.linearise(jnp.zeros(1))


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda a: marginal(MATRIX, jnp.zeros(SHAPE)), TypeError, "ngp.operators.Dense.A"),
        (lambda a: marginal(a, jnp.zeros(12)), ValueError, "batch dimensions first"),
        (lambda a: marginal(a, jnp.zeros(SHAPE), jnp.ones(SHAPE[1]), jnp.ones(3)), ValueError,
         "ngp.operators.Diagonal"),
        (lambda a: marginal(a, jnp.zeros(SHAPE), 0.0), ValueError, "observe with dist.Normal"),
        (lambda a: marginal(a, jnp.zeros(SHAPE), 1.0, -1.0), ValueError, "instrument's noise"),
        (lambda a: marginal(a, jnp.zeros(SHAPE)).log_prob(jnp.zeros(4)), ValueError, "Data"),
        (lambda a: marginal(a, jnp.full(SHAPE, jnp.nan), validate_args=True), ValueError,
         "invalid event_loc"),
        (lambda a: marginal(a, jnp.zeros(SHAPE)).sample(3), TypeError, "jax.random.key"),
    ],
)  # fmt: skip
def test_errors(build, error, words):
    with pytest.raises(error, match=f"(?i){words}"):
        build(OPERATORS["dense"]())
