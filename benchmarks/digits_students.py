"""One-step students of scikit-learn's digits by six divergences, with and without the GAN term, over paired seeds.

    python benchmarks/digits_students.py [--data NAME ...] [--divergences NAME ...] [--gan W ...] [--seeds N ...]
                                         [--steps N] [--levels raised|training] [--again] [--work FOLDER]
                                         [--picture FILE]

data         what it is                                                                modes
digits       all 1,797, 8 x 8                                                          10
imbalanced   digit k kept with probability 2^-k                                        those that are left
stacked      three digits as the channels of one image, 20,000 drawn                   1,000

A row is one training: of the teacher (`--work` keeps it), or of a student from that teacher. All students of a seed
start from the same weights and see the same noise and batches. Every generator is judged on three draws of 10,000
samples by `diffusion.judge.Judge`, and that of all digits says which one a sample shows; stacked digits by
`StackedJudge`.

levels       at which distributions are matched
raised       the distiller's own choice
training     those that the teacher was trained at

figure           meaning
draws            Frechet distance of three draws
modes            how many there are among the first draw's samples
class_distance   total variation between the modes' shares among those and among the data
rare             share of the samples that show a digit from 4 on, over that of the data; of imbalanced
seconds          CPU time of the training; of a teacher that `--work` had already, of loading it

`--picture` measures nothing: it draws samples of the imbalanced digits, of their teacher and of two students, which it
trains. Rows that are there are kept, unless --again. Two runs, of different rows, may write at once.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from digits_teacher import COUNT, DRAWS, digits
from maps import locked, read
from measure import conditions, in_own_process, say, write_json
from torch import Tensor

from pushforward import metrics
from pushforward.diffusion import Denoiser, Distiller, Generator, OneStepPipeline, TeacherTrainer, Trainer
from pushforward.diffusion.judge import Judge
from pushforward.diffusion.networks import MLPConfig
from pushforward.diffusion.samplers import sample
from pushforward.report.generators import save_grid
from pushforward.training.random import generator, seeded

RESULTS = Path(__file__).with_name("results") / "digits_students.json"
DATA = ("digits", "imbalanced", "stacked")
DIVERGENCES = ("reverse_kl", "softened_reverse_kl", "js", "squared_hellinger", "jeffreys", "kl")
TEACHER = "teacher"
GAN = (0.0, 1e-3)
STACKED = 20_000
PLACES = torch.tensor([100, 10, 1])
SETTING = {"batch_size": 256, "learning_rate": 6e-4, "average": 0.998, "warmup": 200, "critic_steps": 3}
STEPS = 800
# Where the networks are ten times the size.
MORE = {"stacked": {"precision": "bfloat16"}}
TEACHERS: dict[str, dict[str, Any]] = {
    "digits": {"steps": 3000},
    "imbalanced": {"steps": 3000},
    # Three times the pixels, a thousand modes: the perceptron that suits one digit is hardly near the data here.
    "stacked": {
        "steps": 6000,
        "learning_rate": 1e-3,
        "average": 0.999,
        "network": MLPConfig(shape=(3, 8, 8), width=512, blocks=4),
    },
}

Row = dict[str, Any]


@cache
def data_of(name: str) -> tuple[Tensor, Tensor]:
    """Images and the label of each; of stacked digits the number that their three labels make."""
    images, labels = digits()
    if name == "imbalanced":
        kept = torch.rand(len(labels), generator=generator(0, name)) < 0.5**labels
        return images[kept], labels[kept]
    return stacked(STACKED, seed=0) if name == "stacked" else (images, labels)


def stacked(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    images, labels = digits()
    rows = torch.randint(len(images), (count, 3), generator=generator(seed, "stacked"))
    return images[rows, 0], labels[rows] @ PLACES


class StackedJudge:
    """Judges three digits at once by the classifier of single ones.

    Frechet distance and modes are of all three: its features side by side, and the number that its three classes make.
    Neighbours are sought a channel at a time, and their figures averaged. For the data are copies: most images share a
    digit, to the pixel, with another, which no sample does, so that among whole images no generator has any precision.
    """

    def __init__(self) -> None:
        images, labels = data_of("stacked")
        self.single = Judge(*digits())
        features = self.features(images)
        self.reference, self.other = features[: STACKED // 2], features[STACKED // 2 :]
        self.floor = metrics.frechet_distance(self.reference, self.other)
        self.shares = shares(labels)
        self.off = total_variation(shares(self.classes(stacked(COUNT, seed=1)[0])), self.shares)

    def features(self, drawn: Tensor) -> Tensor:
        return torch.cat([self.single.features(channel) for channel in drawn.split(1, 1)], 1)

    def classes(self, drawn: Tensor) -> Tensor:
        return torch.stack([classes_of(self.single, channel) for channel in drawn.split(1, 1)], 1) @ PLACES

    def __call__(self, drawn: Tensor) -> dict[str, float]:
        channels = [self.single(channel) for channel in drawn.split(1, 1)]
        return {name: mean(one[name] for one in channels) for name in channels[0]} | {
            "frechet": metrics.frechet_distance(self.reference, self.features(drawn)),
            "frechet_floor": self.floor,
            "class_distance": total_variation(shares(self.classes(drawn)), self.shares),
            "class_distance_floor": self.off,
        }


def classes_of(judge: Judge | StackedJudge, drawn: Tensor) -> Tensor:
    found = judge.classes(drawn)
    assert found is not None  # all judges here know labels
    return found


def shares(modes: Tensor) -> Tensor:
    """Of the stacked digits' modes, (1000,)."""
    return metrics.class_histogram(modes, 1000) / len(modes)


def total_variation(p: Tensor, q: Tensor) -> float:
    return float((p - q).abs().sum() / 2)


@cache
def judge_of(name: str) -> Judge | StackedJudge:
    return StackedJudge() if name == "stacked" else Judge(*data_of(name))


def figures(name: str, drawn: list[Tensor]) -> Row:
    judge = judge_of(name)
    _, labels = data_of(name)
    # By a classifier that has seen all the digits: one of imbalanced digits knows little of the rare ones.
    teller = judge if isinstance(judge, StackedJudge) else judge_of("digits")
    shown = classes_of(teller, drawn[0])
    found = judge(drawn[0]) | {
        "draws": [metrics.frechet_distance(judge.reference, judge.features(one)) for one in drawn],
        "modes": int(torch.isin(labels.unique(), shown).sum()),
        "of": len(labels.unique()),
    }
    if name == "imbalanced":
        found["rare"] = float((shown >= 4).float().mean() / (labels >= 4).float().mean())
    return found


def teacher_of(name: str, work: Path) -> Denoiser:
    images, _ = data_of(name)
    given = dict(TEACHERS[name])
    steps = given.pop("steps")
    return TeacherTrainer(images, out=work / name, every=steps, progress=False, **given).fit(steps)


def distilled(
    teacher: Denoiser,
    images: Tensor,
    *,
    divergence: str,
    gan: float,
    seed: int,
    steps: int,
    out: Path,
    setting: dict[str, Any] = SETTING,
) -> tuple[Generator, float]:
    """The student, and the CPU seconds of its training."""
    given = dict(setting)
    critic_steps = int(given.pop("critic_steps"))
    levels = teacher.process if given.pop("levels", "raised") == "training" else None
    with seeded(seed, "students"):
        distiller = Distiller(teacher, divergence=divergence, gan_weight=gan, critic_steps=critic_steps, levels=levels)
        start = time.process_time()
        trainer = Trainer(distiller, images, out=out, every=steps, seed=seed, progress=False, **given)
        student = trainer.fit(steps)
        return student, time.process_time() - start


def measured(key: Row, work: Path) -> Row:
    """The row of a key. Runs in its own process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    name = key["data"]
    images, _ = data_of(name)
    shape = tuple(images.shape[1:])
    start = time.process_time()
    teacher = teacher_of(name, work)
    if key["divergence"] == TEACHER:
        seconds = time.process_time() - start
        drawn = [sample(teacher, COUNT, shape, generator=torch.Generator().manual_seed(k)) for k in range(DRAWS)]
        return {"status": "ok", "seconds": seconds, **figures(name, drawn)}
    with tempfile.TemporaryDirectory() as out:
        student, seconds = distilled(
            teacher,
            images,
            **{field: key[field] for field in ("divergence", "gan", "seed", "steps")},
            out=Path(out),
            setting=SETTING | MORE.get(name, {}) | {"levels": key["levels"]},
        )
    pipe = OneStepPipeline(student, shape=shape)
    drawn = [
        pipe(COUNT, generator=torch.Generator().manual_seed(k), output_type="raw", batch_size=1000).images
        for k in range(DRAWS)
    ]
    return {"status": "ok", "seconds": seconds, "times": list(student.times), **figures(name, drawn)}


def picture(file: Path, work: Path, levels: str, *, data: str = "imbalanced", count: int = 40) -> None:
    """Data, the teacher and students by reverse KL and JS, in this order, `count` of each in rows of 8."""
    images, _ = data_of(data)
    shape = tuple(images.shape[1:])
    teacher, setting = teacher_of(data, work), SETTING | {"levels": levels}
    parts = [images[:count], sample(teacher, count, shape, generator=torch.Generator().manual_seed(0))]
    for divergence in ("reverse_kl", "js"):
        with tempfile.TemporaryDirectory() as out:
            student, _ = distilled(
                teacher, images, divergence=divergence, gan=GAN[1], seed=0, steps=STEPS, out=Path(out), setting=setting
            )
        pipe = OneStepPipeline(student, shape=shape)
        parts.append(pipe(count, generator=torch.Generator().manual_seed(0), output_type="raw").images)
    save_beside(file, parts)


def save_beside(file: Path, parts: list[Tensor], *, columns: int = 8) -> None:
    """Groups of as many images (n, C, H, W) in one picture, from left to right, with a column's gap between them."""
    count, *shape = parts[0].shape
    gap = torch.ones(count // columns, 1, *shape)
    rows: list[Tensor] = []
    for part in parts:
        rows += [part.reshape(-1, columns, *shape), gap]
    sheet = torch.cat(rows[:-1], 1)
    save_grid(file, sheet.flatten(0, 1).numpy(), columns=sheet.shape[1])


def key_of(row: Row) -> tuple[Any, ...]:
    return row["data"], row["divergence"], row["gan"], row["seed"], row["steps"], row["levels"]


def add(row: Row, path: Path, setting: dict[str, Any]) -> None:
    """Writes a row among the others, in the place of one that has its key."""
    with locked(path):
        rows = [other for other in read(path)["rows"] if key_of(other) != key_of(row)] + [row]
        rows.sort(key=lambda one: tuple(map(str, key_of(one))))
        stamp = {name: value for name, value in conditions().items() if name != "tolerance"}
        write_json(path, stamp | {"setting": setting, "rows": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA, metavar="NAME")
    parser.add_argument("--divergences", nargs="+", default=[TEACHER, *DIVERGENCES], metavar="NAME")
    parser.add_argument("--gan", type=float, nargs="+", default=list(GAN))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--levels", default="raised", choices=("raised", "training"))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("runs/digits-students"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    if arguments.picture:
        torch.set_num_threads(1)
        picture(arguments.picture, arguments.work, arguments.levels)
        return
    wanted = itertools.product(arguments.data, arguments.seeds, arguments.gan, arguments.divergences)
    for name, seed, gan, divergence in wanted:
        if divergence == TEACHER and (seed, gan) != (arguments.seeds[0], arguments.gan[0]):
            continue
        steps = TEACHERS[name]["steps"] if divergence == TEACHER else arguments.steps
        key = {"data": name, "divergence": divergence, "gan": gan, "seed": seed, "steps": steps}
        # A teacher is one row, whatever is asked of its students.
        key |= {"gan": 0.0, "seed": 0, "levels": "raised"} if divergence == TEACHER else {"levels": arguments.levels}
        if not arguments.again and key_of(key) in {key_of(row) for row in read(arguments.out)["rows"]}:
            continue
        row = in_own_process(measured, key, arguments.work, wall_limit=3600.0)
        stamp = {field: conditions()[field] for field in ("date", "commit")}
        add(key | row | stamp, arguments.out, SETTING | {"samples": COUNT, "draws": DRAWS})
        say(f"{name} {divergence} gan {gan:g} seed {seed}: FD {row.get('draws')}, {row['status']}")


if __name__ == "__main__":
    main()
