"""Cells before and after a drug, unpaired: what each cell does is learned from two populations, and known here.

Synthetic expression of ten genes in log units. Two cell types; the drug moves one by what was planted and leaves the
other, so that the difference of means is right for no cell. Three patients, each with an offset of its own, are known;
a fourth is predicted. Untreated cells say what the offset is, so it can be taken away first and put back afterwards:
maps of points as they are send the fourth patient's cells to where the others' are.
"""

import numpy as np

from pushforward.maps import EntropicMap, LinearMap
from pushforward.metrics import halves, judge_map

GENES, CELLS = 10, 300
RESPONSE = np.array([1.5, -1.5, 1.0, -1.0, 0.5, 0, 0, 0, 0, 0])  # of the cells that respond, gene by gene
APART = np.array([0, 0, 0, 0, 0, 3.0, -3.0, 0, 0, 0])  # the two types differ in two marker genes
random = np.random.default_rng(0)


def cells(offset: np.ndarray, treated: bool) -> tuple[np.ndarray, np.ndarray]:
    """Expression of one sample's cells, and which of them respond."""
    responds = random.random(CELLS) < 0.5
    expression = offset + 0.4 * random.standard_normal((CELLS, GENES)) + responds[:, None] * APART
    return expression + treated * responds[:, None] * RESPONSE, responds


patients = [0.5 * random.standard_normal(GENES) for _ in range(4)]
known = [(cells(offset, False)[0], cells(offset, True)[0]) for offset in patients[:3]]
x, responds = cells(patients[3], False)
y, other = halves(np.concatenate([cells(patients[3], True)[0] for _ in range(2)]), seed=0)
true = x + responds[:, None] * RESPONSE


centred = [(before - before.mean(0), after - before.mean(0)) for before, after in known]
(all_x, all_y), (own_x, own_y) = (
    [np.concatenate(side) for side in zip(*pairs, strict=True)] for pairs in (known, centred)
)
mean = x.mean(0)
predictions = {
    "identity": x,
    "mean shift": x + (all_y.mean(0) - all_x.mean(0)),
    "linear": LinearMap().fit(all_x, all_y).transform(x),
    "entropic": EntropicMap(0.05).fit(all_x, all_y).transform(x),
    "linear, offsets taken away": mean + LinearMap().fit(own_x, own_y).transform(x - mean),
    "entropic, offsets taken away": mean + EntropicMap(0.05).fit(own_x, own_y).transform(x - mean),
}
print(f"{'a fourth patient, predicted':32} {'W2^2':>6} {'floor':>6} {'L2-UVP %':>9} {'move':>6} {'of the others':>14}")
for name, predicted in predictions.items():
    report = judge_map(x, predicted, y, true=true, other=other, points=300)
    moved = (predicted - x) @ RESPONSE / (RESPONSE @ RESPONSE)  # 1 where a cell moves as planted, 0 where it stays
    print(
        f"{name:32} {report.w2:6.2f} {report.w2_floor:6.2f} {report.l2_uvp:9.1f} "
        f"{moved[responds].mean():6.2f} {moved[~responds].mean():14.2f}"
    )
