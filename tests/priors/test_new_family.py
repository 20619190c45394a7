"""The contributor page adds a family of priors in one file, and everything works with it."""

import doctest
import pathlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC

import numpyro_genprior as ngp
from numpyro_genprior import io as ngp_io
from numpyro_genprior.infer.fisher import fisher_information, register_fisher
from numpyro_genprior.priors import Prior

PAGE = pathlib.Path(__file__).parents[2] / "docs/contributing.md"
NUM_STEPS, STEP = 100, 0.5


@pytest.fixture(scope="module")
def page():
    """The names that the code of the page's section defines."""
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("## A prior of your own") :]
    section = section[: section.index("\n## ", 1)]
    module = types.ModuleType("contributing_page")
    test = doctest.DocTestParser().get_doctest(section, {}, PAGE.name, str(PAGE), 0)
    test.globs = module.__dict__
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)  # so that its classes can be pickled
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
        assert runner.run(test, clear_globs=False).failed == 0
        yield module.__dict__


@pytest.fixture
def walk(page):
    return page["LogNormalWalk"](3, STEP)


def test_the_page_runs_and_its_prior_keeps_the_contract(walk):
    ngp.testing.check_prior(walk)


def test_the_file_loads_by_itself(walk, tmp_path):
    path = tmp_path / "walk.safetensors"
    ngp.save(path, walk)
    assert ngp_io.read_header(path)["loads"] == "by itself"
    loaded = ngp.load(path)
    assert type(loaded) is type(walk)
    assert jax.tree.structure(loaded) == jax.tree.structure(walk)
    np.testing.assert_array_equal(loaded.step, walk.step)


def test_a_file_of_a_class_that_is_not_defined_says_what_to_import(walk, tmp_path, monkeypatch):
    path = tmp_path / "walk.safetensors"
    ngp.save(path, walk)
    monkeypatch.delitem(Prior.families, "LogNormalWalk")
    with pytest.raises(ngp_io.TemplateRequiredError, match=r"LogNormalWalk.*Import the module"):
        ngp.load(path)
    np.testing.assert_array_equal(ngp.load(path, like=walk).step, walk.step)


def test_a_given_event_has_coordinates(walk):
    """Without explicit=True the event is a sample site, with the coordinates of its inverse."""

    def model(prior):
        numpyro.sample("x", prior)

    posterior = ngp.infer.Posterior(model, (walk,))
    z = jnp.array([0.5, -1.0, 2.0])
    got = posterior.coordinates({"x": walk.decode(z)})
    np.testing.assert_allclose(got, z, rtol=1e-4, atol=1e-5)


def test_find_map_starts_in_its_latent(walk):
    """With explicit=True the mode of a linear-Gaussian problem in the latent is known."""

    @ngp.latent(explicit=True)
    def model(prior, y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(jnp.log(x), 0.1).to_event(1), obs=y)

    y = jnp.array([0.3, -0.2, 0.4])
    estimate = ngp.infer.find_map(model, jax.random.key(1), walk, y, num_starts=2)
    a = STEP * jnp.tril(jnp.ones((3, 3))) / 0.1
    expected = jnp.linalg.solve(a.T @ a + jnp.eye(3), a.T @ (y / 0.1))
    np.testing.assert_allclose(estimate.values["x_latent"], expected, rtol=1e-3, atol=1e-3)


def test_the_information_is_the_variance_of_the_score(walk):
    draws = walk.sample(jax.random.key(2), (20_000,))
    score = jax.vmap(jax.grad(lambda p, x: p.log_prob(x)), (None, 0))(walk, draws).step
    squares = np.asarray(score, np.float64) ** 2
    error = squares.std() / np.sqrt(squares.size)
    assert abs(squares.mean() - fisher_information(walk).item()) < 5 * error


@pytest.fixture(scope="module")
def problem(page):
    """A model that observes a walk with an unknown step, and the moments of log step."""
    cls = page["LogNormalWalk"]

    def model(x=None):
        step = numpyro.sample("step", dist.LogNormal(0.0, 1.0))
        numpyro.sample("x", cls(NUM_STEPS, step), obs=x)

    x = cls(NUM_STEPS, STEP).sample(jax.random.key(3))
    grid = np.linspace(-2, 1, 4001)
    squares = float(np.sum(np.diff(np.log(np.asarray(x, np.float64)), prepend=0.0) ** 2))
    log_density = -0.5 * grid**2 - NUM_STEPS * grid - 0.5 * squares * np.exp(-2 * grid)
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    return model, x, float(weights @ grid)


@pytest.mark.slow
def test_fisher_nuts_samples_the_posterior(problem):
    model, x, expected = problem
    mcmc = MCMC(ngp.infer.FisherNUTS(model), num_warmup=100, num_samples=500, progress_bar=False)
    mcmc.run(jax.random.key(4), x)
    draws = np.log(np.asarray(mcmc.get_samples()["step"], np.float64))
    error = draws.std() / np.sqrt(effective_sample_size(draws[None]))
    assert abs(draws.mean() - expected) < 5 * error


def test_mgvi_has_the_spread_of_the_information(problem):
    """The metric in log step is 1 from its prior and 2 from each increment."""
    model, x, expected = problem
    result = ngp.infer.MGVI(model).run(jax.random.key(5), 5, x)
    draws = np.log(np.asarray(result.sample_posterior(jax.random.key(6), (2000,))["step"]))
    spread = 1 / np.sqrt(1 + 2 * NUM_STEPS)
    assert abs(draws.std() / spread - 1) < 5 / np.sqrt(2 * draws.size)
    assert abs(draws.mean() - expected) < spread


# ---- what the page does not show -----------------------------------------------------------------


class Conditional(Prior):
    """x = condition · loc + z: its information is about loc."""

    density = "exact"
    pytree_data_fields = ("loc",)

    def __init__(self, loc, condition):
        self.loc = jnp.asarray(loc, float)
        super().__init__(self.loc.shape, condition=condition, condition_shape=())

    def _decode(self, z, condition):
        return condition * self.loc + z

    def _log_prob(self, x, condition):
        return self.latent.log_prob(x - condition * self.loc)

    def _fisher_parameters(self, condition):
        return {"loc": self.loc}

    def _fisher_root(self, tangent, condition):
        return condition * tangent["loc"]


def test_the_information_is_written_for_one_condition():
    conditions = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    got = fisher_information(Conditional([0.5, -1.0], conditions))
    expected = conditions[..., None, None] ** 2 * jnp.eye(2)[None, None]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    got = fisher_information(Conditional([0.5, -1.0], conditions[0, 1]))
    np.testing.assert_allclose(got, expected[0, 1], rtol=1e-6)


def test_a_registered_rule_comes_before_the_hooks():
    class Other(Conditional):
        pass

    register_fisher(
        Other, parameters=lambda d: {"loc": d.loc}, whiten=lambda d, tangent: 3 * tangent["loc"]
    )
    np.testing.assert_allclose(fisher_information(Other([0.0], 1.0)), [[9.0]], rtol=1e-6)


def test_a_prior_without_hooks_says_what_is_missing():
    prior = ngp.GANPrior(lambda z: z, 2)
    with pytest.raises(NotImplementedError, match=r"_inverse.*explicit=True"):
        prior.inverse(jnp.zeros(2))
    with pytest.raises(ValueError, match="Build it with encoder=net"):
        prior.encode(jnp.zeros(2))
    assert prior.encoder is None
    assert prior.event_scale is None
    assert not prior.has_fisher


def test_a_class_cannot_take_the_name_of_one_of_this_package():
    built_in = Prior.families["GANPrior"]
    mine = type("GANPrior", (ngp.GANPrior,), {})
    assert mine is not ngp.GANPrior
    assert Prior.families["GANPrior"] is built_in is ngp.GANPrior


def test_shapes_are_not_inferred_from_those_of_arguments():
    for cls in (Conditional, ngp.GaussianPrior):
        with pytest.raises(NotImplementedError, match="read its batch_shape and event_shape"):
            cls.infer_shapes(loc=(2,))
