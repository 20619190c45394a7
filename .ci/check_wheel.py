"""Check the built wheel where only it and the core dependencies are installed.

python .ci/check_wheel.py dist/*.whl
"""

import importlib.util
import pathlib
import sys
import zipfile

EXTRAS = ("blackjax", "distrax", "flax", "sklearn")
WHERE_USED = ("arviz", "haiku", "matplotlib", *EXTRAS)


def main(wheel):
    """Look into the wheel, import it, and sample with what a bare installation has."""
    files = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in files}
    strange = {top for top in tops if top != "numpyro_genprior" and not top.endswith(".dist-info")}
    check(not strange, f"the wheel holds more than the package: {sorted(strange)}")
    check("numpyro_genprior/py.typed" in files, "py.typed is not in the wheel")
    check(any(name.endswith("LICENSE") for name in files), "the licence is not in the wheel")
    check(any(name.endswith(".safetensors") for name in files), "no pretrained prior in the wheel")

    installed = [name for name in EXTRAS if importlib.util.find_spec(name)]
    check(not installed, f"this is no bare installation: it has {installed}")

    import numpyro_genprior as ngp

    check("site-packages" in pathlib.Path(ngp.__file__).parts, f"imported from {ngp.__file__}")
    loaded = sorted(set(WHERE_USED) & set(sys.modules))
    check(not loaded, f"`import numpyro_genprior` also imports {loaded}")

    for name in WHERE_USED:  # a machine without them, for what follows
        sys.modules[name] = None

    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS

    @ngp.latent
    def model(prior, y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x.reshape(-1)[:5], 0.1).to_event(1), obs=y)

    for name in ngp.pretrained.names():
        prior = ngp.pretrained.load(name)
        x = prior.sample(jax.random.key(0))
        check(bool(jnp.isfinite(x).all()), f"{name} draws what is not finite")
    mcmc = MCMC(NUTS(model), num_warmup=20, num_samples=20, progress_bar=False)
    mcmc.run(jax.random.key(1), ngp.GANPrior(lambda z: jnp.tanh(z), 5), jnp.zeros(5))
    check(mcmc.get_samples()["x"].shape == (20, 5), "the posterior has another shape")

    def scales(y):
        scale = numpyro.sample("scale", dist.Gamma(2, 2)) + numpyro.sample("b", dist.Beta(2, 2))
        numpyro.sample("y", dist.Normal(0.0, scale).expand([9]).to_event(1), obs=y)

    found = ngp.infer.find_map(scales, jax.random.key(2), jnp.ones(9), progress_bar=False)
    check(0 < found.values["scale"] < 2, "scales of models are not found")
    print(f"{len(files)} files; {len(ngp.pretrained.names())} pretrained priors drew; NUTS ran")


def check(holds, message):
    """Stop with the message unless it holds."""
    if not holds:
        sys.exit(message)


if __name__ == "__main__":
    main(sys.argv[1])
