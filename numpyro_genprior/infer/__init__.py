"""Inference in coordinates that are standard normal under the prior."""

from numpyro_genprior.infer.elliptical_slice import EllipticalSlice
from numpyro_genprior.infer.fisher import register_fisher
from numpyro_genprior.infer.fisher_nuts import FisherHMC, FisherNUTS
from numpyro_genprior.infer.laplace import AutoFisherLaplace
from numpyro_genprior.infer.map import find_map
from numpyro_genprior.infer.methods import MCMCMethod, SVIMethod
from numpyro_genprior.infer.mgvi.mgvi import MGVI
from numpyro_genprior.infer.optimize.lbfgs import LBFGS
from numpyro_genprior.infer.optimize.levenberg_marquardt import LevenbergMarquardt
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.infer.smc import SMC
from numpyro_genprior.infer.tempering import ParallelTempering

__all__ = [
    "LBFGS",
    "MCMCMethod",
    "MGVI",
    "SMC",
    "SVIMethod",
    "AutoFisherLaplace",
    "EllipticalSlice",
    "FisherHMC",
    "FisherNUTS",
    "LevenbergMarquardt",
    "ParallelTempering",
    "Posterior",
    "find_map",
    "register_fisher",
]
