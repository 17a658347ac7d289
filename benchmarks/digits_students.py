"""One-step students of scikit-learn's digits by six divergences, with and without the GAN term, over paired seeds.

    python benchmarks/digits_students.py [--data NAME ...] [--divergences NAME ...] [--gan W ...] [--seeds N ...]
                                         [--steps N] [--levels raised|training] [--again] [--work FOLDER]
                                         [--picture FILE]

The data are those of `digits_judges.py`. A row is one training: of the teacher (`--work` keeps it), or of a student
from that teacher. All students of a seed start from the same weights and see the same noise and batches. Every
generator is evaluated on three draws of 10,000 samples by `diffusion.judge.SampleMetrics`, and that of all digits says
which one a sample shows; stacked digits by `StackedJudge`.

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

import itertools
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from digits_judges import DATA, data_of, figures
from digits_runs import DIVERGENCES, TEACHER, distilled, draws, picture, run
from digits_teacher import COUNT, DRAWS
from lib import RESULTS, Row, cpu_seconds, parsed

from pushforward.diffusion import Denoiser, Generator, TeacherTrainer
from pushforward.diffusion.networks import MLPConfig

GAN = (0.0, 1e-3)
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


def teacher_of(name: str, work: Path) -> Denoiser:
    images, _ = data_of(name)
    given = dict(TEACHERS[name])
    steps = given.pop("steps")
    return TeacherTrainer(images, out=work / name, every=steps, progress=False, **given).fit(steps)


def student_of(teacher: Denoiser, key: Row) -> tuple[Generator, float]:
    """The student of a row's key, and the CPU seconds of its training."""
    images, _ = data_of(key["data"])
    asked = {name: key[name] for name in ("divergence", "gan", "seed", "steps")}
    setting = SETTING | MORE.get(key["data"], {}) | {"levels": key["levels"]}
    with tempfile.TemporaryDirectory() as out:
        return distilled(teacher, images, **asked, out=Path(out), setting=setting)


def measured(key: Row, work: Path) -> Row:
    """The row of a key. Runs in its own process."""
    warnings.simplefilter("ignore")
    name = key["data"]
    network, seconds = cpu_seconds(lambda: teacher_of(name, work))
    more = {}
    if key["divergence"] != TEACHER:
        network, seconds = student_of(network, key)
        more = {"times": list(network.times)}
    drawn = draws(network, tuple(data_of(name)[0].shape[1:]), COUNT, DRAWS)
    return {"status": "ok", "seconds": seconds} | more | figures(name, drawn)


def main() -> None:
    options = {
        "data": DATA, "divergences": (TEACHER, *DIVERGENCES), "gan": GAN, "seeds": (0, 1, 2, 3, 4), "steps": STEPS,
        "levels": "raised", "again": False, "work": Path("runs/digits-students"), "picture": Path,
        "out": RESULTS / "digits_students.json",
    }  # fmt: skip
    asked = parsed(__doc__, options)

    def key(data: str, divergence: str, gan: float, seed: int, steps: int = asked.steps) -> Row:
        about = {"data": data, "divergence": divergence, "gan": gan, "seed": seed, "steps": steps}
        return about | {"levels": "raised" if divergence == TEACHER else asked.levels}

    if asked.picture:
        torch.set_num_threads(1)
        teacher = teacher_of("imbalanced", asked.work)
        students = [student_of(teacher, key("imbalanced", name, GAN[1], 0))[0] for name in ("reverse_kl", "js")]
        picture(asked.picture, data_of("imbalanced")[0], [teacher, *students])
        return
    # A teacher is one row, whatever is asked of its students.
    teachers = [key(name, TEACHER, 0.0, 0, TEACHERS[name]["steps"]) for name in asked.data]
    wanted = itertools.product(asked.data, asked.seeds, asked.gan, asked.divergences)
    keys = [key(name, divergence, gan, seed) for name, seed, gan, divergence in wanted if divergence != TEACHER]
    setting = SETTING | {"samples": COUNT, "draws": DRAWS}
    keys = [*(teachers if TEACHER in asked.divergences else []), *keys]
    run(keys, measured, asked.work, out=asked.out, setting=setting, again=asked.again)


if __name__ == "__main__":
    main()
