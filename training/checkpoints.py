"""Checkpoints that a killed run continues from exactly, and what all trainings share around them.

Every random number of a step (dropout, noise, order, augmentation) is drawn from a generator seeded
by (seed, step): nothing random has to be stored, and step 100 is the same whether or not the run
was interrupted before it.
"""

import argparse
import dataclasses
import errno
import itertools
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.configuration import Training, load_configuration
from training.hub import first_line

LONGEST_PREPARATION = timedelta(days=1)  # of data, which one process decodes for all
LONGEST_WAIT = timedelta(hours=1)  # of processes for each other: one of them may be dead
SECONDS_TO_SEE = 10  # a file that another machine wrote to a shared folder
SHARDS = "pytorch_model_fsdp_0"  # what Accelerate calls weights that FSDP spread, in a checkpoint


class TrainingFailed(RuntimeError):
    """A training cannot go on; its sentence says what to change."""


def accelerator_of(config: Training, can_spread: bool = False) -> Any:
    """The `Accelerator` of a run: over the processes that its launcher started, on GPUs or CPUs.

    Args:
        config: of the run.
        can_spread: whether FSDP may spread what is trained.

    Raises:
        ValueError: if the launcher asks for FSDP where it may not, or for its first version; if
            not all processes see `config.output`, since they could not continue from a checkpoint.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs

    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation,
        log_with="tensorboard",
        project_dir=config.output,
        fsdp_plugin=_sharding(can_spread),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
    )
    _check_output_is_shared(accelerator, config)
    return accelerator


def _sharding(can_spread: bool) -> Any:
    """How FSDP spreads a model, if the launcher asks for it.

    Weights stay float32 where they are gathered, and autocast makes bf16 of them as under DDP:
    Accelerate's own way makes bf16 of the waveform too, which has 8 bits then. Every process loads
    the weights to start from: Accelerate can send round parameters, but no buffers.
    """
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.utils import parse_flag_from_env
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return None
    if not can_spread:
        raise ValueError("FSDP is there for the voice encoder alone: leave --use_fsdp out")
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ValueError("FSDP is supported in its second version: add --fsdp_version 2")
    return FullyShardedDataParallelPlugin(
        mixed_precision_policy=MixedPrecisionPolicy(output_dtype=torch.float32),
        state_dict_type="SHARDED_STATE_DICT",
        cpu_ram_efficient_loading=False,
    )


def _check_output_is_shared(accelerator: Any, config: Training) -> None:
    from accelerate.utils import gather_object

    if accelerator.num_processes == 1:
        return
    mark = Path(config.output) / ".seen"
    if accelerator.is_main_process:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    accelerator.wait_for_everyone()
    deadline = time.monotonic() + SECONDS_TO_SEE
    while not (seen := mark.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    all_seen = gather_object([seen])
    if accelerator.is_main_process:
        mark.unlink()
    if not all(all_seen):
        raise ValueError(
            f"process {all_seen.index(False)} does not see the output of process 0: set output "
            f"({config.output}) to a folder that all machines share"
        )


@contextmanager
def one_goes_first(accelerator: Any) -> Iterator[None]:
    """Has one process decode what the others then read; or one on each machine, where each has a
    cache of its own.

    Who waits for it waits longer than for anything else.

    Raises:
        TrainingFailed: in those that wait, if the one before them fails.
    """
    if accelerator.num_processes == 1:
        yield
        return
    from torch import distributed

    waiting = distributed.new_group(timeout=LONGEST_PREPARATION)
    turn = 0 if accelerator.is_main_process else 1 if accelerator.is_local_main_process else 2
    for now in range(3):
        if now == turn:
            yield
        try:
            distributed.barrier(waiting)
        except RuntimeError as error:
            raise TrainingFailed("another process could not prepare, and says why") from error
    distributed.destroy_process_group(waiting)


def end_processes(accelerator: Any) -> None:
    """Parts the processes of a run. Nobody may hold the module that Accelerate has prepared then.

    If `DistributedDataParallel` outlives its process group, it ends the group's threads while it
    holds Python's lock, for which one of these may wait: the process would never end.
    """
    accelerator.free_memory()  # what it holds, and what only circles hold
    accelerator.end_training()


class Progress:
    """How many steps are done, and which validation was the best so far.

    Registered with Accelerate, so that a checkpoint knows.

    Attributes:
        step: steps that are done.
        best: the best validation's figure, None before the first.
        best_step: after which step that was.
        worse_since: how many validations came after it.
    """

    def __init__(self):
        self.step = 0
        self.best: float | None = None
        self.best_step: int | None = None
        self.worse_since = 0

    def validated(self, figure: float) -> bool:
        """Takes the figure of a validation; whether it is the best so far."""
        if self.best is not None and not figure > self.best:
            self.worse_since += 1
            return False
        self.best, self.best_step, self.worse_since = figure, self.step, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class StopRequest:
    """Turns Ctrl-C or a termination signal into "stop after this step", with a checkpoint.

    A signal may reach several processes at different steps: `agreed` makes them stop at the same.
    """

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

    def agreed(self, accelerator: Any) -> bool:
        """Whether any process was asked; all must call this at the same step."""
        if accelerator.num_processes == 1:
            return self.asked
        if self.asked:
            accelerator.set_trigger()
        self.asked = accelerator.check_trigger()
        return self.asked


class Meter:
    """How fast a training is, and what it waits for, since the last time somebody asked.

    Args:
        samples_per_step: of all processes.
    """

    def __init__(self, samples_per_step: int):
        self.samples_per_step = samples_per_step
        self._reset()

    def _reset(self) -> None:
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a step: its waiting too, but neither validation nor checkpoint."""
        start = time.perf_counter()
        yield
        self.steps, self.seconds = self.steps + 1, self.seconds + time.perf_counter() - start

    def waiting_for(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches; the time that each takes to come is waiting."""
        batches = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def read(self, device: torch.device) -> dict[str, float]:
        """Samples a second of all processes, share of the time spent waiting, memory; starts anew.

        Memory is the most that tensors took on a GPU, and what the process has on a CPU, GiB.
        """
        import psutil

        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(device)
        else:
            memory = psutil.Process().memory_info().rss
        seconds = max(self.seconds, 1e-9)
        figures = {
            "speed/samples_per_second": self.steps * self.samples_per_step / seconds,
            "speed/waiting_for_data": self.waited / seconds,
            "speed/memory_gib": memory / 2**30,
        }
        self._reset()
        return figures


@contextmanager
def failures_explained(config: Training, progress: Progress) -> Iterator[None]:
    """Turns what a configuration can mend into a sentence that says how.

    Raises:
        TrainingFailed: instead of an out-of-memory error, and of the `FloatingPointError` that
            `check_finite` raises; of data that cannot be read; and of a full disk.
    """
    try:
        yield
    except ConnectionError as error:
        said = str(error).splitlines()[-1].removeprefix("ConnectionError: ")  # of a worker, the end
        raise TrainingFailed(
            f"{said} in step {progress.step + 1}{_where_to_continue(config)}"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TrainingFailed(
            f"{config.output} is full ({first_line(error)}) in step {progress.step + 1}: make room "
            f"there{_where_to_continue(config)}"
        ) from error
    except FloatingPointError as error:
        raise TrainingFailed(
            f"{error} in step {progress.step + 1}: lower learning_rate "
            f"({config.learning_rate:g}) or max_grad_norm ({config.max_grad_norm:g}), or set "
            f'mixed_precision to "no"{_where_to_continue(config)}'
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(
            sign in str(error)
            for sign in ("can't allocate memory", "not enough memory", "signal: Killed")
        ):
            raise
        half = max(1, config.batch_size // 2)
        ways = f"set batch_size to {half} and gradient_accumulation to "
        ways += f"{2 * config.gradient_accumulation}"
        if hasattr(config, "gradient_checkpointing"):
            ways += ", shorten the clips, or set gradient_checkpointing to true"
        raise TrainingFailed(
            f"out of memory in step {progress.step + 1}: {ways}{_where_to_continue(config)}"
        ) from error


def check_finite(values: Any, what: str) -> None:
    """Raises FloatingPointError if any of the values is NaN or infinite, before it is learnt."""
    if not np.isfinite(values).all():
        raise FloatingPointError(f"{what} NaN or infinite")


def _where_to_continue(config: Training) -> str:
    found = list_checkpoints(config.output)
    return f"; the same command continues from {found[-1]}" if found else ""


def seed_of_step(seed: int, step: int, process: int = 0) -> int:
    """A seed for everything random in one step of one process; a pure function."""
    return int(torch.tensor([seed, step, process]).mul(torch.tensor([1_000_003, 1009, 1])).sum())


def list_checkpoints(output: str | Path) -> list[Path]:
    """The whole `checkpoint-{step}` folders of a run, the oldest first."""
    found = [path for path in Path(output).glob("checkpoint-*") if path.name[11:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[11:]))


def save_checkpoint(
    accelerator: Any, config: Training, step: int, best_step: int | None = None
) -> Path:
    """Writes `checkpoint-{step}` in one move, then removes the oldest beyond `keep_checkpoints`.

    That of the best step is never removed. All processes must call this.

    Raises:
        TrainingFailed: in all of them if one cannot write; the checkpoints before are as they were.
    """
    folder = Path(config.output) / f"checkpoint-{step}"
    work = folder.with_name(folder.name + ".part")
    if accelerator.is_main_process:
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed while it wrote
    accelerator.wait_for_everyone()
    if reason := _failure(accelerator, accelerator.save_state, str(work)):
        if accelerator.is_main_process:
            shutil.rmtree(work, ignore_errors=True)
        raise TrainingFailed(
            f"{folder} cannot be written ({reason}): make room there, or lower keep_checkpoints"
            f"{_where_to_continue(config)}"
        )
    if accelerator.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
        for old in list_checkpoints(config.output)[: -max(1, config.keep_checkpoints)]:
            if old.name != f"checkpoint-{best_step}":
                shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return folder


def resume(accelerator: Any, config: Training, checkpoint: str | Path | None = None) -> bool:
    """Loads a checkpoint, or the run's latest that can be read; False if there is none.

    All processes must call this, and load the same.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        TrainingFailed: if none can be read.
        ValueError: if FSDP wrote it and this run is not spread so, or the other way round.
    """
    from accelerate.utils import broadcast_object_list

    found = [Path(checkpoint)] if checkpoint else list_checkpoints(config.output)[::-1]
    found = broadcast_object_list([found])[0]
    for folder in found:
        if not folder.is_dir():
            raise FileNotFoundError(f"no checkpoint {folder}: give a checkpoint-{{step}} folder")
        _check_spread_alike(accelerator, folder)
        reason = _failure(accelerator, accelerator.load_state, str(folder))
        if not reason:
            return True
        accelerator.print(f"{folder} cannot be read ({reason})")
    if found:
        raise TrainingFailed(
            f"{found[-1]} cannot be read ({reason}), and there is none before it: train with the "
            "configuration that it was made with, or remove it to start anew"
        )
    return False


def _failure(accelerator: Any, action: Callable, folder: str) -> str:
    """Why an action on a folder failed in any process, told to all of them; "" if it did not."""
    from accelerate.utils import gather_object

    reason = ""
    try:
        action(folder)
    except _checkpoint_errors() as error:
        reason = _reason(error)
    return next(filter(None, gather_object([reason])), "")


def _checkpoint_errors() -> tuple[type[BaseException], ...]:
    """What reading or writing a checkpoint raises: whatever the bytes of a torn file say.

    What shards raise is no `Exception`, by its class.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    return Exception, CheckpointException


def _reason(error: BaseException) -> str:
    from torch.distributed.checkpoint.api import CheckpointException

    if isinstance(error, CheckpointException):  # of shards: what happened in each process
        error = next(iter(error.failures.values()))[0]
    return first_line(error)


def _check_spread_alike(accelerator: Any, folder: Path) -> None:
    from accelerate.utils import DistributedType

    sharded = accelerator.distributed_type == DistributedType.FSDP
    if (folder / SHARDS).is_dir() != sharded:
        way = "without --use_fsdp, as it was made" if sharded else "with --use_fsdp, as it was made"
        raise ValueError(f"{folder} cannot be continued from here: go on {way}, or export it")


def load_weights(module: torch.nn.Module, checkpoint: str | Path) -> Progress:
    """Reads a checkpoint's weights into a module, in one process, whoever wrote them.

    Returns:
        How far the training was.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        TrainingFailed: if it cannot be read.
    """
    from safetensors.torch import load_model
    from torch.distributed.checkpoint import FileSystemReader, load

    checkpoint, progress = Path(checkpoint), Progress()
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"no checkpoint {checkpoint}: give a checkpoint-{{step}} folder")
    try:
        if (checkpoint / SHARDS).is_dir():
            state = module.state_dict()  # its tensors are filled in place
            reader = FileSystemReader(checkpoint / SHARDS)
            load({"model": state}, storage_reader=reader, no_dist=True)
        else:
            load_model(module, checkpoint / "model.safetensors")
        file = checkpoint / "custom_checkpoint_0.pkl"
        progress.load_state_dict(torch.load(file, weights_only=True))
    except _checkpoint_errors() as error:
        raise TrainingFailed(
            f"{checkpoint} cannot be read ({_reason(error)}): export it with the configuration "
            "that it was made with, or export another one"
        ) from error
    return progress


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
    """Sets the learning rate of a step on every group, and returns that of most parts."""
    factor = learning_rate_factor(config, step)
    for group in optimizer.param_groups:
        group["lr"] = factor * (group.get("highest_lr") or config.learning_rate)
    return factor * config.learning_rate


def parameter_groups(
    module: torch.nn.Module, weight_decay: float, learning_rates: dict[str, float] | None = None
) -> list[dict]:
    """Weight decay on matrices and kernels, none on biases, norms and scores.

    Args:
        module: to train.
        weight_decay: of matrices and kernels.
        learning_rates: the highest of parts, by the beginning of their parameters' names; of
            several that fit, the longest counts. All others have the training's.

    Raises:
        ValueError: if a part has no parameter that is trained.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    rates = learning_rates or {}
    parts = {
        name: max((part for part in rates if begins(name, part)), key=len, default="")
        for name, _ in named
    }
    unused = sorted(set(rates) - set(parts.values()))
    if unused:
        raise ValueError(f"learning_rates: {unused[0]!r} names no part that is trained")
    groups = [
        {
            "params": [p for name, p in named if parts[name] == part and (p.ndim > 1) == matrices],
            "weight_decay": weight_decay if matrices else 0.0,
            "highest_lr": rates.get(part),
        }
        for part in sorted(set(parts.values()))
        for matrices in (True, False)
    ]
    return [group for group in groups if group["params"]]


def begins(name: str, part: str) -> bool:
    """Whether a parameter belongs to a part: "layers.10.bias" does not to "layers.1"."""
    return name == part or name.startswith(f"{part}.")


def optimizer_of(
    config: Training, module: torch.nn.Module, learning_rates: dict[str, float] | None = None
) -> torch.optim.Optimizer:
    """AdamW over a module's trained parameters, as the configuration and `learning_rates` say."""
    return torch.optim.AdamW(
        parameter_groups(module, config.weight_decay, learning_rates),
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_eps,
        fused=True,  # one pass over the weights: a third of the time on a CPU
    )


def take_step(
    accelerator: Any,
    config: Training,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    coming: Iterator[Any],
    loss_of: Callable[[torch.nn.Module, Any], dict[str, torch.Tensor]],
) -> tuple[dict[str, float], float]:
    """One step of a module: the gradients of its batches, together, and what they change.

    Args:
        accelerator: of the run.
        config: of the run.
        module: to train.
        optimizer: of its parameters.
        coming: the batches, of which a step takes the next `config.gradient_accumulation`.
        loss_of: takes the module and a batch; returns losses by name, of which "loss" is what is
            minimised.

    Returns:
        The last batch's losses, and the norm of the gradient.

    Raises:
        FloatingPointError: at a loss or a gradient that is not finite, which is not learnt.
    """
    for batch in itertools.islice(coming, config.gradient_accumulation):
        with accelerator.accumulate(module):
            losses = loss_of(module, batch)
            check_finite(losses["loss"].item(), "the loss is")  # its gradient can end the process
            accelerator.backward(losses["loss"])
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(module.parameters(), config.max_grad_norm)
                check_finite(float(norm), "the gradient is")
            optimizer.step()
            optimizer.zero_grad()
    return {name: value.item() for name, value in losses.items()}, float(norm)


def average_of(config: Training, module: torch.nn.Module) -> Any:
    """The averaged weights of a module in training, a diffusers `EMAModel`."""
    from diffusers.training_utils import EMAModel

    return EMAModel(module.parameters(), decay=config.ema_decay, use_ema_warmup=True, power=0.75)


def load_averaged(
    accelerator: Any, config: Training, module: torch.nn.Module, checkpoint: str | Path
) -> tuple[torch.nn.Module, Any]:
    """A module with a checkpoint's weights, and its averaged weights, a diffusers `EMAModel`.

    Raises:
        FileNotFoundError, TrainingFailed, ValueError: as `resume` does.
    """
    module, _ = accelerator.prepare(module, optimizer_of(config, module))
    average = average_of(config, module)
    accelerator.register_for_checkpointing(average, Progress())
    resume(accelerator, config, checkpoint)
    return accelerator.unwrap_model(module), average


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


def batches_to_go(progress: Progress, config: Training) -> range:
    """The numbers of the batches that are left; each step takes `gradient_accumulation`."""
    size = config.gradient_accumulation
    return range(progress.step * size, config.steps * size)


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
    parser = training_parser()
    options = parser.parse_args(arguments)
    with refusing(parser):
        config = configuration_of(options, kind)
        if options.export:
            export(config, *options.export)
        else:
            train(config)


def training_parser() -> argparse.ArgumentParser:
    """What every training may be told on its command line."""
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
    return parser


def configuration_of(options: argparse.Namespace, kind: type) -> Any:
    """The configuration that the options name, with what they put in its place."""
    given = {"dataset": options.dataset, "output": options.output}
    given = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(load_configuration(options.config, kind), **given)


@contextmanager
def refusing(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Ends the command with one sentence, where something was wrong that a user can change."""
    try:
        yield
    except (ValueError, FileNotFoundError, ConnectionError, ModuleNotFoundError) as error:
        parser.exit(2, f"{error}\n")
    except TrainingFailed as error:
        parser.exit(1, f"{error}\n")
