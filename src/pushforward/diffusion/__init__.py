"""One-step generators from diffusion and flow models, by matching distributions under noise."""

from pushforward.diffusion import losses, teachers
from pushforward.diffusion.exact import Empirical, ExactTeacher, GaussianMixture
from pushforward.diffusion.processes import Prediction, Process, RectifiedFlow, VarianceExploding, VariancePreserving
from pushforward.diffusion.teachers import Denoiser, Guided, Teacher

__all__ = [
    "Denoiser",
    "Empirical",
    "ExactTeacher",
    "GaussianMixture",
    "Guided",
    "Prediction",
    "Process",
    "RectifiedFlow",
    "Teacher",
    "VarianceExploding",
    "VariancePreserving",
    "losses",
    "teachers",
]
