"""From what came of single videos to a data set: who is who, the splits, what was refused."""

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset_scripts.data_card import CARD_FILE, rows, split_files
from dataset_scripts.identities import (
    FaceTrack,
    IdentityConfig,
    Person,
    assign_identities,
)
from dataset_scripts.near_duplicates import find_duplicates
from dataset_scripts.records import Refusal
from dataset_scripts.splits import SPLITS
from dataset_scripts.units import Unit, read_pairs, read_unit

REMOVED_FILE = "removed.json"
SAME_AS = "the same recording as "  # begins what is said of a duplicate
# What a source says of the person whom it names, and of nobody else in the video.
STATED = ("gender", "age", "language", "traits", "voice_parameters", "voice_id")


@dataclass
class Removed:
    """Who was taken out on request: how many, and their names' hashes, but not their names.

    Attributes:
        persons, videos, pairs: how many.
        hashes: SHA-256 of the name of each person and video asked for, and of each pair's id.
    """

    persons: int = 0
    videos: int = 0
    pairs: int = 0
    hashes: set[str] = field(default_factory=set)

    def __contains__(self, name: str | None) -> bool:
        return bool(name) and bool(self.hashes) and _hash(name) in self.hashes

    def add(self, names: Iterable[str]) -> None:
        """Remembers names."""
        self.hashes |= {_hash(name) for name in names}

    @classmethod
    def read(cls, *folders: Path) -> "Removed":
        """What data sets remember, together; nothing where there is no file."""
        together = cls()
        for folder in folders:
            if (folder / REMOVED_FILE).is_file():
                kept = json.loads((folder / REMOVED_FILE).read_text(encoding="utf-8"))
                if together.hashes >= set(kept["sha256"]):
                    continue  # a killed run had written down already what the other one remembers
                together.persons += kept["persons"]
                together.videos += kept["videos"]
                together.pairs += kept["pairs"]
                together.hashes |= set(kept["sha256"])
        return together

    def write(self, folder: Path) -> None:
        """Writes it, if anybody was taken out."""
        if self.hashes:
            content = {**self.counts(), "sha256": sorted(self.hashes)}
            text = json.dumps(content, indent=1) + "\n"
            (folder / REMOVED_FILE).write_text(text, encoding="utf-8")

    def counts(self) -> dict[str, int]:
        """How many, for the card."""
        return {"persons": self.persons, "videos": self.videos, "pairs": self.pairs}


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass
class Plan:
    """Where every pair goes.

    Attributes:
        units: one a video, in the order of the data set.
        speaker_of: (video_id, track) -> speaker_id; nothing for faces that are left out.
        source_of: (video_id, track) -> "label" or "cluster".
        split_of: speaker_id -> split.
        indices: split -> which units have pairs for it.
        duplicates: video_id -> video_id of the same recording, which is kept.
        refusals: video_id -> faces that are not the person whom the source names.
        removed: who stays out.
        silent: videos of which nothing is said, since all who speak in them stay out.
        seconds: of video that were read.
        cluster_threshold: the distance by which faces were told apart.
    """

    units: Sequence[Unit]
    speaker_of: dict[tuple[str, int], str]
    source_of: dict[tuple[str, int], str]
    split_of: dict[str, str]
    indices: dict[str, list[int]]
    duplicates: dict[str, str]
    refusals: dict[str, list[Refusal]]
    removed: Removed = field(default_factory=Removed)
    silent: set[str] = field(default_factory=set)
    seconds: float = 0.0
    cluster_threshold: float | None = None

    def pairs(self, split: str) -> Iterator[dict]:
        """Yields the rows of a split, a video after the other."""
        for index in self.indices[split]:
            names_a_person = self.units[index].video.speaker_id is not None
            for row in read_pairs(self.units[index].file):
                face = (row["video_id"], row.pop("track"))
                del row["track_embedding"]
                speaker = self.speaker_of.get(face)
                if self.split_of.get(speaker) == split and row["pair_id"] not in self.removed:
                    source = self.source_of[face]
                    if names_a_person and source == "cluster":
                        row.update(dict.fromkeys(STATED))  # it was said of somebody else
                    yield {**row, "speaker_id": speaker, "speaker_source": source}

    def refused(self) -> Iterator[tuple[Refusal, str | None]]:
        """Yields every refusal, with the person whom the source names for that video."""
        for unit in self.units:
            video = unit.video
            if video.video_id in self.silent:
                continue
            if video.video_id in self.duplicates:
                kept = self.duplicates[video.video_id]
                found = [Refusal(video.video_id, None, None, "duplicate", SAME_AS + kept)]
            else:
                found = read_unit(unit.file).refusals + self.refusals.get(video.video_id, [])
            for refusal in found:
                yield refusal, video.speaker_id


def make_plan(
    units: Sequence[Unit],
    identities: IdentityConfig,
    known: Sequence[Person] = (),
    ignore_labels: bool = False,
    removed: Removed | None = None,
) -> Plan:
    """Says who is who, what is there twice, and in which split each person is.

    Args:
        units: all done.
        identities: thresholds and the seed of the splits.
        known: persons of an earlier data set, who keep their names and splits.
        ignore_labels: whether persons are found by their faces even where the source names them.
        removed: persons, videos and pairs that stay out.
    """
    removed = removed or Removed()
    tracks, fingerprints, silent, seconds = {}, {}, set(), 0.0
    for unit in units:
        extraction = read_unit(unit.file, ["pair_id", "track", "track_embedding"])
        video = unit.video
        seconds += extraction.duration_s
        if extraction.pairs:  # a damaged copy that gave nothing does not stand for a good one
            fingerprints[video.video_id] = np.array(extraction.fingerprint, np.uint64)
        label = None if ignore_labels else video.speaker_id
        faces = defaultdict(list)
        gone = [pair["pair_id"] in removed for pair in extraction.pairs]
        if gone and all(gone):
            silent.add(video.video_id)
        for pair in extraction.pairs:
            faces[pair["track"]].append(np.array(pair["track_embedding"], np.float32))
        tracks[video.video_id] = [
            FaceTrack(video.video_id, track, embeddings[0], label, video.split, len(embeddings))
            for track, embeddings in faces.items()
        ]
    duplicates = find_duplicates(fingerprints)
    for video_id in duplicates:
        tracks[video_id] = []
    found = assign_identities(
        [track for of_video in tracks.values() for track in of_video], known, identities
    )
    split_of = {name: person.split for name, person in found.persons.items() if name not in removed}
    refusals = defaultdict(list)
    for refusal in found.refusals:
        refusals[refusal.video_id].append(refusal)
    indices = {split: [] for split in SPLITS}
    for index, unit in enumerate(units):
        faces = [(track.video_id, track.track) for track in tracks[unit.video.video_id]]
        speakers = {found.speaker_of.get(face) for face in faces}
        for split in {split_of[speaker] for speaker in speakers if speaker in split_of}:
            indices[split].append(index)
    return Plan(
        units=units,
        speaker_of=found.speaker_of,
        source_of=found.source_of,
        split_of=split_of,
        indices=indices,
        duplicates=duplicates,
        refusals=refusals,
        removed=removed,
        silent=silent,
        seconds=seconds,
        cluster_threshold=found.cluster_threshold,
    )


def write_refused(refused: Iterator[tuple[Refusal, str | None]], to: Path) -> None:
    """Writes the table of what was refused, some rows in memory at a time.

    Args:
        refused: each refusal, with the person whom the source names.
        to: the Parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    text, number = pyarrow.string(), pyarrow.float64()
    schema = pyarrow.schema(
        [
            ("video_id", text),
            ("start_s", number),
            ("end_s", number),
            ("reason", text),
            ("detail", text),
            ("speaker_id", text),
        ]
    )
    with pyarrow.parquet.ParquetWriter(to, schema) as writer:
        batch = []
        for refusal, speaker in refused:
            batch.append({**vars(refusal), "speaker_id": speaker})
            if len(batch) == 10_000:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema))
                batch.clear()
        writer.write_table(pyarrow.Table.from_pylist(batch, schema))


def known_persons(folder: Path) -> list[Person]:
    """The persons of a built data set, as its pairs show them.

    Args:
        folder: with its Parquet files.

    Raises:
        ValueError: if it holds no data set.
    """
    columns = ["speaker_id", "speaker_source", "face_embedding"]
    persons = []
    files = split_files(folder)
    if not files:
        raise ValueError(f"{folder} holds no data set of pairs: name a folder that was built")
    for split, paths in files.items():
        sums, counts, sources = {}, defaultdict(int), {}
        for row in rows(paths, columns):
            name = row["speaker_id"]
            sums[name] = sums.get(name, 0) + np.array(row["face_embedding"], np.float64)
            counts[name] += 1
            sources[name] = row["speaker_source"]
        persons += [
            Person(name, sources[name], split, (sums[name] / counts[name]).astype(np.float32), n)
            for name, n in counts.items()
        ]
    return sorted(persons, key=lambda person: person.speaker_id)


def move_into_place(finished: Path, folder: Path, gone: Sequence[str] = ()) -> None:
    """Moves the files of a data set to where they belong, the card last.

    It can be killed and done again: every file is moved whole.

    Args:
        finished: a folder with the files, on the same disk.
        folder: of the data set.
        gone: names of files in `folder` that belong to the data set no more.
    """
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    names = sorted(path.name for path in finished.iterdir())
    for name in sorted(names, key=lambda name: name == CARD_FILE):
        (finished / name).replace(folder / name)


def remove_folder(folder: Path) -> None:
    """Removes a folder of ours, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)


def configuration_of(config: Mapping) -> dict:
    """A configuration as a card can hold it: plain numbers, words, lists and dicts."""
    return {name: _plain(value) for name, value in config.items()}


def _plain(value):
    if isinstance(value, Mapping):
        return configuration_of(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
