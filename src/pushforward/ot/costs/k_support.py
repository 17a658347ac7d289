"""The k-support norm's level: above it an entry counts in full, below it entries share what is left of k.

    |z|_(k)^2 = min sum_i z_i^2 / theta_i   s.t.  0 <= theta_i <= 1, sum_i theta_i <= k
              = sum_i |z_i| max(|z_i|, r),        theta_i = min(1, |z_i| / r) at the level r

symbol    meaning                                                          shape
size      |z_i|, or |w_i| where the proximal map is taken at w             (..., d)
theta     shares: how much of one entry each may be                        (..., d)
r         the level, in units of the sizes                                 (..., 1)

The proximal map of gamma/2 |.|_(k)^2 shrinks w_i to w_i theta_i / (theta_i + gamma), theta_i =
clip(|w_i| / r - gamma, 0, 1): by gamma r or to w_i / (1 + gamma), whichever is less; to 0 where |w_i| <= gamma r.

Source: the norm is Argyriou, Foygel and Srebro's (2012, arXiv 1204.5043), who find the two levels by search.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["norm_level", "prox_level"]


def norm_level(size: Tensor, k: int) -> Tensor:
    """The level r at which shares theta_i = min(1, size_i / r) sum to k; (..., 1) for sizes (..., d).

    With the q largest full, r_q = (sum of the others) / (k - q). While the next is above r_q it is full, too, which
    lowers r; once it is not, to count it full would raise r: the level is the least r_q. Where at most k sizes are
    positive it is 0, or at most the least of them.
    """
    top = size.topk(min(k, size.shape[-1]), dim=-1).values
    others = (size.sum(-1, keepdim=True) - (top.cumsum(-1) - top)).clamp_min(0.0)
    free = k - torch.arange(top.shape[-1], dtype=size.dtype, device=size.device)
    return (others / free).amin(-1, keepdim=True)


def prox_level(size: Tensor, k: int, gamma: float) -> Tensor:
    """The level r at which shares theta_i = clip(size_i / r - gamma, 0, 1) sum to k; (..., 1) for sizes (..., d).

    As a function of s = 1/r the sum is piecewise linear: each share rises from s = gamma/size_i to (1 + gamma)/size_i.
    The segment that passes k says which shares are full and which rise there; they give r in closed form, and its
    derivative. Where fewer than k sizes are positive all shares are full, at any smaller r.
    """
    with torch.no_grad():
        live = size > torch.finfo(size.dtype).tiny * (1.0 + gamma) * 4.0
        inverse = torch.where(live, 1.0 / torch.where(live, size, 1.0), 0.0)
        begin, end = gamma * inverse, (1.0 + gamma) * inverse
        corner, order = torch.cat([begin, end], -1).sort(-1)
        slope = torch.cat([size, -size], -1).gather(-1, order).cumsum(-1)
        total = (slope[..., :-1] * corner.diff(dim=-1)).cumsum(-1)
        last = corner.gather(-1, (total <= k).sum(-1, keepdim=True))
        full, rising = live & (end <= last), live & (begin <= last) & (last < end)
        share = k - full.to(size.dtype).sum(-1, keepdim=True) + gamma * rising.to(size.dtype).sum(-1, keepdim=True)
        some = rising.any(-1, keepdim=True) & (share > 0)
        flat = torch.where(last > 0, 1.0 / torch.where(last > 0, last, 1.0), 0.0)
    return torch.where(some, (size * rising).sum(-1, keepdim=True) / torch.where(some, share, 1.0), flat)
