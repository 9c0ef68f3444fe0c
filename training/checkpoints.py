"""Checkpoints that a killed run continues from exactly, and what both trainings share around them.

Every random number of a step (dropout, noise, order, augmentation) is drawn from a generator seeded
by (seed, step): nothing random has to be stored, and step 100 is the same whether or not the run
was interrupted before it.
"""

import argparse
import dataclasses
import math
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.configuration import Training, load_configuration


class Progress:
    """How many steps are done; registered with Accelerate, so that a checkpoint knows."""

    def __init__(self):
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


class StopRequest:
    """Turns Ctrl-C or a termination signal into "stop after this step", with a checkpoint."""

    def __init__(self):
        self.asked = False

    def __enter__(self) -> "StopRequest":
        self.previous = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for which, handler in self.previous.items():
            signal.signal(which, handler)

    def _ask(self, *_) -> None:
        self.asked = True


def seed_of_step(seed: int, step: int, process: int = 0) -> int:
    """A seed for everything random in one step of one process; a pure function."""
    return int(torch.tensor([seed, step, process]).mul(torch.tensor([1_000_003, 1009, 1])).sum())


def list_checkpoints(output: str | Path) -> list[Path]:
    """The whole `checkpoint-{step}` folders of a run, the oldest first."""
    found = [path for path in Path(output).glob("checkpoint-*") if path.name[11:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[11:]))


def save_checkpoint(accelerator: Any, config: Training, step: int) -> Path:
    """Writes `checkpoint-{step}` in one move, then removes the oldest beyond `keep_checkpoints`."""
    folder = Path(config.output) / f"checkpoint-{step}"
    work = folder.with_name(folder.name + ".part")
    accelerator.save_state(str(work))
    if accelerator.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
        for old in list_checkpoints(config.output)[: -max(1, config.keep_checkpoints)]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return folder


def resume(accelerator: Any, config: Training, checkpoint: str | Path | None = None) -> bool:
    """Loads a checkpoint, or the run's latest; False if there is none."""
    found = [Path(checkpoint)] if checkpoint else list_checkpoints(config.output)[-1:]
    if not found:
        return False
    if not found[0].is_dir():
        raise FileNotFoundError(f"no checkpoint {found[0]}: give a checkpoint-{{step}} folder")
    accelerator.load_state(str(found[0]))
    return True


def learning_rate_factor(config: Training, step: int) -> float:
    """Share of the highest learning rate at a step: linear warm-up, constant, cosine to 0.

    Constant for long, so that a run that is stopped early is still a good one (arXiv 2405.18392);
    or falling in stairs all along, where the configuration has a `decay_factor` below 1.
    """
    stairs = config.decay_factor ** (step // config.decay_every)
    if step < config.warmup_steps:
        return stairs * (step + 1) / config.warmup_steps
    decay_steps = max(1, round(config.decay_share * config.steps))
    into_decay = max(0.0, (step - (config.steps - decay_steps)) / decay_steps)
    return stairs * 0.5 * (1 + math.cos(math.pi * min(1.0, into_decay)))


def set_learning_rate(optimizer: Any, config: Training, step: int) -> float:
    """Sets the learning rate of a step on every group, and returns it."""
    rate = config.learning_rate * learning_rate_factor(config, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def parameter_groups(module: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay on matrices and kernels, none on biases, norms and scores."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def optimizer_of(config: Training, module: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW over a module's trained parameters, as the configuration says."""
    return torch.optim.AdamW(
        parameter_groups(module, config.weight_decay),
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_eps,
    )


def average_of(config: Training, module: torch.nn.Module) -> Any:
    """The averaged weights of a module in training, a diffusers `EMAModel`."""
    from diffusers.training_utils import EMAModel

    return EMAModel(module.parameters(), decay=config.ema_decay, use_ema_warmup=True, power=0.75)


class averaged:
    """Lends a module its averaged weights: `with averaged(module, average): ...`.

    Args:
        module: in training; it gets its own weights back.
        average: the `EMAModel`.
    """

    def __init__(self, module: torch.nn.Module, average: Any):
        self.module, self.average = module, average

    def __enter__(self) -> None:
        self.average.store(self.module.parameters())
        self.average.copy_to(self.module.parameters())
        self.module.eval()

    def __exit__(self, *_) -> None:
        self.average.restore(self.module.parameters())


def log_sheet(accelerator: Any, config: Training, sheet: np.ndarray, step: int) -> None:
    """Keeps a picture (height, width, 3) uint8 of samples in `samples/` and in TensorBoard."""
    from PIL import Image

    folder = Path(config.output) / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(sheet)
    picture = picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)
    picture.save(folder / f"step-{step:06d}.png")
    tracker = accelerator.get_tracker("tensorboard")
    tracker.log_images({"samples": sheet[None]}, step=step, dataformats="NHWC")


def steps_to_go(progress: Progress, config: Training, stop_at_step: int | None) -> Iterator[int]:
    """The steps that are left, from 0."""
    yield from range(progress.step, min(config.steps, stop_at_step or config.steps))


def run_command(
    arguments: Sequence[str] | None, kind: type, train: Callable, export: Callable
) -> None:
    """The command line of a training: `CONFIG.yaml [--dataset D] [--output O] [--export C F]`.

    Args:
        arguments: of the command, None for the process's own.
        kind: the dataclass of its configuration.
        train: takes the configuration; starts a run or continues a stopped one.
        export: takes the configuration, a checkpoint and the folder to write its model to.
    """
    parser = argparse.ArgumentParser(description="Train, or continue a stopped run.")
    parser.add_argument("config", help="YAML file, see training/configs/")
    parser.add_argument("--dataset", help="train on this one instead of the configuration's")
    parser.add_argument("--output", help="keep the run here instead")
    parser.add_argument(
        "--export",
        nargs=2,
        metavar=("CHECKPOINT", "FOLDER"),
        help="write a checkpoint's model only",
    )
    options = parser.parse_args(arguments)
    try:
        given = {"dataset": options.dataset, "output": options.output}
        given = {name: value for name, value in given.items() if value is not None}
        config = dataclasses.replace(load_configuration(options.config, kind), **given)
        if options.export:
            export(config, *options.export)
        else:
            train(config)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"{error}\n")
