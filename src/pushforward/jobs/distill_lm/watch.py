"""What goes on beside a training: its log, its bar, its curve, and an end that loses nothing when Ctrl-C is pressed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback

from pushforward.training.distributed import gather_text, is_main
from pushforward.training.log import Log, read_log

__all__ = ["Watch", "read_curve"]


class Watch(TrainerCallback):
    """Watches one training; of several processes the first alone writes and checks.

    Args:
        name: What is trained, for the bar.
        file: The log; it is gone on with where a training is.
        progress: Whether to show a bar.
        check: Gives metrics of the model as it is; they are logged with "held_out_" before their names.
        every: Steps between two checks.
    """

    def __init__(
        self,
        name: str,
        file: Path,
        *,
        progress: bool,
        check: Callable[[], dict[str, float]] | None = None,
        every: int = 1,
    ) -> None:
        self.name, self.file, self.progress, self.check, self.every = name, file, progress, check, every
        self.seconds_per_step = 0.0
        self._interrupted = False
        self._steps: list[float] = []

    def over(self, trainer: Trainer, train: Callable[[], object]) -> None:
        """Call `train`, which trains `trainer`, and watch. The first Ctrl-C ends it after a checkpoint.

        Raises:
            KeyboardInterrupt: It was ended so, or Ctrl-C was pressed twice.
        """
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)
        before = signal.signal(signal.SIGINT, self._on_signal)
        try:
            train()
        finally:
            signal.signal(signal.SIGINT, before)
        if self._interrupted:
            raise KeyboardInterrupt

    def _on_signal(self, *unused: object) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        """Open the log, and check the model as it starts."""
        step = state.global_step
        if is_main():
            self._log = Log(self.file, resumed=step or None)
        self._bar = tqdm(total=state.max_steps, initial=step, desc=self.name, unit="step", disable=not self.progress)
        if step == 0:
            self._log_check(0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        """Start the clock of a step."""
        self._start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        """Stop the clock, evaluate where a check is due, and end the training after Ctrl-C."""
        self._steps.append(time.perf_counter() - self._start)
        self._bar.update()
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._log_check(state.global_step)
        # A signal reaches processes at different times; all of them end after the same step.
        if any(gather_text("stop" if self._interrupted else "")):
            self._interrupted = True
            control.should_save = args.save_strategy != "no"
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **unused: Any) -> None:
        """Keep the losses for the log."""
        if logs and "loss" in logs and is_main():
            self._log.write(state.global_step, logs)
            self._bar.set_postfix(loss=f"{logs['loss']:.3g}", refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        """Close the log and the clock."""
        self._bar.close()
        if is_main():
            self._log.close()
        # The median: the first step also pays for what is set up once.
        self.seconds_per_step = sorted(self._steps)[len(self._steps) // 2] if self._steps else 0.0

    def _log_check(self, step: int) -> None:
        if self.check is not None and is_main():
            self._log.write(step, {f"held_out_{name}": value for name, value in self.check().items()})


def read_curve(file: Path, name: str) -> tuple[list[int], list[float]]:
    """The steps of a log that have a value of this name, and the values."""
    records = [record for record in read_log(file) if name in record]
    return [record["step"] for record in records], [record[name] for record in records]
