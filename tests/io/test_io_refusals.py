"""Damaged or unsuitable files are refused, and files are written atomically."""

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import safetensors.numpy
from numpyro.distributions import constraints

from numpyro_genprior import GANPrior, GaussianPrior, VAEPrior
from numpyro_genprior import io as ngp_io
from numpyro_genprior.io import file_format, load, save
from numpyro_genprior.networks.architectures import MLPDecoder, MLPEncoder

KEY = jax.random.key(3)


def mlp(key=KEY, latent=3, **kwargs):
    return MLPDecoder(latent, (2, 2), hidden=(4,), key=key, **kwargs)


def mlp_encoder():
    return MLPEncoder((2, 2), 3, hidden=(4,), key=KEY)


def gan(key=KEY, latent=3, **kwargs):
    return GANPrior(mlp(key), latent, **kwargs)


def vae():
    return VAEPrior(mlp(), 3, scale=0.1, encoder=mlp_encoder())


def foreign_gan(width, depth=1):
    return GANPrior(eqx.nn.MLP(3, 4, width, depth, key=KEY), 3)


def conditional_gan(*batch):
    return GANPrior(mlp(condition_size=2), 3, condition=jnp.ones((*batch, 2)))


def gaussian(size=2):
    return GaussianPrior(jnp.arange(1.0 * size), factor=jnp.ones((size, 1)), diagonal=0.5)


def assert_same(prior, other):
    assert jax.tree.structure(prior) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, prior, other)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "prior.safetensors"


# ---- damage -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("io") / "prior.safetensors"
    save(path, gaussian())
    return path.read_bytes()


def refuses(data):
    with pytest.raises(ngp_io.PriorFileError):
        file_format.decode(bytes(data))


def test_every_truncation_is_refused(whole, path):
    for length in range(len(whole)):
        refuses(whole[:length])
    header = int.from_bytes(whole[:8], "little")
    for length in (100, 8 + header, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ngp_io.TruncatedFileError, match=r"truncated.*source again"):
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
    with pytest.raises(ngp_io.CorruptFileError, match=r"altered.*checksum differs"):
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
    header.update(format_version=3, package_version="9.0")


DAMAGE = {
    "value": ({"edit_arrays": lambda a: a.update(loc=a["loc"] + 1)}, "CorruptFileError"),
    "shape": ({"edit_arrays": lambda a: a.update(loc=a["loc"][None])}, "CorruptFileError"),
    "dtype": ({"edit_arrays": lambda a: a.update(loc=a["loc"].view("i4"))}, "CorruptFileError"),
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
    """With a right checksum too, a file written by hand gets one of our errors."""
    save(path, vae())
    header, arrays = file_format.decode(path.read_bytes())
    base = {k: v for k, v in header.items() if k not in ("checksum", "format_version")}

    def refuse(prior, error, like=None, values=arrays, **more):
        path.write_bytes(file_format.encode({**base, **more, "prior": prior}, values))
        with pytest.raises(error):
            load(path, like)

    prior = base["prior"]
    net = prior["networks"]["net"]
    refuse(None, ngp_io.StructureError)
    refuse({**prior, "family": "subprocess.Popen"}, ngp_io.TemplateRequiredError)
    refuse({**prior, "family": "GANPrior"}, ngp_io.StructureError)
    refuse(
        {**prior, "latent": {"distribution": "StandardNormal", "shape": [5]}}, ngp_io.StructureError
    )
    refuse(
        {**prior, "latent": {"distribution": "os.system", "type": "x"}},
        ngp_io.TemplateRequiredError,
    )
    refuse({"family": "VAEPrior"}, ngp_io.StructureError)
    refuse({}, ngp_io.StructureError, like=vae())
    refuse({**prior, "event_shape": [9]}, ngp_io.StructureError)
    refuse({**prior, "support": {"name": "positive"}}, ngp_io.StructureError)
    refuse(prior, ngp_io.ShapeError, arrays={**base["arrays"], "scale": "float32[2]"})
    not_finite = {**arrays, "scale": np.full_like(arrays["scale"], np.nan)}
    refuse(prior, ngp_io.CorruptFileError, like=vae(), values=not_finite)
    for change in ({"hidden": [5]}, {"hidden": "many"}, {"latent_size": 2}, {"key": 3}):
        config = {**net["config"], **change}
        networks = {**prior["networks"], "net": {**net, "config": config}}
        refuse({**prior, "networks": networks}, ngp_io.StructureError)
    networks = {**prior["networks"], "net": {**net, "architecture": "Evil"}}
    refuse({**prior, "networks": networks}, ngp_io.TemplateRequiredError)


# ---- templates that do not fit -------------------------------------------------------------------

# Saved, like=, error and its message.
MISFITS = {
    "family": lambda: (gan(), vae(), "FamilyError", "Pass like= a GANPrior"),
    "latent of another class": lambda: (
        VAEPrior(mlp(), gaussian(3), scale=1.0),
        VAEPrior(mlp(), 3, scale=1.0),
        "StructureError",
        "latent.diagonal",
    ),
    "width": lambda: (
        foreign_gan(5),
        foreign_gan(6),
        "ShapeError",
        r"net.layers.0.weight.*\(6, 3\).*\(5, 3\)",
    ),
    "depth": lambda: (foreign_gan(5), foreign_gan(5, 2), "ShapeError", "net.layers"),
    "other layers": lambda: (
        GANPrior(eqx.nn.Sequential([eqx.nn.Linear(3, 4, key=KEY), eqx.nn.Lambda(jnp.tanh)]), 3),
        GANPrior(eqx.nn.Linear(3, 4, key=KEY), 3),
        "StructureError",
        "net.layers.0",
    ),
    "slope": lambda: (
        GANPrior(eqx.nn.Sequential([eqx.nn.Linear(3, 4, key=KEY), Leaky(0.1)]), 3),
        GANPrior(eqx.nn.Sequential([eqx.nn.Linear(3, 4, key=KEY), Leaky(0.2)]), 3),
        "StructureError",
        "net.layers.1.slope.*expected 0.2; got 0.1",
    ),
    "dtype": lambda: (
        gan(),
        jax.tree.map(lambda w: w.astype(jnp.float16), gan()),
        "ShapeError",
        "float16.*float32",
    ),
    "activation": lambda: (
        gan(),
        GANPrior(mlp(activation="tanh"), 3),
        "StructureError",
        r"prior.networks.net.config.activation.*tanh.*relu",
    ),
    "support": lambda: (
        gan(),
        gan(support=constraints.unit_interval),
        "StructureError",
        r"prior\.support\.name",
    ),
    "latent distribution": lambda: (
        gan(latent=dist.Normal(jnp.zeros(3), 1.0).to_event(1)),
        gan(latent=dist.Laplace(jnp.zeros(3), 1.0).to_event(1)),
        "StructureError",
        r"prior\.latent\.base\.distribution",
    ),
    "encoder": lambda: (vae(), VAEPrior(mlp(), 3, scale=0.1), "StructureError", "encoder"),
    "no condition": lambda: (
        conditional_gan(),
        GANPrior(mlp(latent=5), 5),
        "StructureError",
        "condition",
    ),
    "condition batch": lambda: (
        conditional_gan(),
        conditional_gan(4),
        "ShapeError",
        "condition",
    ),
}


class Leaky(eqx.Module):
    slope: float

    def __call__(self, x, key=None):
        return jnp.where(x > 0, x, self.slope * x)


@pytest.mark.parametrize("case", MISFITS)
def test_like_must_fit(path, case):
    prior, like, error, match = MISFITS[case]()
    save(path, prior)
    with pytest.raises(ngp_io.PriorFileError, match=match) as caught:
        load(path, like=like)
    assert type(caught.value).__name__ == error
    assert str(path) in str(caught.value)


# ---- saving -------------------------------------------------------------------------------------


def test_what_cannot_be_saved(path):
    prior = gan()
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
    prior = gaussian()
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
    save(path, gan())
    old = path.read_bytes()

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        save(path, gan(jax.random.key(4)))
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["prior"]


@pytest.mark.slow
def test_a_killed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "prior"
    prior = gaussian()
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
    prior = gaussian()
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
