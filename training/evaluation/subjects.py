"""Whom an evaluation measures: recordings, the faces that belong to them, and whose they are.

A data set of the project (a folder of Parquet files, or a name on the Hub); a folder with `voice/`
and `face/`; or, without faces, the test speakers of LibriSpeech.

Letters: N pairs, M pairs of the training split, P persons, D size of the face embedding.
"""

import csv
import functools
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts.faces import FaceRecogniser, get_recogniser
from training.data import SAMPLING_RATE, load_pairs, open_split
from training.evaluation import instruments
from training.evaluation.store import Store, fingerprint, key_of

SPEAKERS_FILE = Path(__file__).parents[2] / "dataset_scripts" / "librispeech_speakers.tsv"
GENDERS = {"female": "female", "f": "female", "male": "male", "m": "male", "": ""}
FOLDER_TEACHER = "dlib"
THIRDS = ("low third", "middle third", "high third")
ANCESTRIES = ("african", "asian", "caucasian")  # the cast's parameters, in its order
# No group: a vector without names, a number without meaning, and what is a group of its own.
NO_GROUPS = {"shape", "seed", "gender", "age"}


@dataclass
class People:
    """Members of the cast, whose voices and faces are known, a row a person.

    Attributes:
        speakers: (P,).
        genders: (P,) "female" or "male".
        ages: (P,) years.
        voice_parameters: (P,) dicts.
        landmarks: (P, 68, 2) float32, pixels in the frontal, neutral face of 224 pixels.
    """

    speakers: np.ndarray
    genders: np.ndarray
    ages: np.ndarray
    voice_parameters: np.ndarray
    landmarks: np.ndarray

    @classmethod
    def of_rows(cls, *groups: "People") -> "People":
        """Everybody in some groups once, though they have several rows there."""
        columns = {
            field.name: np.concatenate([getattr(group, field.name) for group in groups])
            for field in fields(cls)
        }
        first = np.unique(columns["speakers"], return_index=True)[1]
        return cls(**{name: column[first] for name, column in columns.items()})


@dataclass
class Training:
    """The training split, which oracles and the centre are made from.

    Attributes:
        embeddings: (M, D) float32, raw.
        genders: (M,) "female", "male" or "".
        ages: (M,) years, NaN where unknown.
        speakers: (M,).
        picture_bytes: takes a row and returns its encoded face.
        people: its persons, where their true faces are known.
    """

    embeddings: np.ndarray
    genders: np.ndarray
    ages: np.ndarray
    speakers: np.ndarray
    picture_bytes: Callable[[int], bytes]
    people: People | None = None

    def faces(self, rows: Sequence[int]) -> np.ndarray:
        """Aligned faces of some rows, (rows, 224, 224, 3) uint8; they are decoded now."""
        return np.stack([_picture(io.BytesIO(self.picture_bytes(int(row)))) for row in rows])


@dataclass
class Subjects:
    """What is evaluated: N pairs of a recording and a face.

    Attributes:
        name: of the data set, without its place.
        split: "train", "validation", "test", or "" for a folder of voices and faces.
        fingerprint: of the recordings, faces and names.
        teacher: name of the recogniser whose embeddings these are.
        pair_ids: N names.
        speakers: (N,).
        faces: (N, 224, 224, 3) uint8, aligned.
        face_found: (N,) whether a face was found, or a crop stands in.
        embeddings: (N, D) float32, raw.
        genders: (N,) "female", "male" or "", as the data set states them.
        ages: (N,) years, NaN where the data set states none.
        traits: one dict a pair, empty outside the cast.
        voice_parameters: likewise.
        centre: (D,) by which embeddings of these faces are centred.
        centred_by: whose mean that is.
        training: the training split, where the data set has one.
        read_speech: takes a row and returns its recording.
        true_landmarks: (N, 68, 2) float32, pixels in the person's frontal, neutral face of 224
            pixels, as the cast's geometry knows them; None where the data set does not.
    """

    name: str
    split: str
    fingerprint: str
    teacher: str | None
    pair_ids: list[str]
    speakers: np.ndarray
    faces: np.ndarray
    face_found: np.ndarray
    embeddings: np.ndarray
    genders: np.ndarray
    ages: np.ndarray
    traits: list[dict]
    voice_parameters: list[dict]
    centre: np.ndarray
    centred_by: str
    training: Training | None
    read_speech: Callable[[int], np.ndarray]
    true_landmarks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pair_ids)

    @property
    def is_cast(self) -> bool:
        """Whether the truth about the voices is known, as only the synthetic cast knows it."""
        return any(self.voice_parameters)

    def speech(self, index: int) -> np.ndarray:
        """The recording of a pair, (samples,) float32 at 16 kHz, -1 to 1."""
        return self.read_speech(index)

    @functools.cached_property
    def recordings(self) -> tuple[np.ndarray, np.ndarray]:
        """Which recording each pair has, (N,) fingerprints, and how long it is, (N,) seconds."""
        found = []
        for index in range(len(self)):
            speech = self.speech(index)
            found.append((fingerprint(speech), len(speech) / SAMPLING_RATE))
        recordings, seconds = zip(*found, strict=True)
        return np.asarray(recordings), np.asarray(seconds)

    def people(self) -> People | None:
        """Everybody whose true face is known, of the training split, too; None if it is of none."""
        if self.true_landmarks is None:
            return None
        voices = np.asarray(self.voice_parameters)
        own = People(self.speakers, self.genders, self.ages, voices, self.true_landmarks)
        others = None if self.training is None else self.training.people
        return People.of_rows(own, *([] if others is None else [others]))

    def groups(self) -> dict[str, np.ndarray]:
        """By what a figure is broken down, and the name of each pair's group, (N,) str.

        "gender" and "age group" where any are known, and every trait that the pairs have: numbers
        in thirds of the speakers, shares by the largest, classes by name. A pair whose group is
        unknown has "".
        """
        from training.measures.attributes import age_group

        groups = {"gender": self.genders, "age group": age_group(self.ages)}
        names = sorted({name for traits in self.traits for name in traits} - NO_GROUPS)
        for name in names:
            values = [traits.get(name) for traits in self.traits]
            groups[name.replace("_", " ")] = trait_groups(values, self.speakers)
        return {name: values for name, values in groups.items() if (values != "").any()}


def trait_groups(values: Sequence[Any], speakers: np.ndarray) -> np.ndarray:
    """The group of each row by a trait.

    Args:
        values: N numbers, names, shares of the ancestries (a sequence of three, or a dict of names
            and shares), or None where the trait is unknown; all of one kind.
        speakers: (N,).

    Returns:
        (N,) str: for numbers the third of the speakers ("low third", ...; who has the boundary's
        own value is below it), for shares the largest one's name, for names the name with spaces;
        "" for None and for what is neither.
    """
    known = [value for value in values if value is not None]
    is_number = [isinstance(v, (int, float)) and not isinstance(v, bool) for v in known]
    if known and all(is_number):
        return _thirds(np.asarray([np.nan if v is None else v for v in values], float), speakers)
    return np.asarray([_class_of(value) for value in values])


def _thirds(values: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Which third of the speakers each row (N,) is in; a speaker's rows are in one."""
    known = np.isfinite(values)
    names, index = np.unique(speakers[known], return_inverse=True)
    by_speaker = np.bincount(index, values[known]) / np.bincount(index)
    third = np.searchsorted(np.quantile(by_speaker, (1 / 3, 2 / 3)), by_speaker, side="left")
    groups = np.full(len(values), "", dtype=f"<U{max(map(len, THIRDS))}")
    groups[known] = np.asarray(THIRDS)[third][index]
    return groups


def _class_of(value: Any) -> str:
    if isinstance(value, dict) and value:
        return str(max(value, key=value.get))
    if isinstance(value, (list, tuple, np.ndarray)) and len(value) == len(ANCESTRIES):
        return ANCESTRIES[int(np.argmax(value))]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.replace("_", " ") if isinstance(value, str) else ""


def load_subjects(
    dataset: str, split: str, cache: str | Path, limit: int | None = None
) -> Subjects:
    """Loads what is to be evaluated.

    Args:
        dataset: a folder of Parquet files as `training.data` reads it, or a name on the Hub; or a
            folder with `voice/` and `face/`, in which the files of a pair share their stem, and
            optionally `PAIRS.tsv` with the columns name, identity (the speaker; else the stem),
            gender and age. Those pictures need not be aligned.
        split: of a data set; a folder of voices and faces has none.
        cache: folder for what is decoded, aligned and embedded.
        limit: pairs at most; first one of every speaker, then a second one of each.

    Raises:
        FileNotFoundError: if there is no such data set or split.
        ValueError: if it names no teacher, voices and faces do not match, or all are one speaker's.
    """
    if (Path(dataset) / "voice").is_dir():
        subjects = _from_folder(Path(dataset), Path(cache), limit)
    else:
        subjects = _from_data_set(dataset, split, Path(cache), limit)
    if len(np.unique(subjects.speakers)) < 2:
        why = "the limit leaves" if limit == 1 else f"{dataset} has"
        raise ValueError(
            f"{why} pairs of one speaker, whom nobody can be told apart from: evaluate two "
            "speakers or more"
        )
    return subjects


def _from_data_set(dataset: str, split: str, cache: Path, limit: int | None) -> Subjects:
    pairs = load_pairs(dataset, split, str(cache), pixels=instruments.ALIGNED_SIZE)
    training = _training_of(dataset, str(cache))
    known = pairs.embeddings if training is None else training.embeddings
    rows = spread_over_speakers(pairs.speakers, limit)
    landmarks = _true_landmarks(open_split(dataset, split, str(cache)), rows)
    faces = pairs.faces.transpose(0, 2, 3, 1)
    speakers = np.asarray(pairs.speaker_names)[pairs.speakers]

    def speech(index: int) -> np.ndarray:
        return pairs.speech(rows[index]).astype(np.float32) / 32768

    pair_ids = [pairs.pair_ids[row] for row in rows]
    # Recordings are hashed as they lie; what the pairs of a limit are is told by their ids.
    content = fingerprint(pair_ids, pairs.ends, pairs.samples, pairs.embeddings)
    return Subjects(
        name=Path(dataset).resolve().name if Path(dataset).is_dir() else dataset,
        split=split,
        fingerprint=content,
        teacher=pairs.teacher,
        pair_ids=pair_ids,
        speakers=speakers[rows],
        faces=faces if len(rows) == len(pairs) else faces[rows],
        face_found=np.ones(len(rows), bool),  # the builder keeps no picture without a face
        embeddings=pairs.embeddings[rows],
        genders=_known_genders(pairs.genders[rows]),
        ages=pairs.ages[rows],
        traits=[pairs.traits[row] for row in rows],
        voice_parameters=[pairs.voice_parameters[row] for row in rows],
        centre=known.mean(0),
        centred_by="the mean of these pairs" if training is None else "the training split's mean",
        training=training,
        read_speech=speech,
        true_landmarks=landmarks,
    )


def _true_landmarks(table: Any, rows: np.ndarray) -> np.ndarray | None:
    """Landmarks (rows, 68, 2) of the normalized faces; None where one of the rows has none."""
    if "normalized_landmarks" not in table.column_names:
        return None
    stated = list(
        table.select_columns(["normalized_landmarks"]).select(rows)["normalized_landmarks"]
    )
    return None if any(one is None for one in stated) else np.asarray(stated, np.float32)


def _training_of(dataset: str, cache: str) -> Training | None:
    """The training split, nothing of it decoded; None where there is none."""
    try:
        table = open_split(dataset, "train", cache)
    except (FileNotFoundError, ValueError):
        return None

    def column(name: str, otherwise: Any) -> np.ndarray:
        values = table[name] if name in table.column_names else [None] * len(table)
        return np.asarray([otherwise if value is None else value for value in values])

    pictures = table.select_columns(["face"])
    speakers, genders = column("speaker_id", ""), _known_genders(column("gender", ""))
    ages = column("age", np.nan).astype(np.float64)
    first = np.unique(speakers, return_index=True)[1]
    landmarks, people = _true_landmarks(table, first), None
    if landmarks is not None:
        voices = column("voice_parameters", {})[first]
        people = People(speakers[first], genders[first], ages[first], voices, landmarks)
    return Training(
        embeddings=np.asarray(table["face_embedding"], np.float32),
        genders=genders,
        ages=ages,
        speakers=speakers,
        picture_bytes=lambda row: pictures[row]["face"]["bytes"],
        people=people,
    )


def _known_genders(genders: Iterable[str]) -> np.ndarray:
    return np.asarray([GENDERS.get(str(gender).strip().lower(), "") for gender in genders])


def spread_over_speakers(speakers: np.ndarray, limit: int | None) -> np.ndarray:
    """Rows, in their order, of at most `limit` pairs from as many speakers as possible.

    Args:
        speakers: (N,).
        limit: how many; all if None.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"a limit must be at least 1, got {limit}")
    counts, turns = Counter(), []
    for speaker in np.asarray(speakers).tolist():
        turns.append(counts[speaker])
        counts[speaker] += 1
    return np.sort(np.argsort(turns, kind="stable")[:limit])


def _from_folder(folder: Path, cache: Path, limit: int | None) -> Subjects:
    if not (folder / "face").is_dir():
        raise FileNotFoundError(f"{folder} has voice/ and no face/: add a face for every recording")
    voices, pictures = _files_by_stem(folder / "voice"), _files_by_stem(folder / "face")
    _check_match(voices, pictures, "recordings of {} have no picture", folder / "face")
    _check_match(pictures, voices, "pictures of {} have no recording", folder / "voice")
    notes = _notes_of(folder / "PAIRS.tsv")
    names = sorted(voices)
    speakers = np.asarray([notes.get(name, {}).get("identity") or name for name in names])
    strangers = sorted(set(notes) - set(names))
    if strangers:
        raise ValueError(
            f"PAIRS.tsv names {strangers[0]}, which has no recording: take its row out"
        )
    genders = _known_genders(_stated_gender(name, notes.get(name, {})) for name in names)
    ages = np.asarray([_age_of(name, notes.get(name, {}).get("age") or "") for name in names])
    rows = spread_over_speakers(speakers, limit)
    names, speakers = [names[row] for row in rows], speakers[rows]
    store = Store(cache / "evaluation")
    faces, found = _aligned([pictures[name] for name in names], store, folder.resolve().name)
    embeddings = _embedded(faces, store, folder.resolve().name)
    recordings = [voices[name] for name in names]

    return Subjects(
        name=folder.resolve().name,
        split="",
        fingerprint=fingerprint(names, speakers.tolist(), *map(_hash_of, recordings), faces),
        teacher=FOLDER_TEACHER,
        pair_ids=names,
        speakers=speakers,
        faces=faces,
        face_found=found,
        embeddings=embeddings,
        genders=genders[rows],
        ages=ages[rows],
        traits=[{} for _ in names],
        voice_parameters=[{} for _ in names],
        centre=embeddings.mean(0),
        centred_by="the mean of these pairs",
        training=None,
        read_speech=lambda index: _read_speech(recordings[index]),
    )


def _files_by_stem(folder: Path) -> dict[str, Path]:
    """Visible files of a folder by their stem.

    Raises:
        ValueError: if two share one, or there is none.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in files:
            raise ValueError(f"{files[path.stem]} and {path.name} share a name: keep one of them")
        files[path.stem] = path
    if not files:
        raise ValueError(f"{folder} is empty: put a file for every pair into it")
    return files


def _check_match(files: Iterable[str], others: Iterable[str], what: str, where: Path) -> None:
    missing = sorted(set(files) - set(others))
    if missing:
        raise ValueError(
            f"{len(missing)} {what.format(where.parent)} of their name in {where}, the first is "
            f"{missing[0]}: add them, or take these out"
        )


def _notes_of(path: Path) -> dict[str, dict[str, str]]:
    """Rows of a PAIRS.tsv by name; none without the file."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        if "name" not in (reader.fieldnames or ()):
            raise ValueError(f"{path} has no column name: name, identity, gender, age are read")
        return {row["name"]: row for row in reader}


def _stated_gender(name: str, row: dict[str, str]) -> str:
    stated = (row.get("gender") or "").strip()
    if stated.lower() not in GENDERS:
        raise ValueError(
            f"PAIRS.tsv gives {name} the gender {stated!r}: write female, male, f, m, or nothing"
        )
    return stated


def _age_of(name: str, text: str) -> float:
    try:
        age = float(text.strip() or "nan")
    except ValueError:
        age = -1.0
    if age < 0 or age > 130:
        raise ValueError(f"PAIRS.tsv gives {name} the age {text!r}: write years, or nothing")
    return age


class PictureFiles(Sequence):
    """Pictures (height, width, 3) uint8 RGB that are read when they are asked for."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return PictureFiles(self.paths[index])
        return _picture(self.paths[index])


def _picture(source: Path | io.BytesIO) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(source) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise ValueError(f"{source} is not a picture: take it out, or save it as PNG") from error


def _aligned(paths: list[Path], store: Store, name: str) -> tuple[np.ndarray, np.ndarray]:
    """`instruments.align_pictures` of files, kept in a store."""
    pictures, content = PictureFiles(paths), [_hash_of(path) for path in paths]

    def locate(start: int, stop: int) -> dict[str, np.ndarray]:
        return instruments.locate_faces(pictures[start:stop])

    located = store.rows(
        key_of(f"located {name}", content), len(paths), locate, label=f"finding faces of {name}"
    )
    landmarks = np.asarray(located["landmarks"])
    typical = instruments.typical_landmarks(landmarks)

    def align(start: int, stop: int) -> dict[str, np.ndarray]:
        some = slice(start, stop)
        return {"faces": instruments.align_located(pictures[some], landmarks[some], typical)}

    aligned = store.rows(key_of(f"aligned {name}", content), len(paths), align)
    return aligned["faces"], np.asarray(located["found"])


@functools.cache
def _folder_teacher() -> FaceRecogniser:  # loaded only where something is not embedded yet
    return get_recogniser(FOLDER_TEACHER)


def _embedded(faces: np.ndarray, store: Store, name: str) -> np.ndarray:
    def embed(start: int, stop: int) -> dict[str, np.ndarray]:
        return {"embeddings": _folder_teacher().embed(np.array(faces[start:stop]))}

    key = key_of(f"embeddings {name}", FOLDER_TEACHER, faces)
    rows = store.rows(key, len(faces), embed, label=f"embedding faces of {name}")
    return np.array(rows["embeddings"])


def load_faces_folder(
    folder: str | Path, subjects: Subjects, cache: str | Path
) -> tuple[np.ndarray, np.ndarray]:
    """Aligned faces that any other system made for the same pairs.

    Args:
        folder: with a picture a pair, whose stem is the pair's id; others are left alone.
        subjects: whose pairs they are.
        cache: folder for what is aligned.

    Returns:
        Images (N, 224, 224, 3) uint8 in the order of the pairs, and found (N,), as
        `instruments.align_pictures`.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if pairs have no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: name one with a picture for every pair")
    pictures = _files_by_stem(folder)
    missing = [name for name in subjects.pair_ids if name not in pictures]
    if missing:
        raise ValueError(
            f"{folder} lacks a picture for {len(missing)} of {len(subjects)} pairs, the first is "
            f"{missing[0]}: make them all, so that none is left out"
        )
    paths = [pictures[name] for name in subjects.pair_ids]
    return _aligned(paths, Store(Path(cache) / "evaluation"), folder.resolve().name)


@dataclass
class Voices:
    """Recordings without a face.

    Attributes:
        speakers: (N,).
        genders: (N,) "female" or "male".
        paths: N files.
        names: N names of the recordings.
        name: what to call them.
    """

    speakers: np.ndarray
    genders: np.ndarray
    paths: list[Path]
    names: list[str]
    name: str = "LibriSpeech test speakers"

    def __len__(self) -> int:
        return len(self.paths)

    def speech(self, index: int) -> np.ndarray:
        """A recording, (samples,) float32 at 16 kHz, -1 to 1."""
        return _read_speech(self.paths[index])

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the recordings and their names."""
        return fingerprint(self.names, *map(_hash_of, self.paths))


def load_voices(folder: str | Path) -> Voices:
    """All recordings of the speakers whom the committed split file calls test.

    Args:
        folder: of LibriSpeech; recordings named `<utterance>.flac` lie anywhere below.

    Raises:
        FileNotFoundError: if the folder has no recording of any.
    """
    recordings = {path.stem: path for path in sorted(Path(folder).rglob("*.flac"))}
    found = []
    with SPEAKERS_FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["split"] == "test":
                names = [name for name in row["utterances"].split() if name in recordings]
                found += [(row["speaker_id"], row["gender"], name) for name in names]
    if not found:
        raise FileNotFoundError(
            f"no recording of a test speaker below {folder}: see {SPEAKERS_FILE.name}"
        )
    speakers, genders, names = (list(values) for values in zip(*found, strict=True))
    paths = [recordings[name] for name in names]
    return Voices(np.asarray(speakers), np.asarray(genders), paths, names)


def _read_speech(path: Path) -> np.ndarray:
    from modeling_speech2face import load_audio

    return load_audio(path, SAMPLING_RATE)


def _hash_of(path: Path) -> str:
    return fingerprint(path.read_bytes())
