"""One-step generators from diffusion and flow models, by matching distributions under noise."""

from pushforward.diffusion import losses, samplers, teachers
from pushforward.diffusion.distiller import Distiller
from pushforward.diffusion.exact import Empirical, ExactTeacher, GaussianMixture
from pushforward.diffusion.generator import Generator
from pushforward.diffusion.pipeline import OneStepPipeline
from pushforward.diffusion.processes import Prediction, Process, RectifiedFlow, VarianceExploding, VariancePreserving
from pushforward.diffusion.ratio import Discriminator, ExactRatio
from pushforward.diffusion.teacher_training import TeacherTrainer
from pushforward.diffusion.teachers import Denoiser, Guided, Teacher
from pushforward.diffusion.trainer import Trainer

__all__ = [
    "Denoiser",
    "Discriminator",
    "Distiller",
    "Empirical",
    "ExactRatio",
    "ExactTeacher",
    "GaussianMixture",
    "Generator",
    "Guided",
    "OneStepPipeline",
    "Prediction",
    "Process",
    "RectifiedFlow",
    "Teacher",
    "TeacherTrainer",
    "Trainer",
    "VarianceExploding",
    "VariancePreserving",
    "losses",
    "samplers",
    "teachers",
]
