"""Operators against their matrices, NumPy's FFT, scikit-image and analytic projections."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.transform import radon

import numpyro_genprior as ngp
from numpyro_genprior import operators as ops

SHAPE = (5, 4)
RNG = np.random.default_rng(7)
SEEN = RNG.random(SHAPE) < 0.6
HALF = RNG.random((5, 3)) < 0.5
MATRIX = RNG.normal(size=(6, 20))
KERNEL = RNG.normal(size=(3, 2))
WEIGHTS = RNG.normal(size=SHAPE)

CASES = {
    "identity": lambda: ops.Identity(SHAPE),
    "mask": lambda: ops.Mask(SEEN),
    "diagonal": lambda: ops.Diagonal(WEIGHTS),
    "wide": lambda: ops.Dense(MATRIX, SHAPE),
    "tall": lambda: ops.Dense(MATRIX.T),
    "fourier": lambda: ops.Fourier(SHAPE),
    "fourier_odd": lambda: ops.Fourier((4, 5)),
    "fourier_line": lambda: ops.Fourier(6),
    "fourier_mask": lambda: ops.Fourier(SHAPE, mask=HALF),
    "convolution": lambda: ops.Convolution(KERNEL, SHAPE),
    "blur": lambda: ops.Blur(SHAPE, (1.0, 0.5)),
    "radon": lambda: ops.Radon(SHAPE, [0.0, 30.0, 90.0]),
    "mask_of_blur": lambda: ops.Mask(SEEN) @ ops.Blur(SHAPE, 1.0),
    "blur_of_blur": lambda: ops.Convolution(KERNEL, SHAPE) @ ops.Blur(SHAPE, 1.0),
    "mask_of_diagonal": lambda: ops.Mask(SEEN) @ ops.Diagonal(WEIGHTS),
    "diagonal_of_diagonal": lambda: ops.Diagonal(WEIGHTS) @ ops.Diagonal(1 + WEIGHTS),
    "dense_of_mask": lambda: ops.Dense(MATRIX[:, : SEEN.sum()]) @ ops.Mask(SEEN),
    "identity_of_blur": lambda: ops.Identity(SHAPE) @ ops.Blur(SHAPE, 1.0),
    "mask_of_fourier": lambda: ops.Mask(np.arange(20) < 9) @ ops.Fourier(SHAPE),
}


def case(name):
    return CASES[name]()


@pytest.mark.float64
@pytest.mark.parametrize("name", CASES)
def test_adjoint_and_spectrum(name, rng):
    a = case(name)
    x, y = rng.normal(size=(2, *a.event_shape)), rng.normal(size=(2, *a.data_shape))
    matrix = a.matrix()
    forward, backward = a(x), a.adjoint(y)
    np.testing.assert_allclose(forward.reshape(2, -1), x.reshape(2, -1) @ matrix.T, atol=1e-13)
    np.testing.assert_allclose(
        np.sum(np.asarray(forward) * y), np.sum(x * np.asarray(backward)), rtol=1e-12
    )
    gram = a.gram
    u = np.stack([np.ravel(gram.synthesise(row)) for row in np.eye(y[0].size).reshape(
        -1, *gram.eigenvalues.shape)], axis=1)  # fmt: skip
    np.testing.assert_allclose(u.T @ u, np.eye(len(u)), atol=1e-13)
    product = (u * np.ravel(gram.eigenvalues)) @ u.T
    np.testing.assert_allclose(product, matrix @ matrix.T, atol=1e-12)
    np.testing.assert_allclose(gram.analyse(y[0]).ravel(), u.T @ y[0].ravel(), atol=1e-13)
    np.testing.assert_allclose(np.ravel(gram.diagonal()), np.diag(product), atol=1e-12)
    assert a.orthonormal == bool(np.allclose(product, np.eye(len(u))))


@pytest.mark.parametrize("name", ["wide", "fourier_mask", "convolution", "mask_of_blur"])
def test_pytree(name):
    a = case(name)
    x = jnp.arange(40.0).reshape(2, *SHAPE)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(a))
    traces = []

    @jax.jit
    def run(a, x):
        traces.append(1)
        return a(x), a

    first, same = run(a, x)
    np.testing.assert_allclose(first, a(x), rtol=1e-5, atol=1e-5)
    run(same, x)
    run(case(name), x)  # another of the same skeleton
    assert len(traces) == 1
    np.testing.assert_allclose(jax.vmap(a)(x), a(x), rtol=1e-5, atol=1e-5)
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), a)
    np.testing.assert_allclose(eqx.filter_vmap(lambda a, x: a(x))(both, x), a(x), atol=1e-4)


def test_gradients():
    a, x = case("mask_of_blur"), jnp.arange(20.0).reshape(SHAPE)
    pulled = jax.grad(lambda x: 0.5 * jnp.sum(a(x) ** 2))(x)
    np.testing.assert_allclose(pulled, a.adjoint(a(x)), rtol=1e-5, atol=1e-5)


def test_fourier_is_that_of_numpy(rng):
    x = rng.normal(size=(3, *SHAPE)).astype(np.float32)
    full = ops.Fourier(SHAPE)
    spectrum = np.fft.rfftn(x, axes=(1, 2), norm="ortho")
    np.testing.assert_allclose(full(x), full.pack(spectrum), atol=1e-5)
    np.testing.assert_allclose(full.unpack(full(x)), spectrum, atol=1e-5)
    part = ops.Fourier(SHAPE, mask=HALF)
    symmetric = HALF.copy()
    symmetric[:, 0] |= np.roll(HALF[::-1, 0], 1)
    symmetric[:, 2] |= np.roll(HALF[::-1, 2], 1)
    np.testing.assert_allclose(part.unpack(part(x)), spectrum * symmetric, atol=1e-5)


def test_convolution_is_a_sum_over_neighbours(rng):
    x = rng.normal(size=SHAPE)
    expected = np.zeros(SHAPE)
    for i in range(3):
        for j in range(2):
            expected += KERNEL[i, j] * np.roll(x, (i - 1, j - 1), (0, 1))
    np.testing.assert_allclose(case("convolution")(x), expected, atol=1e-5)
    assert ops.Blur(SHAPE, 3.0)(jnp.ones(SHAPE)).round(5).min() == 1


def test_radon_of_a_disc():
    size, radius, centre = 41, 9.0, np.array([22.0, 17.0])
    row, column = np.indices((size, size))
    fine = (np.arange(10) - 4.5) / 10  # each pixel holds the area that the disc covers
    image = np.mean([
        (row + a - centre[0]) ** 2 + (column + b - centre[1]) ** 2 <= radius**2
        for a in fine for b in fine
    ], axis=0)  # fmt: skip
    angles = np.array([0.0, 25.0, 90.0, 140.0])
    sinogram = ops.Radon((size, size), angles)(image)
    assert sinogram.shape == (size, 4)
    s = (np.arange(size) - size // 2)[:, None]
    theta = np.deg2rad(angles)[None]
    x, y = centre[1] - size // 2, centre[0] - size // 2
    offset = s - (x * np.cos(theta) - y * np.sin(theta))
    chord = 2 * np.sqrt(np.maximum(radius**2 - offset**2, 0))
    away = np.abs(np.abs(offset) - radius) > 1.5  # a pixel blurs the edge of the disc
    np.testing.assert_allclose(np.asarray(sinogram)[away], chord[away], atol=0.35)


def test_radon_is_that_of_scikit_image(rng):
    for size in (16, 17):
        row, column = np.indices((size, size)) - size // 2
        image = rng.random((size, size)) * (np.hypot(row, column) < size // 2 - 1)
        angles = [0.0, 10.0, 45.0, 90.0, 123.0]
        ours = ops.Radon((size, size), angles)(image)
        np.testing.assert_allclose(ours, radon(image, angles, circle=True), atol=1e-4)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: ops.Dense(MATRIX.T, SHAPE), ValueError, "Transpose it"),
        (lambda: ops.Dense(np.ones(3)), ValueError, "shape .data size, event size."),
        (lambda: ops.Dense(np.full((2, 2), np.nan)), ValueError, "Leave out the data"),
        (lambda: ops.Mask(np.ones(3)), TypeError, "astype.bool."),
        (lambda: ops.Mask(np.zeros(3, bool)), ValueError, "pass ~mask"),
        (lambda: jax.jit(lambda m: ops.Mask(m)(jnp.ones(3)))(np.ones(3, bool)), TypeError,
         "Build the operator outside"),
        (lambda: ops.Fourier(SHAPE, mask=SEEN), ValueError, "half grid of numpy.fft.rfftn"),
        (lambda: ops.Fourier(SHAPE).pack(np.ones(SHAPE)), ValueError, "Give the half grid"),
        (lambda: ops.Convolution(KERNEL, (2, 2)), ValueError, "Cut the kernel"),
        (lambda: ops.Blur(SHAPE, -1.0), ValueError, "Pass e.g. width=1.5"),
        (lambda: ops.Identity(()), ValueError, "prior.event_shape"),
        (lambda: ops.Radon((3, 3, 3), [0]), ValueError, "Radon..28, 28."),
        (lambda: ops.Radon((3, 3), [0], num_detectors=0), ValueError, "num_detectors=None"),
        (lambda: ops.Identity((2, 2)) @ ops.Identity((3, 3)), ValueError, "applies B first"),
        (lambda: ops.Identity(SHAPE)(np.ones((4, 5))), ValueError, "batch dimensions first"),
        (lambda: ops.Mask(np.ones(5000, bool)) @ ops.Convolution(np.ones(1), 5000), ValueError,
         "Use fewer data"),
        (lambda: ops.Identity(3) @ 3.0, TypeError, "unsupported operand"),
    ],
)  # fmt: skip
def test_errors(build, error, words):
    with pytest.raises(error, match=words):
        build()


def test_lazy():
    assert "operators" in dir(ngp)
    assert repr(ops.Mask(SEEN)) == f"Mask(event_shape=(5, 4), data_shape=({SEEN.sum()},))"
