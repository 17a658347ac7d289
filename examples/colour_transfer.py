"""Give one photograph the colours of another: a map between pixels, learned from a few thousand, applied to all."""

import numpy as np
from PIL import Image

from pushforward import metrics, samples
from pushforward.maps import EntropicMap, LinearMap, MongeMap

rng = np.random.default_rng(0)
china, flower = samples.photograph("china", height=160), samples.photograph("flower", height=160)
x, y = (rng.permutation(picture.reshape(-1, 3))[:2500] for picture in (china, flower))
x, x_test, y, y_test = x[:2000], x[2000:], y[:2000], y[2000:]

maps = {
    "linear": LinearMap(),
    "entropic": EntropicMap(random_state=0),
    "Monge": MongeMap(steps=600, batch_size=256, hidden=(64, 64), random_state=0),  # by default 2000 and 3 x 256
}
colours, pixel = np.unique(china.reshape(-1, 3), axis=0, return_inverse=True)
print("on pixels that no map has seen      W2^2   variance ratio")
for name, fitted in maps.items():
    fitted.fit(x, y)
    images = fitted.transform(x_test)
    print(f"{name:<30}{metrics.wasserstein2(images, y_test):>10.4f}{metrics.variance_ratio(images, y_test):>17.2f}")
    painted = fitted.transform(colours).clip(0.0, 1.0)[pixel].reshape(china.shape)
    Image.fromarray(np.uint8(np.rint(255 * painted))).save(f"china-{name.lower()}.png")
print(f"{'floor: flower against flower':<30}{metrics.wasserstein2(y_test, y[:500]):>10.4f}")
