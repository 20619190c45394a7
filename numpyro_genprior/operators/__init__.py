"""Linear forward operators, and the likelihood that allows for the generator's error."""

from numpyro_genprior.operators.convolution import Blur, Convolution
from numpyro_genprior.operators.dense import Dense
from numpyro_genprior.operators.entries import Diagonal, Identity, Mask
from numpyro_genprior.operators.fourier import Fourier
from numpyro_genprior.operators.marginal_normal import MarginalNormal
from numpyro_genprior.operators.operator import Composition, Operator
from numpyro_genprior.operators.radon import Radon

__all__ = [
    "Blur",
    "Composition",
    "Convolution",
    "Dense",
    "Diagonal",
    "Fourier",
    "Identity",
    "MarginalNormal",
    "Mask",
    "Operator",
    "Radon",
]
