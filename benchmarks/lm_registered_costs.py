"""What an addition to the loss weighs and costs: its gradient beside KL's, and the seconds of a step."""

from __future__ import annotations

import statistics
import time
from typing import Any

from lib import Row
from lm_registered_data import batches
from lm_registered_runs import ADDITIONS, addition, distillation, fresh_student, prepared, trained


def measured(data: str, settings: dict[str, Row]) -> Row:
    """Both, of the settings that were chosen, in this process on one thread."""
    import torch

    torch.set_num_threads(1)
    return {"gradient_norms": gradient_norms(data, settings), "steps": step_seconds(data, settings)}


def gradient_norms(data: str, settings: dict[str, Row], count: int = 20) -> Row:
    """Each addition's weighted gradient norm over alpha KL's, in a KL run before its first step and half way."""
    import torch
    from transformers import TrainerCallback

    from pushforward.lm.losses import KD, Context

    _, answers, parts = prepared("sst2", data)
    dataset = parts["pool"].select(range(32 * count))
    found: dict[str, Any] = {}

    def norm(loss: Any, out: Any, places: list[int], parameters: list[Any]) -> float:
        r = torch.nn.functional.normalize(answers["pool.pooled"][places], dim=-1)
        value = loss(out.logits, answers["pool.logits"][places], context=Context(representations=r))
        grads = torch.autograd.grad(value, parameters, retain_graph=True)
        return float(torch.stack([grad.norm() for grad in grads]).norm())

    def ratios(student: Any) -> dict[str, float]:
        # The pooler's dropout is off, and every trained parameter has a gradient.
        student.eval()
        parameters = [p for p in student.parameters() if p.requires_grad]
        all_ratios: dict[str, list[float]] = {loss: [] for loss in ADDITIONS}
        for places, batch in batches(dataset, 32):
            batch.pop("labels")
            out = student(**batch)
            base = norm(settings["kl"]["alpha"] * KD("kl"), out, places, parameters)
            for loss in ADDITIONS:
                weighted = settings[loss]["beta"] * addition(loss)
                all_ratios[loss].append(norm(weighted, out, places, parameters) / base)
        student.train()
        return {loss: statistics.median(values) for loss, values in all_ratios.items()}

    class Watch(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **unused: Any) -> None:
            if state.global_step in (0, state.max_steps // 2):
                random = torch.get_rng_state()
                found["start" if state.global_step == 0 else "half way"] = ratios(model)
                torch.set_rng_state(random)

    trained({"task": "sst2", "loss": "kl", "settings": settings["kl"], "seed": 0}, data, [Watch()])
    return found


def step_seconds(data: str, settings: dict[str, Row], rounds: int = 12) -> Row:
    """Median CPU seconds of a step with each loss, alternating, on eight batches; and its share over KL's."""
    import torch

    from pushforward.lm.losses import Context

    teacher, answers, parts = prepared("sst2", data)
    chosen = [pair for k, pair in enumerate(batches(parts["pool"], 32)) if k % 31 == 0][:8]
    names = ("kl", *ADDITIONS)
    losses = {name: distillation(name, settings[name]) for name in names}
    students = {name: fresh_student(teacher).train() for name in names}
    optimizers = {
        name: torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-5)
        for name, student in students.items()
    }
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in chosen] for name in names}
    for _ in range(rounds):
        for k, (places, batch) in enumerate(chosen):
            context = Context(representations=torch.nn.functional.normalize(answers["pool.pooled"][places], dim=-1))
            for name in names:
                label_weight, loss = losses[name]
                start = time.process_time()
                out = students[name](**batch)
                distilled = loss(out.logits, answers["pool.logits"][places], context=context)
                (label_weight * out.loss + distilled).backward()
                optimizers[name].step()
                optimizers[name].zero_grad()
                seconds[name][k].append(time.process_time() - start)
    medians = {name: [statistics.median(some[1:]) for some in values] for name, values in seconds.items()}
    more = {
        name: statistics.median(100 * (a - b) / b for a, b in zip(medians[name], medians["kl"], strict=True))
        for name in ADDITIONS
    }
    return {"seconds": {name: statistics.median(values) for name, values in medians.items()}, "more_percent": more}
