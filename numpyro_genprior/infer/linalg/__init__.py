"""Matrix-free linear algebra: conjugate gradients, subspace iteration, limits of matrix sizes."""
