"""Sizes up to which matrices are formed. Beyond them, products with vectors do the same work.

All are compromises between the memory of a laptop in single precision and the time that products
take. Matrices that fit are formed, because a factorisation is exact and an iteration is not.
"""

MAX_DENSE_METRIC = 256
"""Coordinates up to which a step of Levenberg-Marquardt factors the metric, and the Hessian of a
log prior is formed: a factorisation each step, once for each of many starts."""

MAX_METRIC_JACOBIAN = 2**22
"""Entries of the Jacobian behind that metric: 16 MB, once for each of many starts."""

MAX_DENSE_COVARIANCE = 1024
"""Coordinates up to which a whitening is a dense triangular matrix, which every step of a sampler
multiplies with."""

MAX_DENSE_PARTICLE_COVARIANCE = 512
"""Coordinates up to which sequential Monte Carlo estimates a dense covariance from its particles,
of which there have to be many more."""

MAX_DENSE_SPECTRUM = 2048
"""Coordinates up to which one singular value decomposition finds all directions."""

MAX_JACOBIAN = 20_000_000
"""Entries of a Jacobian that is formed once: 80 MB."""

DEFAULT_RANK = 128
"""Directions that are kept beyond these sizes by default."""
