"""The kinds of input of a transport problem."""

from __future__ import annotations

from pushforward.jobs.inputs.costs import CostMatrix
from pushforward.jobs.inputs.pictures import Pictures
from pushforward.jobs.inputs.points import Points

__all__ = ["Problem"]

Problem = Pictures | Points | CostMatrix
