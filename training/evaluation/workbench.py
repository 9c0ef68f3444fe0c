"""What checkpoints and folders of faces answer to the pairs of a data set.

Letters: N pairs, V speakers, n faces a speaker, D size of the embedding, S side of an image.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts.faces import FaceRecogniser
from training.evaluation import controls, generation, systems
from training.evaluation.instruments import Judge, Readings, read_faces
from training.evaluation.store import Store
from training.evaluation.subjects import Subjects, Voices, load_faces_folder
from training.evaluation.systems import System, faces_system
from training.evaluation.tables import Labels


@dataclass
class Checkpoint:
    """A checkpoint, and what it predicted.

    Attributes:
        name: what the tables call it; "" where it is the only one.
        pipeline: a `Speech2FacePipeline`.
        fingerprint: of its weights and settings.
        source: what it is called where it stands alone.
        predictions: seconds of speech to (N, D), centred.
    """

    name: str
    pipeline: Any
    fingerprint: str
    source: str = ""
    predictions: dict[float, np.ndarray] = field(default_factory=dict)

    @property
    def mean(self) -> np.ndarray:
        """(D,): the mean face of its training, by which its embeddings are centred."""
        return self.pipeline.voice_encoder.face_embedding_mean.float().numpy()

    @functools.cached_property
    def decoders(self) -> dict[str, generation.Decoder]:
        """Every decoder that it has, by name."""
        return generation.decoders_of(self.pipeline)

    def calls(self, system: str) -> str:
        """The name of one of its systems."""
        return f"{self.name}: {system}" if self.name else system


@dataclass
class Workbench:
    """The pairs, the instruments, and where what is costly is kept.

    Attributes:
        subjects: the pairs.
        recogniser: the teacher.
        judge: of gender and age.
        cache: where what is costly is kept.
        seconds: lengths of speech.
        seed: of draws and of the decoder's noise.
        images: name of a system to its faces (N, S, S, 3), for the pictures of a report.
        missed: what a stand-in was measured for: name to a share of the samples.
    """

    subjects: Subjects
    recogniser: FaceRecogniser
    judge: Judge
    cache: Path
    seconds: list[float]
    seed: int
    images: dict[str, np.ndarray] = field(default_factory=dict)
    missed: dict[str, float] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store(self.cache / "evaluation")

    def read(self, images: np.ndarray, key: str) -> Readings:
        """What the instruments read from aligned images (N, S, S, 3) uint8."""
        return read_faces(images, self.recogniser, self.judge, self.store, key)

    def faces(self, name: str, role: str, images: np.ndarray, **more: Any) -> System:
        """Aligned images as a system; they are kept for pictures."""
        self.images[name] = images
        system = faces_system(name, role, self.read(images, name), **more)
        self.missed[f"{name}: the judge's detector found no face"] = 1 - float(
            system.readings.judge_found.mean()
        )
        return system

    @functools.cached_property
    def original(self) -> System:
        """The real faces; their embeddings are those that the data set states."""
        subjects = self.subjects
        system = self.faces("original", "ceiling", subjects.faces)
        self.missed["original: no face found to align"] = 1 - float(subjects.face_found.mean())
        system.raw, system.centred = subjects.embeddings, subjects.embeddings - subjects.centre
        return system

    def listen(self, checkpoint: Checkpoint) -> list[System]:
        """A checkpoint's predictions at each length of speech."""
        found = []
        for seconds in self.seconds:
            predicted = self.predict(checkpoint, self.subjects, seconds)
            checkpoint.predictions[seconds] = predicted
            name = checkpoint.calls(f"voice, {seconds:g} s")
            raw = predicted + checkpoint.mean
            found.append(
                System(name, "system", "embeddings", raw, predicted, checkpoint.name, seconds)
            )
        return found

    def predict(
        self,
        checkpoint: Checkpoint,
        recordings: Subjects | Voices,
        seconds: float | None = None,
    ) -> np.ndarray:
        """Centred predictions (N, D) of recordings; without `seconds` the longest is heard."""
        seconds = max(self.seconds) if seconds is None else seconds
        predicted, heard = generation.predict(checkpoint.pipeline, recordings, seconds, self.store)
        name = checkpoint.calls(f"{recordings.name}, {seconds:g} s")
        self.missed[f"{name}: no speech heard"] = 1 - float(heard.mean())
        return predicted

    def shuffle(self, system: System, labels: Labels) -> list[System]:
        """The same predictions for the wrong speakers: of anybody, and of the same gender."""
        speakers = self.subjects.speakers
        return [
            controls.shuffled(system, speakers, within, self.seed)
            for within in (None, labels.genders)
        ]

    def decode(self, checkpoint: Checkpoint) -> Iterator[System]:
        """A checkpoint's faces by each of its decoders: from voices, and from true embeddings."""
        for decoder in checkpoint.decoders.values():
            name = checkpoint.calls(f"{decoder.name} from true embedding")
            # A decoder knows faces around the mean of its training: foreign ones are moved there.
            conditions = self.subjects.embeddings - self.subjects.centre
            images = self._decode(checkpoint, decoder, conditions, self.subjects.pair_ids, name)
            made = {"family": checkpoint.name, "decoder": decoder.name}
            from_true = self.faces(name, "ceiling", images, **made, conditions=conditions)
            for seconds in self.seconds:
                name = checkpoint.calls(f"{decoder.name} from voice, {seconds:g} s")
                heard = checkpoint.predictions[seconds]
                conditions = self._conditions(checkpoint, decoder, heard, 1)[:, 0]
                images = self._decode(checkpoint, decoder, conditions, self.subjects.pair_ids, name)
                yield self.faces(
                    name,
                    "system",
                    images,
                    **made,
                    seconds=seconds,
                    conditions=conditions,
                    from_true=from_true,
                )
            yield from_true

    def look(self, folder: str, true_folder: str | None = None) -> Iterator[System]:
        """Another system's faces, and those that it makes of the true faces, its ceiling."""
        family, from_true = Path(folder).resolve().name, None
        if true_folder is not None:
            from_true = self._folder(true_folder, family, "ceiling")
        yield self._folder(folder, family, "system", from_true)
        if from_true is not None:
            yield from_true

    def _folder(
        self, folder: str, family: str, role: str, from_true: System | None = None
    ) -> System:
        name = f"{Path(folder).resolve().name}: faces"
        images, found = load_faces_folder(folder, self.subjects, self.cache)
        self.missed[f"{name}: no face found to align"] = 1 - float(found.mean())
        return self.faces(name, role, images, family=family, from_true=from_true)

    def imagine(
        self,
        checkpoint: Checkpoint,
        decoder: generation.Decoder,
        recordings: Subjects | Voices,
        rows: np.ndarray,
        count: int,
    ) -> Readings:
        """Faces of some recordings.

        Args:
            checkpoint: that listens.
            decoder: one of the checkpoint's.
            recordings: of the pairs, or without faces.
            rows: (V,) which recordings.
            count: n, faces of each; a decoder that does not draw makes one.

        Returns:
            What is read from the images, V n rows, those of one recording together.
        """
        predicted = self.predict(checkpoint, recordings)
        ids = recordings.names if isinstance(recordings, Voices) else recordings.pair_ids
        names = [ids[row] for row in rows.tolist()]
        conditions = self._conditions(checkpoint, decoder, predicted[rows], count, names)
        count = conditions.shape[1]
        key = checkpoint.calls(f"{decoder.name} from {recordings.name}, {count} each")
        each = [f"{name}/{i}" for name in names for i in range(count)]
        flat = conditions.reshape(-1, conditions.shape[-1])  # (V n, D)
        return self.read(self._decode(checkpoint, decoder, flat, each, key), key)

    def _conditions(
        self,
        checkpoint: Checkpoint,
        decoder: generation.Decoder,
        predicted: np.ndarray,
        count: int,
        names: list[str] | None = None,
    ) -> np.ndarray:
        """What a decoder is given of predictions (rows, D), centred.

        Draws (rows, count, D), each recording's from a seed of its own; or, where the decoder does
        not draw, the predictions (rows, 1, D).
        """
        if not decoder.draws:
            return predicted[:, None]
        seeds = generation.seeds_of(self.seed, names or self.subjects.pair_ids, "draw")
        return generation.draw(checkpoint.pipeline, predicted, seeds, count) - checkpoint.mean

    def _decode(
        self,
        checkpoint: Checkpoint,
        decoder: generation.Decoder,
        conditions: np.ndarray,
        names: list[str],
        key: str,
    ) -> np.ndarray:
        """Images (rows, S, S, 3) uint8 of centred embeddings, each from a seed of its own."""
        seeds = generation.seeds_of(self.seed, names, "decode")
        raw = conditions + checkpoint.mean
        return generation.decode(decoder, raw, seeds, self.store, key)


def embedding_systems(
    bench: Workbench, checkpoints: list[Checkpoint], labels: Labels
) -> list[System]:
    """Floors, what each checkpoint predicts, that shuffled, and ceilings."""
    subjects = bench.subjects
    found = systems.embedding_floors(subjects, labels.genders, labels.age_groups)
    for checkpoint in checkpoints:
        heard = bench.listen(checkpoint)
        found += [*heard, *bench.shuffle(heard[-1], labels)]
    return found + systems.embedding_ceilings(subjects)


def face_systems(
    bench: Workbench,
    checkpoints: list[Checkpoint],
    folders: list[tuple[str, str | None]],
    labels: Labels,
) -> list[System]:
    """Floors, what each checkpoint's decoders make, and the faces in folders."""
    found = systems.face_floors(bench.subjects, labels.genders, labels.age_groups, bench.read)
    for checkpoint in checkpoints:
        found += bench.decode(checkpoint)
    for folder, true_folder in folders:
        found += bench.look(folder, true_folder)
    return found
