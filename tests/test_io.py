"""Files of priors: bit for bit, by themselves or with like=, and refused when anything is off."""

import contextlib
import copy
import json
import math
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import distrax
import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import safetensors
import safetensors.numpy
from numpyro.distributions import constraints, transforms

from numpyro_genprior import (
    FlowPrior,
    GANPrior,
    GaussianFieldPrior,
    GaussianPrior,
    Prior,
    VAEPrior,
)
from numpyro_genprior import io as ngp_io
from numpyro_genprior.flows.architectures import SplineCouplingFlow
from numpyro_genprior.io import codec, load, read_header, save
from numpyro_genprior.networks import from_haiku
from numpyro_genprior.networks.architectures import (
    ConvDecoder,
    ConvEncoder,
    MLPDecoder,
    MLPEncoder,
)

KEY = jax.random.key(3)


def mlp(key=KEY, latent=3, event=(2, 2), **kwargs):
    return MLPDecoder(latent, event, hidden=(4,), key=key, **kwargs)


def flow(key=KEY, **kwargs):
    return SplineCouplingFlow(3, layers=2, knots=3, width=4, key=key, **kwargs)


def conv_vae(key):
    decoder = ConvDecoder(2, (4, 4), channels=(3,), key=key)
    encoder = ConvEncoder((4, 4), 2, channels=(3,), key=key)
    return VAEPrior(decoder, 2, scale=jnp.full((4, 4), 0.3), encoder=encoder)


def gan(key, latent=3, **kwargs):
    return GANPrior(mlp(key), latent, **kwargs)


# Priors on built-in parts: their files load with no skeleton.
ALONE = {
    "gan": gan,
    "gan bounded": lambda key: gan(key, support=constraints.unit_interval),
    "gan interval": lambda key: gan(key, support=constraints.interval(-0.5, 1.5)),
    "gan uniform": lambda key: gan(key, dist.Uniform(-jnp.ones(3), 2.0).to_event(1)),
    "gan student": lambda key: gan(key, dist.StudentT(5.0, 0.1, 1.0).expand([3]).to_event(1)),
    "gan correlated": lambda key: gan(
        key, dist.MultivariateNormal(jnp.ones(3), jnp.eye(3) + 0.5 * jnp.ones((3, 3)))
    ),
    "gan labels": lambda key: GANPrior(
        mlp(key, condition_size=1), 3, condition=jnp.array([[1], [4]]), condition_shape=(1,)
    ),
    "vae conv": conv_vae,
    "vae condition": lambda key: VAEPrior(
        mlp(key, condition_size=2),
        3,
        scale=0.1,
        encoder=MLPEncoder((2, 2), 3, hidden=(4,), key=key),
        condition=jnp.array([0.5, -1.0]),
    ),
    "vae on a flow": lambda key: VAEPrior(mlp(key), FlowPrior(flow(key)), scale=0.1),
    "flow": lambda key: FlowPrior(flow(key)),
    "flow condition": lambda key: FlowPrior(
        flow(key, cond_dim=2), condition=jax.random.normal(key, (4, 2))
    ),
    "gaussian": lambda key: GaussianPrior(
        jax.random.normal(key, (2, 2)), factor=jnp.ones((2, 2, 1)), diagonal=0.5
    ),
    "gaussian of rank 0": lambda key: GaussianPrior(
        jax.random.normal(key, (3,)), factor=jnp.ones((3, 0)), diagonal=0.5, validate_args=True
    ),
    "field": lambda key: GaussianFieldPrior(
        (4, 6), lambda k: 1 / (0.1 + k**2), loc=jax.random.normal(key)
    ),
}


class Shifted(Prior):
    """A user's own prior, with a number that is no array and a Haiku network."""

    density = "none"
    pytree_data_fields = ("_net", "_shift")
    pytree_aux_fields = ("_power",)

    def __init__(self, net, shift, power=2):
        self._net, self._shift, self._power = net, shift, power
        super().__init__(3)

    def _decode(self, z, condition):
        return self._net(z) ** self._power + self._shift


def haiku_net(key):
    f = hk.transform(lambda z: hk.nets.MLP([4, 5])(z))
    return from_haiku(f, f.init(key, jnp.zeros(3)))


def closure(key):
    weights = jax.random.normal(key, (4, 3))
    return lambda z: (weights @ z, jnp.exp(weights @ z))


def permuted(key):
    order = jnp.arange(3)[::-1]
    scale = jnp.exp(jax.random.normal(key, (3,)))
    return transforms.ComposeTransform(
        [transforms.PermuteTransform(order), transforms.AffineTransform(0.5, scale)]
    )


# Priors on parts that only their code can make again.
WITH_LIKE = {
    "equinox": lambda key: GANPrior(eqx.nn.MLP(3, 4, 5, 1, activation=jnp.tanh, key=key), 3),
    "haiku": lambda key: GANPrior(haiku_net(key), 3),
    "closure": lambda key: VAEPrior(closure(key), 3, scale=None),
    "distrax": lambda key: FlowPrior(
        distrax.ScalarAffine(jnp.zeros(3), jnp.exp(jax.random.normal(key, (3,)))),
        latent=3,
        support=constraints.real,
    ),
    "transform": lambda key: FlowPrior(permuted(key), latent=3, support=constraints.real),
    "own prior": lambda key: Shifted(haiku_net(key), jax.random.normal(key, (5,))),
    "own latent": lambda key: gan(
        key,
        dist.TransformedDistribution(
            dist.Normal(jnp.zeros(3), 1.0).to_event(1),
            transforms.AffineTransform(0.0, jnp.exp(jax.random.normal(key, (3,)))),
        ),
    ),
    "stacked": lambda key: jax.vmap(gan)(jax.random.split(key, 2)),
}
CASES = {**ALONE, **WITH_LIKE}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "prior.safetensors"


def assert_same(prior, other):
    assert type(prior) is type(other)
    assert (prior.batch_shape, prior.event_shape) == (other.batch_shape, other.event_shape)
    assert str(prior.support) == str(other.support)
    assert prior.__dict__.get("_validate_args") == other.__dict__.get("_validate_args")
    pairs = zip(jax.tree.leaves(prior), jax.tree.leaves(other), strict=True)
    for a, b in pairs:
        assert jnp.result_type(a) == jnp.result_type(b)
        np.testing.assert_array_equal(jnp.asarray(a), jnp.asarray(b))


@pytest.mark.parametrize("case", ALONE)
def test_loads_by_itself(path, case):
    prior = ALONE[case](KEY)
    save(path, prior)
    loaded = load(str(path))
    assert_same(prior, loaded)
    assert read_header(path)["loads"] == "by itself"
    z = jax.random.normal(jax.random.key(1), prior.latent.event_shape)
    np.testing.assert_array_equal(prior.decode(z), loaded.decode(z))


@pytest.mark.parametrize("case", CASES)
def test_fills_a_skeleton(path, case):
    prior, like = CASES[case](KEY), CASES[case](jax.random.key(4))
    untouched = copy.deepcopy(like)
    rescaled = jax.tree.map(lambda w: 0.5 * w, prior)
    save(path, prior)
    loaded = load(path, like)
    assert_same(prior, loaded)
    assert_same(untouched, like)
    if case in WITH_LIKE:
        assert read_header(path)["loads"] == "with like="
        with pytest.raises(ngp_io.SkeletonError, match="like="):
            load(path)
    # One skeleton, one program: the static parts are equal.
    loaded = load(path, rescaled)
    assert_same(prior, loaded)
    assert jax.tree.structure(loaded) == jax.tree.structure(rescaled)


def test_integer_arrays_are_kept(path):
    prior = FlowPrior(flow(KEY))
    save(path, prior)
    permutation = [n for n in read_header(path)["arrays"] if "permutation" in n]
    stored = safetensors.numpy.load_file(path)
    assert permutation
    assert all(stored[name].dtype.kind == "i" for name in permutation)
    x = jnp.array([0.5, -1.0, 2.0])
    other = load(path, FlowPrior(flow(jax.random.key(9))))  # other permutations
    np.testing.assert_array_equal(prior.log_prob(x), other.log_prob(x))


def test_two_files_of_an_architecture_share_a_program(path):
    prior = FlowPrior(flow(KEY))
    save(path, prior)
    first = load(path)
    save(path, jax.tree.map(lambda w: 0.5 * w, prior))
    assert jax.tree.structure(first) == jax.tree.structure(load(path))


def test_other_tools_read_the_file(path):
    prior = conv_vae(KEY)
    save(path, prior)
    with safetensors.safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["numpyro_genprior"])
        np.testing.assert_array_equal(file.get_tensor("scale"), prior.scale)
    assert header == read_header(path)
    assert header["format_version"] == 1
    assert header["prior"]["family"] == "VAEPrior"
    assert header["prior"]["event_shape"] == [4, 4]
    assert header["prior"]["latent"] == {"law": "StandardNormal", "shape": [2]}
    assert header["prior"]["networks"]["net"]["architecture"] == "ConvDecoder"
    assert header["prior"]["networks"]["encoder"]["config"]["channels"] == [3]
    assert header["arrays"]["scale"] == "float32[4, 4]"


def test_a_file_is_reproducible(path):
    save(path, conv_vae(KEY))
    first = path.read_bytes()
    save(path, conv_vae(KEY))
    assert path.read_bytes() == first


def test_half_precision_is_kept(path):
    prior = jax.tree.map(lambda w: w.astype(jnp.bfloat16), gan(KEY))
    save(path, prior)
    assert_same(prior, load(path))


@contextlib.contextmanager
def in_32_bits():
    jax.config.update("jax_enable_x64", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", True)


@pytest.mark.float64
@pytest.mark.parametrize("case", ["vae conv", "flow", "gaussian", "gan student"])
def test_float64_is_kept(path, case):
    prior = ALONE[case](KEY)
    assert all(jnp.result_type(leaf) == jnp.float64 for leaf in jax.tree.leaves(prior))
    save(path, prior)
    assert_same(prior, load(path))
    with in_32_bits(), pytest.raises(ngp_io.PrecisionError, match="jax_enable_x64"):
        load(path)


@pytest.mark.float64
def test_float32_is_kept_in_64_bit_mode(path):
    with in_32_bits():
        prior = conv_vae(KEY)
        save(path, prior)
    loaded = load(path)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(loaded))
    for a, b in zip(jax.tree.leaves(prior), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- damage -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("io") / "prior.safetensors"
    save(path, GaussianPrior(jnp.arange(3.0), factor=jnp.ones((3, 1)), diagonal=0.5))
    return path.read_bytes()


def refuses(data):
    with pytest.raises(ngp_io.PriorFileError):
        codec.decode(bytes(data))


def test_every_truncation_is_refused(whole, path):
    for length in range(len(whole)):
        refuses(whole[:length])
    path.write_bytes(whole[:-1])
    with pytest.raises(ngp_io.CorruptFileError, match=r"truncated.*source again"):
        load(path)
    path.write_bytes(whole[:100])
    with pytest.raises(ngp_io.CorruptFileError, match="truncated"):
        load(path)


def test_every_bit_flip_is_refused(whole, path):
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            refuses(damaged)
    damaged = bytearray(whole)
    damaged[-3] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(ngp_io.CorruptFileError, match="checksum differs"):
        load(path)
    with pytest.raises(ngp_io.CorruptFileError):
        load(path, like=load_bytes(path, whole))


def load_bytes(path, data):
    other = path.with_name("whole.safetensors")
    other.write_bytes(data)
    return load(other)


def test_random_damage_is_refused(whole, rng):
    for _ in range(300):
        damaged = bytearray(whole)
        start, length = rng.integers(len(whole)), rng.integers(1, 64)
        damaged[start : start + length] = rng.bytes(rng.integers(0, 64))
        if bytes(damaged) != whole:
            refuses(damaged)
        refuses(rng.bytes(rng.integers(0, 400)))


def edited(whole, edit_arrays=None, edit_header=None):
    """The file as safetensors itself would write it after a change."""
    arrays = safetensors.numpy.load(whole)
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(json.loads(whole[8 : 8 + size])["__metadata__"]["numpyro_genprior"])
    (edit_arrays or (lambda a: None))(arrays)
    (edit_header or (lambda h: None))(header)
    return safetensors.numpy.save(arrays, metadata={"numpyro_genprior": json.dumps(header)})


def _newer(header):
    header.update(format_version=2, package_version="9.0")


DAMAGE = {
    "value": ({"edit_arrays": lambda a: a.update(loc=a["loc"] + 1)}, "CorruptFileError"),
    "shape": ({"edit_arrays": lambda a: a.update(loc=a["loc"][None])}, "CorruptFileError"),
    "array left out": ({"edit_arrays": lambda a: a.pop("loc")}, "CorruptFileError"),
    "family": ({"edit_header": lambda h: h["prior"].update(family="X")}, "CorruptFileError"),
    "no checksum": ({"edit_header": lambda h: h.pop("checksum")}, "CorruptFileError"),
    "newer": ({"edit_header": _newer}, "VersionError"),
    "no version": ({"edit_header": lambda h: h.pop("format_version")}, "CorruptFileError"),
    "version 0": ({"edit_header": lambda h: h.update(format_version=0)}, "CorruptFileError"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_edits_are_refused(whole, path, case):
    edits, error = DAMAGE[case]
    path.write_bytes(edited(whole, **edits))
    with pytest.raises(getattr(ngp_io, error)):
        load(path)


def test_a_newer_file_says_update(whole, path):
    path.write_bytes(edited(whole, edit_header=_newer))
    with pytest.raises(ngp_io.VersionError, match=r"newer numpyro_genprior \(9.0\).*pip install"):
        load(path)


FOREIGN = {
    "empty": (b"", "empty"),
    "text": (b"weights, of course\n" * 9, "not a safetensors file"),
    "pickle": (b"\x80\x05\x95\x0b\x00\x00\x00\x00\x00\x00\x00", "not a safetensors file"),
    "safetensors": (safetensors.numpy.save({"w": np.ones(2)}), "not written by ngp.save"),
    "other metadata": (
        safetensors.numpy.save({"w": np.ones(2)}, metadata={"format": "pt"}),
        "build the prior from that",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_files_are_refused(path, case):
    data, match = FOREIGN[case]
    path.write_bytes(data)
    with pytest.raises(ngp_io.NotAPriorFileError, match=match):
        load(path)


def test_a_valid_file_with_a_wrong_description_is_refused(path):
    """Even with a right checksum: whoever writes files by hand gets an error of ours."""
    save(path, conv_vae(KEY))
    header, arrays = codec.decode(path.read_bytes())
    base = {k: v for k, v in header.items() if k not in ("checksum", "format_version")}

    def refuse(prior, error, **more):
        path.write_bytes(codec.encode({**base, **more, "prior": prior}, arrays))
        with pytest.raises(error):
            load(path)

    prior = base["prior"]
    net = prior["networks"]["net"]
    refuse(None, ngp_io.StructureError)
    refuse({**prior, "family": "subprocess.Popen"}, ngp_io.SkeletonError)
    refuse({**prior, "family": "GANPrior"}, ngp_io.StructureError)
    refuse({**prior, "latent": {"law": "StandardNormal", "shape": [5]}}, ngp_io.StructureError)
    refuse({**prior, "latent": {"law": "os.system", "type": "x"}}, ngp_io.SkeletonError)
    refuse({"family": "VAEPrior"}, ngp_io.StructureError)
    for change in ({"channels": [5]}, {"channels": "many"}, {"latent_size": 3}, {"key": 3}):
        config = {**net["config"], **change}
        networks = {**prior["networks"], "net": {**net, "config": config}}
        refuse({**prior, "networks": networks}, ngp_io.StructureError)
    networks = {**prior["networks"], "net": {**net, "architecture": "Evil"}}
    refuse({**prior, "networks": networks}, ngp_io.SkeletonError)


# ---- misfits with like= -------------------------------------------------------------------------

MISFITS = {
    "family": (gan(KEY), VAEPrior(mlp(), 3, scale=0.1), "FamilyError", "Pass like= a GANPrior"),
    "family of the latent": (
        VAEPrior(mlp(), GaussianPrior(jnp.zeros(3), factor=jnp.ones((3, 1)), diagonal=1), scale=1),
        VAEPrior(mlp(), 3, scale=1),
        "StructureError",
        "latent.diagonal",
    ),
    "width": (
        GANPrior(eqx.nn.MLP(3, 4, 5, 1, key=KEY), 3),
        GANPrior(eqx.nn.MLP(3, 4, 6, 1, key=KEY), 3),
        "ShapeError",
        r"net.layers.0.weight.*\(6, 3\).*\(5, 3\)",
    ),
    "depth": (
        GANPrior(eqx.nn.MLP(3, 4, 5, 1, key=KEY), 3),
        GANPrior(eqx.nn.MLP(3, 4, 5, 2, key=KEY), 3),
        "ShapeError|StructureError",
        "net.layers",
    ),
    "dtype": (
        gan(KEY),
        jax.tree.map(lambda w: w.astype(jnp.float16), gan(KEY)),
        "ShapeError",
        "float16.*float32",
    ),
    "activation": (
        gan(KEY),
        GANPrior(mlp(activation="tanh"), 3),
        "StructureError",
        r"prior.networks.net.config.activation.*tanh.*relu",
    ),
    "constant": (
        GANPrior(eqx.nn.Sequential([eqx.nn.Linear(3, 4, key=KEY), eqx.nn.Lambda(jnp.tanh)]), 3),
        GANPrior(eqx.nn.Linear(3, 4, key=KEY), 3),
        "StructureError",
        "net.layers.0",
    ),
    "support": (
        gan(KEY),
        gan(KEY, support=constraints.unit_interval),
        "StructureError",
        "prior.support.name",
    ),
    "latent law": (
        gan(KEY, dist.Normal(jnp.zeros(3), 1.0).to_event(1)),
        gan(KEY, dist.Laplace(jnp.zeros(3), 1.0).to_event(1)),
        "StructureError",
        "prior.latent.base.law",
    ),
    "encoder": (
        VAEPrior(mlp(), 3, scale=0.1, encoder=MLPEncoder((2, 2), 3, hidden=(4,), key=KEY)),
        VAEPrior(mlp(), 3, scale=0.1),
        "StructureError",
        "encoder",
    ),
    "no condition": (
        GANPrior(mlp(condition_size=2), 3, condition=jnp.ones(2)),
        GANPrior(mlp(latent=5), 5),
        "StructureError",
        "condition",
    ),
    "condition batch": (
        GANPrior(mlp(condition_size=2), 3, condition=jnp.ones(2)),
        GANPrior(mlp(condition_size=2), 3, condition=jnp.ones((4, 2))),
        "ShapeError",
        "condition",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_like_must_fit(path, case):
    prior, like, error, match = MISFITS[case]
    save(path, prior)
    with pytest.raises(ngp_io.PriorFileError, match=match) as caught:
        load(path, like=like)
    assert type(caught.value).__name__ in error.split("|")
    assert str(path) in str(caught.value)


# ---- saving -------------------------------------------------------------------------------------


def test_what_cannot_be_saved(path):
    prior = gan(KEY)
    with pytest.raises(TypeError, match="Save the prior inside"):
        save(path, prior.expand([3]))
    with pytest.raises(TypeError, match=r"an ngp\.Prior"):
        save(path, mlp())
    with pytest.raises(ngp_io.PriorFileError, match="outside jit"):
        jax.jit(lambda p: save(path, p))(prior)
    with pytest.raises(ValueError, match="not finite"):
        save(path, jax.tree.map(lambda w: w * jnp.nan, prior))
    weights = jnp.ones(2) + 1j
    with pytest.raises(ngp_io.PriorFileError, match="complex64"):
        save(path, GANPrior(lambda z: jnp.real(weights * z), 2))
    assert not path.exists()
    save(path, prior)
    with pytest.raises(TypeError, match="not its network"):
        load(path, like=mlp())


def test_paths(tmp_path):
    prior = GaussianPrior(jnp.zeros(2), factor=jnp.ones((2, 1)), diagonal=0.5)
    with pytest.raises(IsADirectoryError, match="Pass the name of a file"):
        save(tmp_path, prior)
    with pytest.raises(IsADirectoryError, match="Pass a file in it"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="Create it first"):
        save(tmp_path / "no" / "prior", prior)
    with pytest.raises(FileNotFoundError, match=r"or ngp\.save first"):
        load(tmp_path / "no")
    assert os.listdir(tmp_path) == []
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="pipe or a device"):
            load(tmp_path / "pipe")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_save_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "prior"
    save(path, gan(KEY))
    old = path.read_bytes()

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        save(path, gan(jax.random.key(4)))
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["prior"]


def test_a_killed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "prior"
    prior = GaussianPrior(jnp.arange(2.0), factor=jnp.ones((2, 1)), diagonal=0.5)
    save(path, prior)
    program = f"""
        import os, signal
        from numpyro_genprior.io import atomic
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        atomic.write({str(path)!r}, b"x" * 100_000)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert_same(prior, load(path))


def test_permissions_and_links_are_kept(tmp_path):
    prior = GaussianPrior(jnp.zeros(2), factor=jnp.ones((2, 1)), diagonal=0.5)
    path, link = tmp_path / "prior", tmp_path / "link"
    save(path, prior)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o640)
    link.symlink_to(path)
    save(link, prior)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(Path(p).name for p in os.listdir(tmp_path)) == ["link", "prior"]


def test_the_header_is_small(path):
    save(path, conv_vae(KEY))
    size = int.from_bytes(path.read_bytes()[:8], "little")
    assert size < 10_000
    assert math.isclose(path.stat().st_size, size, abs_tol=3000)
