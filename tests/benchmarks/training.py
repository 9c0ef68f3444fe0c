"""This project's training loop beside a plain `transformers.Trainer`.

`python -m tests.benchmarks.training [CONFIG.yaml] [--dataset D] [--steps N] [--rounds N]`: the same
model, batches and precision, in one run, in turns and each of them first in every other round: on a
shared machine a run differs from the next by a tenth. Also the share of the time that the loop
waits for data, and how much of the machine's matrix-product peak a step uses.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.configuration import VoiceEncoderTraining, load_configuration
from training.measures.resampling import Figure, SpeakerBootstrap

PEAK_SIZE = 2048  # rows and columns of the matrices whose product is the peak
SHARE_TO_WARM_UP = 3  # the first third of the steps is not timed


def measure_loop(config: VoiceEncoderTraining) -> tuple[np.ndarray, float]:
    """Seconds of each step of the project's loop, and the share of them that it waits for data."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from training.train_voice_encoder import train

    train(config, stop_at_step=config.steps)
    events = EventAccumulator(str(next(Path(config.output).rglob("events.out.tfevents.*"))))
    events.Reload()
    timed = slice(config.steps // SHARE_TO_WARM_UP, None)
    speed = np.asarray([e.value for e in events.Scalars("speed/samples_per_second")[timed]])
    waiting = [e.value for e in events.Scalars("speed/waiting_for_data")[timed]]
    return config.batch_size * config.gradient_accumulation / speed, float(np.mean(waiting))


def measure_trainer(config: VoiceEncoderTraining) -> np.ndarray:
    """Seconds of each step of `transformers.Trainer` with the same student, batches and losses."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from training.train_voice_encoder import (
        build_student,
        load_data,
        load_references,
        weighted_losses,
    )
    from training.voice_batches import NumberedBatches, VoiceBatches

    pairs, _ = load_data(config)
    references = load_references(config, pairs, torch.device("cpu"))

    class WithLoss(torch.nn.Module):
        """What a Trainer wants of a model: a loss from a batch."""

        def __init__(self):
            super().__init__()
            self.student = build_student(config, pairs, None)

        def forward(self, **batch):
            predicted, heads = self.student(batch["input_values"])
            parts = weighted_losses(config, predicted, heads, batch, references)
            return {"loss": sum(parts.values())}

    ends = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_, **__):
            ends.append(time.perf_counter())

        on_step_end = on_train_begin

    arguments = TrainingArguments(
        output_dir=config.output,
        max_steps=config.steps,
        per_device_train_batch_size=1,  # an item is a whole batch
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        max_grad_norm=config.max_grad_norm,
        bf16=config.mixed_precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=config.workers,
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        logging_steps=config.log_every,
        disable_tqdm=True,
    )
    batches = VoiceBatches(config, pairs, None)
    Trainer(
        WithLoss(),
        arguments,
        data_collator=lambda items: items[0],
        train_dataset=NumberedBatches(batches, config.steps * config.gradient_accumulation),
        callbacks=[Clock()],
    ).train()
    return np.diff(ends)[config.steps // SHARE_TO_WARM_UP :]


def ratio_of_speeds(ours: np.ndarray, theirs: np.ndarray) -> Figure:
    """How much faster one is than the other; for its interval, rounds are drawn again.

    Args:
        ours: (rounds, steps) s.
        theirs: (rounds, steps) s.
    """
    rounds = SpeakerBootstrap(np.repeat(np.arange(len(ours)), ours.shape[1]))
    taken, rival = (rounds.median(seconds.ravel()) for seconds in (ours, theirs))
    return rounds.figure(rival.value / taken.value, rival.replicates / taken.replicates)


def operations_of_step(config: VoiceEncoderTraining) -> int:
    """Floating-point operations of a step's matrix products and convolutions, both ways."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from training.train_voice_encoder import build_student, load_data
    from training.voice_batches import VoiceBatches

    pairs, _ = load_data(config)
    student = build_student(config, pairs, None)
    batch = VoiceBatches(config, pairs, None)(0)
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        student(batch["input_values"])[0].square().sum().backward()
    return counter.get_total_flops() * config.gradient_accumulation


def peak_operations(precision: str) -> float:
    """Operations a second of one large matrix product, the best of several."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(PEAK_SIZE, PEAK_SIZE, device=device, dtype=kind)

    def seconds() -> float:
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for the device
        return time.perf_counter() - start

    return 2 * PEAK_SIZE**3 / min(seconds() for _ in range(8))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default="training/configs/demo_voice_encoder.yaml")
    parser.add_argument("--dataset", help="default: a small one of tones, made for this")
    parser.add_argument("--steps", type=int, default=15, help="of each, each time")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--workers", type=int, default=1, help="that make batches ahead")
    options = parser.parse_args(arguments)

    import torch

    config = load_configuration(options.config, VoiceEncoderTraining)
    measured: dict[str, list] = {"loop": [], "trainer": []}
    with tempfile.TemporaryDirectory() as folder:
        dataset = options.dataset or str(_tones(Path(folder)))
        config = dataclasses.replace(
            config,
            dataset=dataset,
            cache=f"{folder}/cache",
            steps=options.steps,
            log_every=1,
            validate_every=options.steps + 1,
            checkpoint_every=options.steps + 1,
            workers=options.workers,
            voice_teacher=None,
            losses=dataclasses.replace(config.losses, distillation=0.0),
        )
        for number in range(options.rounds):
            turns = [("loop", measure_loop), ("trainer", measure_trainer)]
            for name, measure in turns if number % 2 else turns[::-1]:
                run = dataclasses.replace(config, output=f"{folder}/{name}-{number}")
                measured[name].append(measure(run))
        operations = operations_of_step(config)
    ours = np.stack([seconds for seconds, _ in measured["loop"]])  # (rounds, steps)
    theirs = np.stack(measured["trainer"])
    waiting = np.median([waited for _, waited in measured["loop"]])
    ratio = ratio_of_speeds(ours, theirs)
    interval = "[{:.3f}, {:.3f}]".format(*ratio.interval) if ratio.interval else ""  # of 3 rounds
    used = operations / np.median(ours) / peak_operations(config.mixed_precision)
    print(f"{Path(options.config).stem}, {torch.get_num_threads()} threads, ", end="")
    print(f"medians of {options.rounds} rounds of {options.steps} steps, in turns")
    print(f"{'this loop':32} {1 / np.median(ours):8.3f} steps/s")
    print(f"{'transformers.Trainer':32} {1 / np.median(theirs):8.3f} steps/s")
    print(f"{'this loop / Trainer':32} {ratio.value:8.3f} {interval}")
    print(f"{'waiting for data':32} {100 * waiting:8.1f} %")
    print(f"{'a step':32} {operations / 1e9:8.1f} GFLOP")
    print(f"{'of the matrix-product peak':32} {100 * used:8.1f} %")


def _tones(folder: Path) -> Path:
    from tests.training_cast import write_cast

    return write_cast(folder / "tones", speakers=64)


if __name__ == "__main__":
    main()
