"""Move a cloud of points onto another one by gradient descent on the Sinkhorn divergence."""

import torch

import pushforward as pf

generator = torch.Generator().manual_seed(0)
angle = 2 * torch.pi * torch.rand(100, generator=generator, dtype=torch.float64)
ring = torch.stack([angle.cos(), angle.sin()], dim=1)
points = 0.1 * torch.randn(80, 2, generator=generator, dtype=torch.float64)
points.requires_grad_()

optimiser = torch.optim.Adam([points], lr=0.1)
for step in range(41):
    loss = pf.sinkhorn_divergence(points, ring, epsilon=0.05)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if step % 10 == 0:
        print(f"step {step:2d}   divergence {loss.item():.6f}   mean radius {points.norm(dim=1).mean().item():.3f}")
