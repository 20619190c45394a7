"""Fisher information of observed distributions, matrix-free, as a whitening of their parameters.

For a distribution ``p(y | θ)`` the information of one observation is ``F(θ) = E[∇log p ∇log pᵀ]``,
the Hessian of ``KL(p_θ₀ ‖ p_θ)`` at θ = θ₀. A rule gives the parameters θ of a distribution and a
linear map w of their tangents with ``|w(dθ)|² = dθᵀ F dθ``; `whitened_parameters` applies it, so
that ``JᵀFJ v`` for ``θ = θ(x)`` costs one `jax.jvp` and one `jax.vjp` of one function.

=================================  =================================================================
distribution                       information
=================================  =================================================================
``Normal``                         ``dm/s``, ``√2 ds/s``
``Laplace``                        ``dm/b``, ``db/b``: the expected square of the score. Minus the
                                   mean second derivative would be 0, because the density has a kink
                                   at m; the KL divergence is smooth and has this Hessian.
``Cauchy``, ``HalfCauchy``         ``dm/(√2 s)``, ``ds/(√2 s)``
``Logistic``                       ``dm/(√3 s)``, ``√((3+π²)/9) ds/s``
``StudentT``                       the full 3 × 3 matrix in df, location and scale [1]_
``Gumbel``, ``Weibull``            full 2 × 2; ``-log`` of a Weibull variable is Gumbel
``HalfNormal``, ``Exponential``    ``√2 ds/s``; ``dr/r``
``Gamma`` (``Chi2``)               full 2 × 2 with trigamma
``Beta``, ``Dirichlet``            ``diag(ψ₁(aᵢ)) - ψ₁(Σa) 11ᵀ`` (``BetaProportion`` by chain rule)
``Uniform``                        none; bounds that depend on latent variables are refused
``Poisson``                        ``dr/√r``
``Bernoulli``, ``Binomial``        ``√n dp/√(p(1-p))``; by logits ``√(n p(1-p)) dl``
``Geometric``                      ``dp/(p√(1-p))``; by logits ``√(1-p) dl``
``Categorical``, ``Multinomial``   ``√n dpᵢ/√pᵢ``; by logits ``√(n pᵢ) (dlᵢ - p·dl)``; also
                                   ``OrderedLogistic``
``NegativeBinomial``,              mean μ and concentration r are orthogonal: ``dμ √(r/(μ(r+μ)))``,
``NegativeBinomial2``,             exact, and for r a one-dimensional integral by quadrature with
``GammaPoisson``                   relative error below 1e-4 [2]_
``MultivariateNormal``             mean ``L⁻¹dm``; covariance ``½ tr(Σ⁻¹dΣ Σ⁻¹dΣ)``, by ``L⁻¹dL``
``LowRankMultivariateNormal``      mean, without the n × n matrix; a covariance that depends on
                                   latent variables is refused, during differentiation
``MultivariateStudentT``           full matrix in df, location and scatter [1]_
``MatrixNormal``                   mean ``L⁻¹dM K⁻ᵀ``; the shapes of both factors, and their common
                                   size, which the data cannot attribute to either
``VonMises``                       ``√(κA) dm``, ``√A' dκ``, A = I₁(κ)/I₀(κ)
`MarginalNormal`                   mean ``K^(-1/2) A dm``; the two scales ``½ tr(K⁻¹dK K⁻¹dK)``, by
                                   the spectrum of its operator
priors                             their own, if they have one: see the hooks of `Prior`
``TransformedDistribution``        that of the base distribution (``LogNormal``, ``InverseGamma``,
                                   ...); transforms that depend on latent variables are refused
``expand``, ``to_event``           each batch element is an observation
``mask``, plates, ``scale``        rows are multiplied by the root of the mask and of the scale
=================================  =================================================================

Parameters that a model leaves constant cost nothing under `jax.jit`, but their rows, which are 0,
remain in the result. Truncated, censored, zero-inflated and mixture distributions, ``Delta`` and
`numpyro.factor` are refused by name; `register_fisher` adds a distribution. ``NegativeBinomial2``
with a mean of exactly 0 (an ``exp`` that underflows) has NaN gradients in NumPyro itself; use
``NegativeBinomialLogits`` instead.

References
----------
.. [1] Lange, Little, Taylor, Robust statistical modeling using the t distribution, JASA 1989.
.. [2] Lawless, Negative binomial and mixed Poisson regression, Canadian J. of Statistics 1987.

Johnson, Kotz, Balakrishnan, Continuous univariate distributions, 1994-95. Magnus, Neudecker,
Matrix differential calculus, 1999 (the multivariate normal).
"""

from numpyro_genprior.infer.fisher import (  # noqa: F401 - the rules register themselves
    directional,
    discrete,
    marginal,
    matrix_variate,
    multivariate,
    univariate,
    unsupported,
)
from numpyro_genprior.infer.fisher.registry import register_fisher
from numpyro_genprior.infer.fisher.whitening import fisher_information, whitened_parameters

__all__ = ["fisher_information", "register_fisher", "whitened_parameters"]
