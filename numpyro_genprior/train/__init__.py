"""Training loops for a flow, a VAE and a GAN, with validation and early stopping."""

from numpyro_genprior.train.coverage import energy_distance, sample_coverage
from numpyro_genprior.train.fit_flow import fit_flow
from numpyro_genprior.train.fit_gan import fit_gan
from numpyro_genprior.train.fit_vae import fit_vae
from numpyro_genprior.train.loop import FitResult

__all__ = [
    "FitResult",
    "energy_distance",
    "fit_flow",
    "fit_gan",
    "fit_vae",
    "sample_coverage",
]
