"""Training batches of the voice encoder, each a pure function of (seed, its number).

Letters: B batch, T samples, D size of the face embedding, V of the voice teacher's, P
parameters of a voice.
"""

import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from training.augmentation import augment, crop
from training.checkpoints import seed_of_step
from training.configuration import VoiceEncoderTraining
from training.data import SAMPLING_RATE, Pairs, centred, speakers_of_batch
from training.expected_faces import ExpectedFaces
from training.stated_voices import StatedVoices
from training.streaming import StreamedPairs, StreamOrder


class VoiceBatches:
    """What is heard, and whose face is to be predicted from it.

    A speaker's recording and face are drawn independently of each other: what one picture shows by
    chance (light, expression) cannot be learnt with one recording. Every speaker comes once an
    epoch; of streamed pairs, every recording does.

    Args:
        config: of the run.
        pairs: the training split.
        voices: (N, V) what the voice teacher says of each recording, or None.
        process: number of this process.
        processes: how many share the batches out.
    """

    def __init__(
        self,
        config: VoiceEncoderTraining,
        pairs: Pairs,
        voices: np.ndarray | None,
        process: int = 0,
        processes: int = 1,
    ):
        self.config, self.pairs, self.voices = config, pairs, voices
        self.process, self.processes = process, processes
        self.rows = pairs.pairs_of_speakers()
        self.centred = centred(pairs, pairs)
        expects = config.targets == "expected_face"
        self.stated = StatedVoices(pairs) if expects or config.losses.voice_parameters else None
        self.expected = ExpectedFaces(pairs, self.stated) if expects else None
        self.readers = max(1, config.workers)  # of this process, each with its own row groups
        self.order = None
        if isinstance(pairs, StreamedPairs):
            self.order = StreamOrder(config.seed, pairs, processes * self.readers)

    def __call__(self, number: int) -> dict[str, Tensor]:
        """Batch `number`: input_values (B, T), target (B, D), speakers (B,), and what losses want.

        That is voice (B, V) and voice_parameters (B, P).
        """
        config, pairs = self.config, self.pairs
        heard, seen, number, rng = self._choose(number)
        most = config.augmentation.speed if config.augmentation else 0.0
        speeds = 1 + rng.uniform(-most, most, len(heard))
        samples = round(config.crop_seconds * SAMPLING_RATE)
        speech = torch.from_numpy(
            np.stack(
                [
                    crop(pairs.speech(row), samples, rng, speed)
                    for row, speed in zip(heard, speeds, strict=True)
                ]
            )
        )  # (B, T)
        target = self.centred[seen] if self.expected is None else self.expected(heard, speeds)
        if config.augmentation:
            generator = torch.Generator().manual_seed(seed_of_step(config.seed + 1, number))
            speech = augment(speech, config.augmentation, generator, SAMPLING_RATE)
        batch = {
            "input_values": normalise(speech),
            "target": torch.from_numpy(target),
            "speakers": torch.from_numpy(pairs.speakers[heard]),
        }
        if self.voices is not None:
            batch["voice"] = torch.from_numpy(self.voices[heard])
        if config.losses.voice_parameters:
            batch["voice_parameters"] = torch.from_numpy(self.stated.standardised(heard, speeds))
        return batch

    def _choose(self, number: int) -> tuple[np.ndarray, np.ndarray, int, np.random.Generator]:
        """Rows to hear and to see, (B,) each; the batch's number among all processes', and rng."""
        size, overall = self.config.batch_size, number * self.processes + self.process
        rng = np.random.default_rng([self.config.seed, 2, overall])
        if self.order is None:
            speakers = speakers_of_batch(self.config.seed, overall, size, len(self.rows))
            heard = np.asarray([rng.choice(self.rows[speaker]) for speaker in speakers])
        else:
            lane = self.process + self.processes * (number % self.readers)
            heard = self.order.rows(lane, number // self.readers, size)
            speakers = self.pairs.speakers[heard]
        seen = np.asarray([rng.choice(self.rows[speaker]) for speaker in speakers])
        return heard, seen, overall, rng


def in_order(
    batches: VoiceBatches, numbers: range, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Batches on a device, made ahead by `config.workers` processes.

    Args:
        batches: makes each.
        numbers: of the batches.
        device: where they are needed.
    """
    workers = batches.config.workers
    loader = torch.utils.data.DataLoader(
        NumberedBatches(batches, numbers.stop),
        batch_size=None,  # each item is a whole batch
        sampler=numbers,
        num_workers=workers,
        worker_init_fn=_leave_signals,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(0),  # the global one belongs to the steps
    )
    for batch in loader:
        yield {name: value.to(device, non_blocking=True) for name, value in batch.items()}


class NumberedBatches(torch.utils.data.Dataset):
    """Batches as items of a data set, so that a `DataLoader` can have them made ahead."""

    def __init__(self, batches: VoiceBatches, count: int):
        self.batches, self.count = batches, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return self.batches(number)


def _leave_signals(_: int) -> None:
    """In a worker: Ctrl-C is the training's, which ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def normalise(speech: Tensor) -> Tensor:
    """Zero mean and unit variance a row, as `Speech2FaceFeatureExtractor` gives it, (B, T)."""
    speech = speech - speech.mean(-1, keepdim=True)
    return speech / (speech.var(-1, keepdim=True, correction=0) + 1e-7).sqrt()
