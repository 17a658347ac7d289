"""One map for many doses, and its prediction for a dose that it was never fitted on."""

import numpy as np

from pushforward import metrics
from pushforward.maps import MongeMap

rng = np.random.default_rng(0)
axis = np.array([1.0, 0.5])


def treated(cells: np.ndarray, dose: float) -> np.ndarray:
    """Cells on one side of a border answer to the drug, the more the higher its dose; the others hardly do."""
    answer = 1.0 / (1.0 + np.exp(-4.0 * cells @ axis))
    return cells + dose * answer[:, None] * axis  # the gradient of a convex function: no map gets there more cheaply


x = rng.normal(size=(500, 2))
doses = [0.0, 1.0, 2.0, 4.0]
y = np.concatenate([treated(rng.normal(size=(500, 2)), dose) for dose in doses])  # other cells than those of x
condition = np.repeat(doses, 500)


def fitted(steps: int) -> MongeMap:
    """One map for all doses."""
    estimator = MongeMap(
        start="linear", steps=steps, batch_size=128, hidden=(64, 64), learning_rate=0.01, random_state=0
    )
    return estimator.fit(x, y, condition=condition)


linear = fitted(0)  # its shift depends on the dose, its matrix does not
monge = fitted(160)

new = rng.normal(size=(1000, 2))
true = treated(new, 3.0)
predictions = {
    "no effect": new,
    "linear, for dose 3": linear.transform(new, condition=3.0),
    "Monge, as for dose 2": monge.transform(new, condition=2.0),
    "Monge, as for dose 4": monge.transform(new, condition=4.0),
    "Monge, for dose 3": monge.transform(new, condition=3.0),
}
print("at dose 3, which no fit has seen: squared error in % of the variance")
for name, images in predictions.items():
    print(f"{name:<24}{metrics.l2_uvp(images, true, variance=true.var(0).sum()):>6.1f}")
