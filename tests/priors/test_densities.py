"""Densities against Jacobians, quadrature, samples, and other programs."""

import distrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st
from cases import CASES, coupling, mlp, select
from flowjax import bijections as fb
from flowjax import distributions as fd
from numpyro.distributions import transforms
from numpyro.distributions.gof import get_nearest_neighbor_distances, volume_of_sphere
from sklearn.decomposition import PCA

import numpyro_genprior as ngp
from numpyro_genprior.testing import check_prior

pytestmark = pytest.mark.float64

KEY = jax.random.key(1)
FAILURE_RATE = 2e-5  # NumPyro's own, of each goodness-of-fit test, with its fixed seed


def made(name):
    return CASES[name].make(KEY)


# ---- change of variables -------------------------------------------------------------------------


@pytest.mark.parametrize("case", select(density="exact", one_way=False), ids=repr)
def test_log_prob_is_the_latent_log_prob_minus_the_log_determinant(case, key):
    """At five latents, by jacfwd and slogdet; for events of another size by J Jᵀ where linear."""
    prior = case.make(KEY)
    z = prior.latent.sample(key, (5,))
    x = prior.decode(z)
    jacobian = jax.vmap(jax.jacfwd(prior.decode))(z)
    size, number = int(np.prod(case.event_shape)), int(np.prod(case.latent_shape))
    jacobian = np.asarray(jacobian).reshape(5, size, number)
    log_prob = prior.log_prob(x)
    if size == number:
        expected = prior.latent.log_prob(z) - np.linalg.slogdet(jacobian)[1]
    elif size < number:  # Gaussian: linear, and the same Jacobian everywhere
        centre = np.asarray(prior.decode(jnp.zeros(case.latent_shape))).ravel()
        expected_dist = st.multivariate_normal(centre, jacobian[0] @ jacobian[0].T)
        expected = expected_dist.logpdf(np.asarray(x).reshape(5, size))
    else:  # the simplex: its density is by the first coordinates
        square = jacobian[:, :number]
        expected = prior.latent.log_prob(z) - np.linalg.slogdet(square)[1]
    tolerance = 1e-3 if case.iterative else 1e-9
    np.testing.assert_allclose(log_prob, expected, rtol=tolerance, atol=tolerance)


def test_check_prior_in_double_precision():
    """check_prior passes in this precision too."""
    check_prior(made("log_normal"))


# ---- quadrature ----------------------------------------------------------------------------------


def integral(prior, low, high, panels, x_of=lambda t: t):
    """The integral of the density over a box by Gauss-Legendre quadrature, 8 nodes per panel.

    With a substitution x(t), coordinate by coordinate, low and high are those of t.
    """
    nodes, weights = np.polynomial.legendre.leggauss(8)
    edges, half = np.linspace(low, high, panels + 1), (high - low) / (2 * panels)
    points = (edges[:-1, None] + half * (nodes + 1)[None]).ravel()
    weights = np.tile(half * weights, panels) * np.asarray(jax.vmap(jax.grad(x_of))(points))
    points = np.asarray(x_of(points))
    size = prior.event_shape[0] if prior.event_shape else 1
    grids = np.meshgrid(*[points] * size, indexing="ij")
    products = np.prod(np.meshgrid(*[weights] * size, indexing="ij"), axis=0).ravel()
    x = np.stack([g.ravel() for g in grids], -1)
    x = jnp.asarray(x if prior.event_shape else x[:, 0])
    return np.sum(products * np.exp(np.asarray(jax.jit(prior.log_prob)(x))))


def spline(key):
    """A one-dimensional flow with random knots."""
    leaves, treedef = jax.tree.flatten(fb.RationalQuadraticSpline(knots=4, interval=4))
    keys = jax.random.split(key, len(leaves))
    leaves = [
        leaf + 0.5 * jax.random.normal(k, jnp.shape(leaf)) if eqx.is_inexact_array(leaf) else leaf
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return ngp.FlowPrior(fb.Chain([jax.tree.unflatten(treedef, leaves), fb.Affine(0.3, 1.2)]))


ONE = {
    "spline": (spline, -12.0, 12.0),
    "exp": (lambda key: ngp.FlowPrior(fb.Exp(()), latent=dist.Normal(0.2, 0.4)), 1e-9, 15.0),
    "logistic": (lambda key: ngp.FlowPrior(fd.Logistic(0.5, 0.7)), -40.0, 40.0),
    "sigmoid": (lambda key: ngp.FlowPrior(fb.Sigmoid(())), 0.0, 1.0),
    "gaussian": (
        lambda key: ngp.GaussianPrior(0.4, factor=jnp.array([0.7]), diagonal=0.5),
        -12.0,
        12.0,
    ),
    "field": (lambda key: ngp.GaussianFieldPrior(1, lambda k: 2.0 + k), -15.0, 15.0),
}


@pytest.mark.parametrize("name", ONE)
def test_integrates_to_one_in_one_dimension(name):
    make, low, high = ONE[name]
    np.testing.assert_allclose(integral(make(KEY), low, high, 1000), 1.0, atol=1e-6)


TWO = {
    "coupling_affine": (-9.0, 9.0),
    "coupling_conditional": (-9.0, 9.0),
    "masked_autoregressive": (-9.0, 9.0),
    "planar_conditional": (-12.0, 12.0),
    "triangular_spline": (-9.0, 9.0),
    "flow_over_normal": (-16.0, 16.0),
    "flow_onto_the_unit_square": (0.0, 1.0),
    "beta": (0.0, 1.0),
    "gamma": (0.0, 45.0),
    "uniform": (-1.0, 3.0),
    "distrax_affine": (-25.0, 25.0),
    "numpyro_cholesky": (-12.0, 12.0),
    "numpyro_autoregressive": (-12.0, 12.0),
}


@pytest.mark.parametrize("name", TWO)
def test_integrates_to_one_in_two_dimensions(name):
    """To 0.1 per cent: splines and leaky layers have kinks, on which the rule is slow."""
    prior = made(name)
    np.testing.assert_allclose(integral(prior, *TWO[name], 30), 1.0, atol=1e-3)


def test_a_flow_with_wide_tails_integrates_to_one():
    """The block autoregressive flow, whose events reach hundreds: x = 10 sinh t."""
    prior = made("block_autoregressive")
    total = integral(prior, -5.0, 5.0, 40, lambda t: 10 * jnp.sinh(t))
    np.testing.assert_allclose(total, 1.0, atol=1e-3)


def test_a_declared_support_does_not_change_the_density():
    """Trap: with a support of numbers, not events, NumPyro multiplies by the event size."""
    prior = ngp.FlowPrior(fd.StandardNormal((3,)))
    x = jnp.array([0.1, 0.2, 0.3])
    expected = st.norm.logpdf(np.asarray(x)).sum()
    wide = prior.expand((2,)).to_event(1)
    np.testing.assert_allclose(prior.log_prob(x), expected)
    np.testing.assert_allclose(wide.log_prob(jnp.stack([x, x])), 2 * expected)
    np.testing.assert_allclose(prior.mask(True).log_prob(x), expected)


# ---- samples -------------------------------------------------------------------------------------

SAMPLED = [name for name in TWO if name != "uniform"]
SAMPLED += ["coupling_spline", "flow_over_student", "distrax_coupling", "gaussian"]


def goodness_of_fit(samples, log_density):
    """The p-value of NumPyro's `vector_density_goodness_of_fit`, with scipy's chi squared.

    The number of samples expected in the ball that reaches the nearest neighbour is exponential.
    (NumPyro's own tail of chi squared says 1.0 of densities that are wrong by a third.)
    """
    radii = get_nearest_neighbor_distances(samples)
    expected = len(samples) * np.exp(log_density) * volume_of_sphere(samples.shape[1], radii)
    counts, _ = np.histogram(np.exp(-expected), bins=14, range=(0, 1))
    return st.chisquare(counts).pvalue


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_agree_with_the_density(name, key):
    """The test has power: it rejects a density that is wrong by a quarter."""
    prior = made(name)
    samples = prior.sample(key, (3000,))
    log_prob = np.asarray(prior.log_prob(samples))
    samples = np.asarray(samples)
    assert goodness_of_fit(samples, log_prob) > FAILURE_RATE
    assert goodness_of_fit(samples, log_prob + np.log(1.25)) < FAILURE_RATE
    assert goodness_of_fit(samples, log_prob - np.log(1.25)) < FAILURE_RATE


@pytest.mark.parametrize("name", ["vae", "vae_with_scale_of_its_own", "vae_over_a_flow"])
def test_samples_of_a_vae_have_the_moments_of_decoder_and_noise(name, key):
    """E x = E g(z) and Var x = Var g(z) + E scale², within five standard errors."""
    prior = made(name)
    n = 20_000
    x = np.asarray(prior.sample(key, (n,)))
    z = prior.latent.sample(jax.random.fold_in(key, 1), (n,))
    loc, scale = map(np.asarray, prior.event_loc_scale(z))
    error = 5 * np.sqrt(x.var(0) * 2 / n)
    np.testing.assert_array_less(np.abs(x.mean(0) - loc.mean(0)), error)
    variance = loc.var(0) + (scale**2).mean(0)
    kurtosis = np.mean((x - x.mean(0)) ** 4, 0) / x.var(0) ** 2
    error = 5 * x.var(0) * np.sqrt(2 * kurtosis / n)
    np.testing.assert_array_less(np.abs(x.var(0) - variance), error)


# ---- other programs ------------------------------------------------------------------------------

FLOWJAX = [
    "coupling_affine",
    "coupling_spline",
    "triangular_spline",
    "block_autoregressive",
    "flow_over_normal",
    "flow_over_student",
    "log_normal",
    "beta",
    "gamma",
]


@pytest.mark.parametrize("name", FLOWJAX)
def test_against_flowjax(name, key):
    prior = made(name)
    theirs = prior.flow
    x = theirs.sample(key, (4,))
    np.testing.assert_allclose(prior.log_prob(x), theirs.log_prob(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "name", ["coupling_conditional", "masked_autoregressive", "planar_conditional"]
)
def test_against_flowjax_with_a_condition(name, key):
    prior = made(name)
    theirs, condition = prior.flow, prior.condition
    with jax.numpy_rank_promotion("allow"):
        x = theirs.sample(key, (4,), condition=condition)
        expected = theirs.log_prob(x, condition)
    np.testing.assert_allclose(prior.log_prob(x), expected, rtol=1e-9, atol=1e-9)


def test_against_distrax(key):
    prior = made("distrax_coupling")
    expected_dist = distrax.Transformed(
        distrax.Independent(distrax.Normal(jnp.zeros(3), jnp.ones(3)), 1), prior.flow
    )
    x = prior.sample(key, (4,))
    np.testing.assert_allclose(prior.log_prob(x), jax.vmap(expected_dist.log_prob)(x), rtol=1e-9)


@pytest.mark.parametrize("name", ["numpyro_exp", "numpyro_cholesky", "numpyro_autoregressive"])
def test_against_numpyro(name, key):
    prior = made(name)
    flow = prior.flow
    base = dist.Normal(jnp.zeros(2), 1.0)
    expected_dist = dist.TransformedDistribution(base.to_event(1), flow)
    x = prior.sample(key, (4,))
    expected = jax.vmap(lambda x: jnp.sum(expected_dist.log_prob(x)))(x)
    np.testing.assert_allclose(prior.log_prob(x), expected, rtol=1e-9)


def test_against_scipy():
    x = np.array([[0.2, 0.7], [0.5, 0.9]])
    for flow, expected_dist in (
        (fd.Beta(jnp.array([2.0, 3.0]), jnp.array([2.5, 1.5])), st.beta([2.0, 3.0], [2.5, 1.5])),
        (
            fd.Gamma(jnp.array([2.0, 3.5]), jnp.array([1.0, 0.5])),
            st.gamma([2.0, 3.5], scale=[1.0, 0.5]),
        ),
        (
            fd.LogNormal(jnp.array([0.1, -0.2]), jnp.array([0.5, 1.5])),
            st.lognorm([0.5, 1.5], scale=np.exp([0.1, -0.2])),
        ),
        (fd.StudentT(jnp.array([4.0, 6.0])), st.t([4.0, 6.0])),
    ):
        got = ngp.FlowPrior(flow).log_prob(jnp.asarray(x))
        np.testing.assert_allclose(got, expected_dist.logpdf(x).sum(-1), rtol=1e-9)


def test_uniform_on_a_box_of_unequal_sides(key):
    """The support is the box; NumPyro's interval broadcasts its bounds against batches."""
    low, high = jnp.array([-1.0, 2.0]), jnp.array([1.0, 5.0])
    prior = ngp.FlowPrior(fd.Uniform(low, high))
    with jax.numpy_rank_promotion("allow"):
        x = prior.sample(key, (100,))
        np.testing.assert_allclose(prior.log_prob(x), -np.log(6.0))
        outside = jnp.array([[0.0, 1.9], [1.1, 3.0], [0.0, 3.0]])
        got = jax.jit(prior.log_prob)(outside)
    np.testing.assert_array_equal(np.isneginf(got), [True, True, False])


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_gaussian_against_scipy(rank, rng):
    loc, factor = rng.normal(size=5), rng.normal(size=(5, rank))
    diagonal = rng.uniform(0.1, 2.0, 5)
    prior = ngp.GaussianPrior(loc, factor=factor, diagonal=diagonal)
    covariance = factor @ factor.T + np.diag(diagonal)
    x = rng.normal(size=(4, 5))
    expected = st.multivariate_normal(loc, covariance).logpdf(x)
    np.testing.assert_allclose(prior.log_prob(jnp.asarray(x)), expected, rtol=1e-10)
    np.testing.assert_allclose(prior.variance, np.diag(covariance), rtol=1e-12)
    score = -np.linalg.solve(covariance, (x - loc).T).T
    np.testing.assert_allclose(prior.score(jnp.asarray(x)), score, rtol=1e-9, atol=1e-9)


def test_from_samples_against_scikit_learn(rng):
    """The factor is that of probabilistic PCA, and no variance is lost."""
    data = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(200, 6))
    prior = ngp.GaussianPrior.from_samples(data, rank=2)
    pca = PCA(n_components=2).fit(data)
    bessel = 199 / 200  # scikit-learn divides by n - 1, maximum likelihood by n
    low_rank = pca.components_.T * (pca.explained_variance_ - pca.noise_variance_) * bessel
    factor = np.asarray(prior.factor)
    np.testing.assert_allclose(factor @ factor.T, low_rank @ pca.components_, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(prior.loc, data.mean(0), rtol=1e-12)
    np.testing.assert_allclose(prior.variance, data.var(0), rtol=1e-9)
    assert prior.log_prob(jnp.asarray(data)).sum() >= pca.score(data) * 200  # by its diagonal


def test_from_samples_recovers_a_full_covariance(rng):
    """With full rank minus one, the covariance equals the sample covariance on the diagonal and is
    close elsewhere."""
    data = rng.normal(size=(500, 3, 2))
    prior = ngp.GaussianPrior.from_samples(data, rank=5)
    covariance = np.cov(data.reshape(500, -1).T, bias=True)
    factor = np.asarray(prior.factor).reshape(6, 5)
    got = factor @ factor.T + np.diag(np.asarray(prior.diagonal).ravel())
    np.testing.assert_allclose(got, covariance, atol=1e-8)


@pytest.mark.parametrize("shape", [(6,), (5,), (4, 3), (3, 4), (2, 3, 2)])
def test_field_against_a_dense_circulant(shape, rng):
    """The covariance by NumPy's full FFT of delta functions, and scipy's normal on it."""

    def spectrum(k):
        return 1.0 / (0.05 + k**2)

    prior = ngp.GaussianFieldPrior(shape, spectrum, loc=0.3)
    size = int(np.prod(shape))
    grids = np.meshgrid(*[np.fft.fftfreq(n) for n in shape], indexing="ij")
    eigenvalues = spectrum(np.sqrt(sum(g**2 for g in grids)))
    axes = tuple(range(1, len(shape) + 1))
    deltas = np.eye(size).reshape(size, *shape)
    covariance = np.fft.ifftn(np.fft.fftn(deltas, axes=axes) * eigenvalues, axes=axes).real
    covariance = covariance.reshape(size, size)
    x = rng.normal(size=(3, *shape))
    expected_dist = st.multivariate_normal(np.full(size, 0.3), covariance)
    expected = expected_dist.logpdf(x.reshape(3, size))
    np.testing.assert_allclose(prior.log_prob(jnp.asarray(x)), expected, rtol=1e-10)
    np.testing.assert_allclose(np.ravel(prior.variance), np.diag(covariance), rtol=1e-10)
    jacobian = jax.jacfwd(prior.decode)(jnp.zeros(shape)).reshape(size, size)
    np.testing.assert_allclose(jacobian @ jacobian.T, covariance, atol=1e-10)


def test_a_flat_spectrum_is_white_noise(rng):
    x = rng.normal(size=(4, 4))
    prior = ngp.GaussianFieldPrior((4, 4), lambda k: jnp.ones_like(k))
    expected = st.norm.logpdf(x).sum()
    np.testing.assert_allclose(prior.log_prob(jnp.asarray(x)), expected, rtol=1e-12)


# ---- the bound -----------------------------------------------------------------------------------


def linear_gaussian(encoder=None):
    """x = W z + b + 0.5 noise, z ~ N(0, I): the evidence is N(b, W Wᵀ + 0.25 I)."""
    weights = jax.random.normal(jax.random.key(7), (3, 2))
    prior = ngp.VAEPrior(lambda z: weights @ z + 1.0, 2, scale=0.5, encoder=encoder)
    w = np.asarray(weights)
    return prior, st.multivariate_normal(np.ones(3), w @ w.T + 0.25 * np.eye(3)), w


@pytest.mark.parametrize("with_encoder", [False, True])
def test_the_bound_is_below_the_evidence_and_tightens(with_encoder, key):
    """Its mean is at most the exact evidence, increases with K, and is close to it for large K."""
    prior, evidence, w = linear_gaussian()
    if with_encoder:  # a poor one: 0.8 of the right mean, and a deviation that is too large
        precision = np.eye(2) + w.T @ w / 0.25
        gain = jnp.asarray(0.8 * np.linalg.solve(precision, w.T / 0.25))
        prior, _, _ = linear_gaussian(lambda x: (gain @ (x - 1.0), jnp.ones(2)))
    x = prior.sample(key)
    exact = evidence.logpdf(np.asarray(x))
    means = []
    for samples in (1, 16, 256):
        keys = jax.random.split(jax.random.fold_in(key, samples), 500)
        bounds = jax.vmap(lambda k, n=samples: prior.log_prob_bound(k, x, n))(keys)
        error = np.std(bounds) / np.sqrt(500)
        assert np.mean(bounds) <= exact + 5 * error
        means.append(np.mean(bounds))
    assert means[0] < means[1] < means[2]
    assert exact - means[2] < 0.1


def test_the_bound_is_exact_with_the_exact_posterior(key):
    """If the encoder is the exact posterior, one sample gives the evidence without variance."""
    _, evidence, w = linear_gaussian()
    # rotate the latent so that the posterior has independent coordinates
    _, _, rotation = np.linalg.svd(w)
    rotated = w @ rotation.T
    scale = 1 / np.sqrt(1 + np.sum(rotated**2, 0) / 0.25)
    gain = jnp.asarray((scale**2)[:, None] * rotated.T / 0.25)
    prior = ngp.VAEPrior(
        lambda z: jnp.asarray(rotated) @ z + 1.0,
        2,
        scale=0.5,
        encoder=lambda x: (gain @ (x - 1.0), jnp.asarray(scale)),
    )
    x = prior.sample(key, (3,))
    bound = prior.log_prob_bound(key, x, num_samples=1)
    np.testing.assert_allclose(bound, evidence.logpdf(np.asarray(x)), rtol=1e-9)


# ---- related priors ------------------------------------------------------------------------------


def test_thicken_and_noiseless(key):
    """Both decode alike, and the noise is the one that was given."""
    gan = ngp.GANPrior(mlp(KEY, 2, 4), 2)
    vae = gan.thicken(jnp.array([0.1, 0.2, 0.3, 0.4]))
    z = gan.latent.sample(key, (3,))
    np.testing.assert_array_equal(vae.decode(z), gan.decode(z))
    expected_dist = vae.event_given(z)
    np.testing.assert_allclose(
        expected_dist.variance[0], np.array([0.01, 0.04, 0.09, 0.16]), rtol=1e-12
    )
    np.testing.assert_array_equal(vae.noiseless().decode(z), gan.decode(z))
    own = made("vae_with_scale_of_its_own")
    np.testing.assert_array_equal(own.noiseless().decode(z), own.event_given(z).mean)
    conditional = made("vae_conditional")
    np.testing.assert_array_equal(conditional.noiseless().condition, conditional.condition)
    np.testing.assert_array_equal(conditional.noiseless().decode(z), conditional.decode(z))


def test_with_scale(key):
    """Only the noise changes, whether the scale is given or the decoder's own."""
    for name in ("vae_with_encoder", "vae_with_scale_of_its_own", "vae_conditional"):
        prior = made(name)
        other = prior.with_scale(0.7)
        z, x = prior.latent.sample(key, (3,)), prior.sample(key, (3,))
        np.testing.assert_array_equal(other.decode(z), prior.decode(z))
        np.testing.assert_allclose(other.event_given(z).variance, np.full(x.shape, 0.49))
        assert (other.condition is None) == (prior.condition is None)
        if prior.encoder is not None:
            np.testing.assert_array_equal(other.encode(x), prior.encode(x))


def test_related_priors_keep_the_encoder(key):
    prior = made("vae_conditional")
    gan = prior.noiseless()
    x = prior.sample(key, (3,))
    np.testing.assert_array_equal(gan.encode(x), prior.encode(x))
    np.testing.assert_array_equal(gan.thicken(0.2).encode(x), prior.encode(x))
    loc, scale = prior.encode(x[0])
    assert loc.shape == scale.shape == prior.latent.event_shape
    assert made("vae").noiseless().encoder is None


def test_event_given_is_a_normal(key):
    prior = made("vae_with_scale_of_its_own")
    z, x = prior.latent.sample(key, (3,)), prior.sample(key, (3,))
    loc, scale = map(np.asarray, prior.event_loc_scale(z))
    expected = st.norm.logpdf(np.asarray(x), loc, scale).sum(-1)
    np.testing.assert_allclose(prior.event_given(z).log_prob(x), expected, rtol=1e-10)


def test_the_inverse_is_computed_once():
    """With a known latent the density needs no inverse; from the event, inverse and log
    determinant come in one pass of the conditioner."""
    flow = coupling(KEY, 2)
    prior = ngp.FlowPrior(flow)
    x = jnp.zeros(2)

    def flops(function):
        return jax.jit(function).lower(x).compile().cost_analysis()["flops"]

    ours, theirs = flops(prior.log_prob), flops(lambda x: flow.log_prob(x))
    assert ours <= 1.05 * theirs + 10


def test_events_have_the_widest_dtype():
    """The dtype under x64: float32 weights and a float64 latent give float64 events."""
    weights = jnp.ones((3, 2), jnp.float32)
    prior = ngp.GANPrior(lambda z: weights @ z, 2)
    assert prior.event_dtype == jnp.float64
    assert prior.sample(KEY).dtype == jnp.float64
    assert prior.decode(jnp.zeros(2, jnp.float32)).dtype == jnp.float32
    exp = ngp.FlowPrior(transforms.ExpTransform(), latent=2)
    assert exp.event_dtype == jnp.float64
