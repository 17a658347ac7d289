"""Transport between two handwritten digits: the plan, how good it is, and what the exact cost can be."""

import pushforward as pf
from pushforward.samples import digit_pair

a, b = digit_pair(3, 8)
cost = pf.GridCost(a.shape, p=2, scale=1 / 64)  # squared distance between pixels, in picture sides

solution = pf.solve(cost, a.ravel(), b.ravel(), epsilon=1e-3)
lower, upper = solution.bounds()

print(f"{solution.status.name}: marginal error {solution.marginal_error:.1e} by {solution.method}")
print(f"regularised optimum {solution.value:.6f}, cost of the plan {solution.transport_cost:.6f}")
print(f"the unregularised cost is certain to lie in [{lower:.6f}, {upper:.6f}]")
print(f"and it is {pf.exact(cost, a.ravel(), b.ravel()).cost:.6f}")
