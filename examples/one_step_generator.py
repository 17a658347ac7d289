"""A diffusion model of points in the plane, whose answers are known exactly, distilled into one step."""

import tempfile

import torch
from torch import Tensor, nn

from pushforward import diffusion as pd

process = pd.VarianceExploding(sigma_min=0.01, sigma_max=10.0)
angles = torch.arange(5) * 2 * torch.pi / 5
teacher = pd.GaussianMixture(
    weights=[1.0] * 5,
    means=0.7 * torch.stack([angles.cos(), angles.sin()], -1),
    covariances=[0.01] * 5,
    process=process,
)


class Network(nn.Module):
    """A perceptron of a point and its noise."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """What `from_edm` preconditions, like x."""
        return self.layers(torch.cat([x, t.to(x)[:, None]], -1))


torch.manual_seed(0)
data = teacher.sample(4000).float()
student = pd.Generator(pd.teachers.from_edm(Network(), process), times=(1.0,))
# An exact teacher has no features for a discriminator: the reverse KL needs none.
distiller = pd.Distiller(teacher, divergence="reverse_kl", student=student, gan_weight=0.0, critic_steps=2)

with tempfile.TemporaryDirectory() as run:
    generator = pd.Trainer(
        distiller, data, out=run, batch_size=128, learning_rate=2e-3, average=0.99, progress=False
    ).fit(800)

with torch.no_grad():
    drawn = generator(torch.randn(2000, 2))
distance, nearest = torch.cdist(drawn, teacher.means).min(1)
print("one step from noise of level", generator.times[0])
print("share of points within three standard deviations of a mode:", round(float((distance < 0.3).double().mean()), 2))
print("points of each mode:", torch.bincount(nearest, minlength=5).tolist())
