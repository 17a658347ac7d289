"""What the Monge gap says of a map that is optimal, of one that is so onto a wrong image, and of two that are not."""

import math

import torch

from pushforward.maps import monge_gap
from pushforward.maps.truths import LogSumExp

truth = LogSumExp(dim=2, pieces=6)
x = truth.sample(400, torch.Generator().manual_seed(0))
image = truth.map(x)
turn = torch.tensor([[3**0.5, 1.0], [-1.0, 3**0.5]], dtype=image.dtype) / 2
maps = {
    "optimal": image,
    "its image drawn together": image.mean(0) + 0.8 * (image - image.mean(0)),
    "its image turned by 30 deg": image @ turn,
    "its image shuffled": image[torch.randperm(len(x), generator=torch.Generator().manual_seed(1))],
}

unit = float((x[:, None] - image).square().sum(-1).mean())  # the mean cost, in which all of this is counted
offset = math.log(len(x))
print(f"{'in %; epsilon:':<28}{'exact':>10}{'entropic':>10}{'debiased':>30}")
print(f"{'':<28}{'':>10}{'.01':>10}{'.1':>10}{'.01':>10}{'.001':>10}")
for name, tx in maps.items():
    figures = [
        monge_gap(x, tx, estimator="exact") / unit,
        monge_gap(x, tx, estimator="entropic", epsilon=0.01 * unit, tol=1e-6) / unit - 0.01 * offset,
        *(monge_gap(x, tx, epsilon=share * unit, tol=1e-6) / unit for share in (0.1, 0.01, 0.001)),
    ]
    print(f"{name:<28}" + "".join(f"{100 * float(figure):>10.2f}" for figure in figures))
print("\nThe entropic gap is shown less epsilon log n, the least that it can read at an optimal map.")
