"""The smallest run of each trainer that writes checkpoints: every one has the last two when it ends.

Called again with the same folder, a run goes on from its last whole checkpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pushforward.diffusion import Distiller, Trainer, VarianceExploding, networks, teachers
from pushforward.diffusion.teacher_training import TeacherTrainer
from pushforward.jobs.inputs.clouds import Origin, save_origin
from pushforward.maps import LinearMap, MongeMap

PROCESS = VarianceExploding(sigma_min=0.1, sigma_max=10.0)
SIZE = networks.MLPConfig(shape=(2,), width=8, blocks=1)


def samples(count: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


def denoiser() -> Any:
    torch.manual_seed(0)
    return teachers.from_edm(networks.build(SIZE), PROCESS)


@contextmanager
def _quietly():
    # What so short a training makes of its data is nobody's concern; what is said of checkpoints is.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"step \d+: ")
        yield


def distil(folder: Path, steps: int = 2) -> None:
    distiller = Distiller(denoiser(), divergence="kl", critic_steps=1)
    settings: dict[str, Any] = {"batch_size": 8, "warmup": 1, "every": 1, "log_every": 1, "progress": False}
    with _quietly():
        Trainer(distiller, samples(), out=folder, **settings).fit(steps)


def teach(folder: Path, steps: int = 2) -> None:
    settings: dict[str, Any] = {"batch_size": 8, "every": 1, "log_every": 1, "progress": False}
    TeacherTrainer(samples(), out=folder, network=SIZE, process=PROCESS, **settings).fit(steps)


def fit_map(folder: Path, steps: int = 2) -> None:
    x, y = samples(40), 2 * samples(40, seed=1) + 1
    settings: dict[str, Any] = {"hidden": (4, 4), "batch_size": 8, "random_state": 0}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, message="(?!.*checkpoint)")
        MongeMap(start="linear", steps=steps, checkpoint=folder, **settings).fit(x, y)


def distil_lm(folder: Path, steps: int = 2, resume: str | None = None) -> None:
    import transformers

    from pushforward.lm import DistillationArguments, DistillationTrainer, student_from_layers

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": 4, "n_layer": 2, "n_head": 1, "n_positions": 8, "vocab_size": 10}
    teacher = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    rows = torch.randint(10, (8, 4), generator=torch.Generator().manual_seed(0))
    arguments = DistillationArguments(
        output_dir=str(folder),
        max_steps=steps,
        save_steps=1,
        save_total_limit=2,
        logging_steps=1,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    data = [{"input_ids": row, "labels": row} for row in rows]
    run = DistillationTrainer(student_from_layers(teacher, 1), teacher, args=arguments, train_dataset=data)
    run.train(resume_from_checkpoint=resume or any(folder.glob("checkpoint-*")))


def save_map_run(folder: Path) -> None:
    """What `fit-map` leaves in its folder, as far as `apply-map` reads it."""
    x = samples(20)
    LinearMap().fit(x, x + 1).save(folder / "map")
    save_origin(folder, Origin(kind="points", dimension=2))


RUNS: dict[str, Callable[..., None]] = {"student": distil, "teacher": teach, "map": fit_map, "lm": distil_lm}


def checkpoints(folder: Path) -> list[Path]:
    """Those of a run, the last one first."""
    found = [path for path in folder.iterdir() if path.is_dir() and path.name.split("-")[0] in ("step", "checkpoint")]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True)
