"""Speech-face pairs from Parquet, decoded once, so that a training step never waits for a decoder.

A data set is read by its columns (pair_id, audio, face, face_embedding, speaker_id, ...). Speech
goes to a memory-mapped int16 file, faces to a memory-mapped uint8 file; the order of batches is a
pure function of (seed, step), so that a resumed run continues exactly.
"""

import hashlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = ("train", "validation", "test")
SAMPLING_RATE = 16000  # Hz


@dataclass
class Pairs:
    """The pairs of one split, in memory or memory-mapped.

    Attributes:
        folder: where the decoded files lie.
        teacher: name of the recogniser whose embeddings these are.
        speakers: (N,) index of each pair's speaker, 0 to number of speakers - 1.
        speaker_names: their ids.
        pair_ids: (N,) names of the pairs, as the data set states them.
        embeddings: (N, D) float32, as the teacher gives them.
        genders: (N,) "female", "male" or "".
        ages: (N,) years, NaN where the data set states none.
        voice_sources: (N,) what comes before "/" in voice_id ("librispeech", "kokoro"), or "".
        traits: one dict a pair, empty where the data set states none.
        voice_parameters: likewise.
        faces: (N, 3, pixels, pixels) uint8.
        samples: (all samples,) int16, one recording after the other.
        ends: (N + 1,) where each recording starts, and where the last ends.
    """

    folder: Path
    teacher: str
    speakers: np.ndarray
    speaker_names: list[str]
    pair_ids: list[str]
    embeddings: np.ndarray
    genders: np.ndarray
    ages: np.ndarray
    voice_sources: np.ndarray
    traits: list[dict]
    voice_parameters: list[dict]
    faces: np.ndarray
    samples: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.speakers)

    def speech(self, index: int) -> np.ndarray:
        """The recording of a pair, (samples,) int16 at 16 kHz."""
        return self.samples[self.ends[index] : self.ends[index + 1]]

    def pairs_of_speakers(self) -> list[np.ndarray]:
        """For each speaker, the indices of their pairs."""
        order = np.argsort(self.speakers, kind="stable")
        starts = np.searchsorted(self.speakers[order], np.arange(1, len(self.speaker_names)))
        return np.split(order, starts)

    def speaker_embeddings(self) -> np.ndarray:
        """(speakers, D): mean of each speaker's face embeddings, as the teacher gives them."""
        return np.stack([self.embeddings[rows].mean(0) for rows in self.pairs_of_speakers()])


def load_pairs(dataset: str, split: str, cache: str, pixels: int = 64) -> Pairs:
    """Reads one split of a data set; the first time, decodes its speech and faces.

    Args:
        dataset: folder with `{split}-*.parquet` and a README.md, or a name on the Hub.
        split: "train", "validation" or "test".
        cache: folder for what is decoded.
        pixels: height and width of the faces.

    Raises:
        FileNotFoundError: if the folder has no such split.
        ValueError: if the data set names no teacher.
    """
    teacher = teacher_of(dataset)
    table = open_split(dataset, split, cache)
    name = fingerprint(table["pair_id"][:], pixels, table.info.dataset_size, 2)
    folder = Path(cache) / f"{name}-{split}-{pixels}"
    if not (folder / "complete").exists():
        _decode(table, folder, pixels)
    return pairs_of(
        table,
        teacher,
        folder,
        Pairs,
        faces=np.load(folder / "faces.npy", mmap_mode="r"),
        samples=np.load(folder / "samples.npy", mmap_mode="r"),
        ends=np.load(folder / "ends.npy"),
    )


def pairs_of(table: Any, teacher: str, folder: Path, kind: type, **stored: Any) -> Any:
    """The pairs of a table: what its small columns say, and what is stored beside them.

    Args:
        table: columns by name, `column_names` and a length.
        teacher: name of the recogniser.
        folder: where the decoded files lie.
        kind: `Pairs`, or a class that adds to it.
        stored: its further attributes.
    """
    names, speakers = np.unique(np.asarray(table["speaker_id"]), return_inverse=True)
    return kind(
        folder=folder,
        teacher=teacher,
        speakers=speakers,
        speaker_names=names.tolist(),
        pair_ids=column_of(table, "pair_id", ""),
        embeddings=np.asarray(table["face_embedding"], np.float32),
        genders=np.asarray(column_of(table, "gender", "")),
        ages=np.asarray(column_of(table, "age", np.nan), np.float64),
        voice_sources=np.asarray([v.split("/")[0] for v in column_of(table, "voice_id", "")]),
        traits=column_of(table, "traits", {}),
        voice_parameters=column_of(table, "voice_parameters", {}),
        **stored,
    )


def column_of(table: Any, name: str, otherwise: Any) -> list:
    """A column of a split, with `otherwise` where a row or the whole data set states nothing."""
    values = table[name] if name in table.column_names else [None] * len(table)
    return [otherwise if value is None else value for value in values]


def centred(of: Pairs, by: Pairs) -> np.ndarray:
    """Embeddings (N, D) of one split, centred by the mean over another (the training split)."""
    return of.embeddings - by.embeddings.mean(0)


def teacher_of(dataset: str) -> str:
    """The teacher's name, from the metadata of the data set's card.

    Raises:
        FileNotFoundError: if there is no such data set.
        ValueError: if there is no card, or it names no teacher.
    """
    from huggingface_hub import DatasetCard
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    path = Path(dataset)
    if path.is_dir() and not (path / "README.md").is_file():
        raise ValueError(f"{dataset} has no README.md that names its teacher: build it again")
    try:
        card = DatasetCard.load(path / "README.md" if path.is_dir() else dataset)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(
            f"{dataset} is neither a folder nor a data set that the Hub shows you: build it first, "
            "see training/README.md, or log in (`hf auth login`) if it is private"
        ) from error
    name = (card.data.to_dict().get("speech2face") or {}).get("face_recogniser")
    if not name:
        raise ValueError(
            f"the card of {dataset} names no teacher (speech2face: face_recogniser): build it again"
        )
    return name


def check_same_teacher(**teachers: str) -> None:
    """Refuses parts that were made for different teachers.

    Args:
        teachers: what the part is called, and the teacher that it names.

    Raises:
        ValueError: if they name more than one.
    """
    if len(set(teachers.values())) > 1:
        named = ", ".join(f"{part.replace('_', ' ')}: {name}" for part, name in teachers.items())
        raise ValueError(f"these parts have different face recognisers and cannot meet ({named})")


def speakers_of_batch(seed: int, batch: int, batch_size: int, num_speakers: int) -> np.ndarray:
    """Which speakers a batch holds: every speaker once an epoch, in an order of that epoch.

    Args:
        seed: of the run.
        batch: number of the batch, from 0.
        batch_size: pairs a batch.
        num_speakers: in the split.

    Returns:
        (batch_size,) indices of speakers; a pure function of the arguments.
    """
    positions = np.arange(batch * batch_size, (batch + 1) * batch_size)
    epochs = positions // num_speakers
    orders = {
        epoch: np.random.default_rng([seed, 1, epoch]).permutation(num_speakers)
        for epoch in np.unique(epochs).tolist()
    }
    return np.asarray(
        [orders[e][p % num_speakers] for e, p in zip(epochs.tolist(), positions, strict=True)]
    )


def rows_of_batch(seed: int, batch: int, batch_size: int, num_rows: int) -> np.ndarray:
    """Which pairs a batch holds where speakers do not matter; as `speakers_of_batch`."""
    return speakers_of_batch(seed, batch, batch_size, num_rows)


def open_split(dataset: str, split: str, cache: str) -> Any:
    """One split as a `datasets.Dataset` whose speech and faces are still encoded.

    Args:
        dataset: as for `load_pairs`.
        split: "train", "validation" or "test".
        cache: folder for what `datasets` keeps.

    Raises:
        FileNotFoundError: if the folder has no such split.
    """
    from datasets import Audio, Features, Image, load_dataset

    if Path(dataset).is_dir():
        files = parquet_files(dataset, split)
        table = load_dataset(
            "parquet", data_files={split: files}, split=split, cache_dir=f"{cache}/parquet"
        )
    else:
        table = load_dataset(dataset, split=split)
    stored = {
        "audio": Audio(sampling_rate=SAMPLING_RATE, decode=False),
        "face": Image(decode=False),
        "normalized_face": Image(decode=False),
    }
    present = {name: kind for name, kind in stored.items() if name in table.column_names}
    return table.cast(Features({**table.features, **present}))


def parquet_files(folder: str, split: str) -> list[str]:
    """The files of one split in a folder, in their order.

    Raises:
        FileNotFoundError: if there is none.
    """
    files = sorted(str(path) for path in Path(folder).glob(f"{split}-*.parquet"))
    if not files:
        raise FileNotFoundError(f"no {split}-*.parquet in {folder}: build the data set first")
    return files


def read_speech(encoded: bytes, pair_id: str) -> np.ndarray:
    """Decodes a recording to (samples,) int16.

    Raises:
        ValueError: if it is not mono speech at 16 kHz.
    """
    import soundfile

    speech, rate = soundfile.read(io.BytesIO(encoded), dtype="int16")
    if rate != SAMPLING_RATE or speech.ndim != 1:
        raise ValueError(
            f"expected mono speech at {SAMPLING_RATE} Hz in pair {pair_id}, got {rate} Hz and "
            f"{1 if speech.ndim == 1 else speech.shape[1]} channels: build the data set again"
        )
    return speech


def fingerprint(*content: Any) -> str:
    """A short name of what JSON can write: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _decode(table: Any, folder: Path, pixels: int) -> None:
    """Writes faces.npy, samples.npy and ends.npy; the folder is there only when it is whole.

    Neither speech nor faces are ever in memory as a whole.
    """
    import soundfile
    from PIL import Image
    from tqdm import tqdm

    work = folder.with_name(folder.name + ".part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    faces = np.lib.format.open_memmap(
        work / "faces.npy", "w+", np.uint8, (len(table), 3, pixels, pixels)
    )
    lengths = [
        soundfile.info(io.BytesIO(audio["bytes"])).frames
        for audio in tqdm(table.select_columns("audio")["audio"], desc="reading lengths")
    ]
    ends = np.cumsum([0, *lengths])
    samples = np.lib.format.open_memmap(work / "samples.npy", "w+", np.int16, (int(ends[-1]),))
    for index, row in enumerate(tqdm(table, desc="decoding speech and faces", unit="pair")):
        speech = read_speech(row["audio"]["bytes"], row["pair_id"])
        samples[ends[index] : ends[index + 1]] = speech
        face = Image.open(io.BytesIO(row["face"]["bytes"])).convert("RGB")
        # BOX averages areas: no ringing, and each pixel of the source counts once.
        method = Image.Resampling.BOX if pixels <= face.width else Image.Resampling.BICUBIC
        faces[index] = np.asarray(face.resize((pixels, pixels), method)).transpose(2, 0, 1)
    faces.flush()
    samples.flush()
    np.save(work / "ends.npy", ends)
    (work / "complete").touch()
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
