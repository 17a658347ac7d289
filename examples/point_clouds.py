"""Where does each point go? The barycentric map of a plan between two clouds of different size and weight."""

import numpy as np

import pushforward as pf

rng = np.random.default_rng(0)
x = rng.normal(size=(300, 2))
y = rng.normal(size=(200, 2)) @ np.array([[2.0, 0.5], [0.0, 0.7]]) + [4.0, 1.0]
b = rng.random(200)
b /= b.sum()

solution = pf.solve(pf.PointCost(x, y, "sqeuclidean"), None, b, epsilon=0.05)
image = solution.plan.barycentric(y)

print(f"{solution.status.name} after {solution.iterations.plan_evaluations} plan evaluations")
print("mean of the target    ", (b @ y).round(6))
print("mean of the image of x", image.mean(axis=0).round(6))
