"""Where videos come from: a folder, VoxCeleb, AVSpeech, films of the synthetic cast.

Every source gives the same `Listing`, sorted and the same on every run: units of work, and what
could be refused without opening it.
"""

import csv
import json
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset_scripts.records import Refusal, SourceVideo
from dataset_scripts.splits import DEVELOPMENT

NOT_STATED = "not stated"
DOWNLOAD_LOG = "downloads.jsonl"  # what became of each video that was fetched

LOG_KEYS = ("youtube_id", "outcome", "reason", "file")

VIDEO_SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .divx .f4v .flv .m2ts .m2v .m4v .mj2 .mkv .mov .mp4 .mpe .mpeg .mpg .mts "
    ".mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m".split()
)
AUDIO_SUFFIXES = frozenset(".aac .flac .m4a .mp3 .ogg .opus .wav .wma".split())
PICTURE_SUFFIXES = frozenset(".bmp .jpeg .jpg .png .webp".split())


@dataclass(frozen=True)
class SpeechAndCrops(SourceVideo):
    """A recording and pictures of the speaker's face, where a source gives no moving picture.

    `path` is the recording; the face is not checked for synchrony: the source vouches for it.

    Attributes:
        crops: picture files of the speaker, from the same video.
    """

    crops: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Listing:
    """What a source has.

    Attributes:
        videos: units of work, sorted by `video_id`, which is unique.
        refusals: what is known to give nothing without being opened, sorted.
        ignored: how many files are no videos (texts, pictures, hidden files).
    """

    videos: list[SourceVideo] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    ignored: int = 0


def list_folder(
    path: str | Path,
    licence: str = NOT_STATED,
    speaker_folders: bool = False,
    source: str = "folder",
) -> Listing:
    """Lists the videos of a folder, at any depth.

    A file is tried if its suffix is one of audio or video, if it has none, or if it begins like a
    video. Links to folders are followed where they lead out of the folder.

    Args:
        path: a folder, or one video.
        licence: of the videos, as their owner states it.
        speaker_folders: whether each first-level folder holds one person's videos and names him
            or her; what lies beside these folders has no label.
        source: what the pairs' column `source` says.

    Returns:
        A listing; `video_id` is the path below the folder, odd characters escaped.

    Raises:
        ValueError: if there is no such folder, it cannot be read, or it holds no video.
    """
    root = Path(path)
    if root.is_file():
        return Listing([SourceVideo(printable(root.name), root, source, licence)])
    videos, refusals, ignored = [], [], 0
    for found in _walk(_existing_folder(root)):
        if found.problem is None and not _is_tried(found.path, AUDIO_SUFFIXES | VIDEO_SUFFIXES):
            ignored += 1
            continue
        video_id = printable(os.path.join(*found.parts))
        if found.problem is not None:
            refusals.append(Refusal(video_id, None, None, "unreadable", found.problem))
            continue
        speaker_id = None
        if speaker_folders and len(found.parts) > 1:
            speaker_id = printable(found.parts[0])
        videos.append(SourceVideo(video_id, found.path, source, licence, speaker_id))
    if not videos and not refusals:
        raise ValueError(f"{path} holds no video: {ignored} other files were found")
    return _listing(videos, refusals, ignored)


def list_voxceleb(
    path: str | Path,
    metadata: Sequence[str | Path] = (),
    crops: str | Path | None = None,
    licence: str = NOT_STATED,
) -> Listing:
    """Lists VoxCeleb1 or VoxCeleb2, or both, as distributed: `idXXXXX/YOUTUBE/00001.mp4`.

    Args:
        path: a folder above the persons' folders, at any height (`dev/mp4`, `test/wav`, ...).
        metadata: `vox1_meta.csv`, `vox2_meta.csv`; found below `path` if none is named.
        crops: a folder with the face crops (`NAME/1.6/YOUTUBE/*.jpg` or by person's id), for
            recordings without pictures; found below `path` if it is called `unzippedFaces`.
        licence: what the pairs' column `licence` says.

    Returns:
        Videos, and `SpeechAndCrops` where there is only sound; labelled, with gender and the
        official split: "test", or "dev" for what is shared between train and validation.

    Raises:
        ValueError: if the folder or the metadata is missing or has another layout.
    """
    root = _existing_folder(Path(path))
    clips, pictures, metadata_found, ignored = _walk_voxceleb(root)
    persons = _read_voxceleb_metadata([Path(name) for name in metadata] or metadata_found, root)
    if crops is not None:
        crops_root = _existing_folder(Path(crops))
        pictures = _walk_voxceleb(crops_root, crops_root.name)[1]
    crops_of = _crops_by_video(pictures, persons)
    videos, refusals = [], []
    for (speaker_id, youtube_id, clip), paths in sorted(clips.items()):
        video_id = "/".join(printable(part) for part in (speaker_id, youtube_id, clip))
        # The same clip as a film and as mere sound: the film has both.
        file = min(paths, key=lambda file: (file.suffix.lower() in AUDIO_SUFFIXES, file))
        person = persons.get(speaker_id)
        if person is None:
            detail = f"{speaker_id} is not in the metadata"
            refusals.append(Refusal(video_id, None, None, "failed", detail))
            continue
        common = (video_id, file, f"voxceleb{person.version}", licence, speaker_id, person.split)
        if file.suffix.lower() not in AUDIO_SUFFIXES:
            videos.append(SourceVideo(*common, gender=person.gender))
        elif (speaker_id, youtube_id) in crops_of:
            faces = crops_of[speaker_id, youtube_id]
            videos.append(SpeechAndCrops(*common, gender=person.gender, crops=faces))
        else:
            detail = "the clip has sound only, and there are no face crops of its video"
            refusals.append(Refusal(video_id, None, None, "no_video", detail))
    if not clips:
        raise ValueError(
            f"{root} holds no idXXXXX/YOUTUBE/00001.mp4 at any depth: name VoxCeleb's folder"
        )
    strangers = sorted({speaker_id for speaker_id, *_ in clips} - persons.keys())
    if not videos and strangers:
        others = f" (nor are {len(strangers) - 1} others)" if len(strangers) > 1 else ""
        raise ValueError(
            f"{root} has nothing to pair: {strangers[0]} is not in the metadata{others}: name the "
            "CSV of this VoxCeleb"
        )
    if not videos:
        raise ValueError(
            f"{root} has nothing to pair: VoxCeleb's films (mp4/idXXXXX/YOUTUBE/00001.mp4), or its "
            f"sound and face crops, are needed ({len(refusals)} clips without a face were found)"
        )
    return _listing(videos, refusals, ignored)


@dataclass(frozen=True)
class _VoxCelebPerson:
    version: int
    name: str  # VGGFace's, by which the face crops are filed
    gender: str | None
    split: str


def _walk_voxceleb(root: Path, *above: str):
    """Clips by (person, video, clip), pictures by their folders' names, metadata files."""
    clips, pictures = defaultdict(list), defaultdict(list)
    metadata, ignored = [], 0
    for found in _walk(root):
        suffix = found.path.suffix.lower()
        folders = (*above, *found.parts[:-1])
        if found.problem is not None:
            ignored += 1
        elif re.fullmatch(r"vox[12]_meta\.csv", found.path.name):
            metadata.append(found.path)
        elif suffix in PICTURE_SUFFIXES:
            pictures[folders].append(found.path)
        elif suffix in VIDEO_SUFFIXES | AUDIO_SUFFIXES and len(folders) > 1:
            if re.fullmatch(r"id\d{5}", folders[-2]):
                clips[folders[-2], folders[-1], found.path.stem].append(found.path)
            else:
                ignored += 1
        else:
            ignored += 1
    return clips, pictures, metadata, ignored


def _read_voxceleb_metadata(paths: list[Path], root: Path) -> dict[str, _VoxCelebPerson]:
    if not paths:
        raise ValueError(
            f"no vox1_meta.csv or vox2_meta.csv below {root}: name VoxCeleb's metadata file"
        )
    persons = {}
    for path in paths:
        rows = _read_rows(path)
        header = [cell.strip().lower() for cell in re.split("[\t,]", rows[0])] if rows else []
        version = next((cell[8] for cell in header if re.match("voxceleb[12]", cell)), None)
        if version is None or not {"gender", "set"} <= set(header):
            raise ValueError(
                f"{path} is not VoxCeleb's metadata: its first line must name the columns "
                "VoxCeleb1 ID (or VoxCeleb2 ID), Gender and Set"
            )
        for row in rows[1:]:
            cells = [cell.strip() for cell in re.split("[\t,]", row)]
            if len(cells) != len(header):
                raise ValueError(f"{path}: {len(header)} columns were expected in {row!r}")
            persons.update([_voxceleb_person(int(version), dict(zip(header, cells, strict=True)))])
    return persons


def _voxceleb_person(version: int, cells: dict[str, str]) -> tuple[str, _VoxCelebPerson]:
    by_prefix = {name.split(" ")[0].rstrip("id"): cell for name, cell in cells.items()}
    name = cells.get("name") or by_prefix.get("vggface1") or by_prefix.get("vggface2") or ""
    gender = {"m": "male", "f": "female"}.get(cells["gender"].lower())
    split = "test" if cells["set"].lower() == "test" else DEVELOPMENT
    return by_prefix[f"voxceleb{version}"], _VoxCelebPerson(version, name, gender, split)


def _crops_by_video(pictures: Mapping, persons: Mapping) -> dict[tuple[str, str], tuple]:
    """Pictures by (person, YouTube id): `PERSON/[1.6/]YOUTUBE/[.../]*.jpg`, by id or by name."""
    speakers = {person.name: speaker_id for speaker_id, person in persons.items() if person.name}
    speakers |= {speaker_id: speaker_id for speaker_id in persons}
    crops = defaultdict(list)
    for folders, paths in pictures.items():
        at = next((i for i, folder in enumerate(folders) if folder in speakers), None)
        if at is None:
            continue
        below = [folder for folder in folders[at + 1 :] if not re.fullmatch(r"\d+\.\d+", folder)]
        if below:
            crops[speakers[folders[at]], below[0]] += paths
    return {key: tuple(sorted(paths)) for key, paths in crops.items()}


def list_avspeech(
    csv_paths: str | Path | Sequence[str | Path],
    videos: str | Path,
    licence: str = NOT_STATED,
) -> Listing:
    """Lists AVSpeech's stretches whose videos are on disk; the others are refused as gone.

    Args:
        csv_paths: `avspeech_train.csv`, `avspeech_test.csv`: YouTube id, start and end in seconds,
            x and y of the face's centre as shares of the frame; no header.
        videos: a folder with whole videos (`ID.mp4`) or clips (`ID_START_END.mp4`,
            `ID_START.mp4`), at any depth, in any container.
        licence: what the pairs' column `licence` says.

    Returns:
        Unlabelled videos with their stretch and the face's position; the official split "test"
        or "dev" if the file's name says which list it is.

    Raises:
        ValueError: if a file is missing or has another format.
    """
    stretches, ignored = {}, 0
    for path in [csv_paths] if isinstance(csv_paths, str | Path) else csv_paths:
        for stretch in read_avspeech(path):
            ignored += stretch.video_id in stretches
            stretches.setdefault(stretch.video_id, stretch)
    on_disk = _AVSpeechFiles(_existing_folder(Path(videos)))
    log = {entry["youtube_id"]: entry for entry in read_download_log(Path(videos))}
    found, refusals = [], []
    for video_id, stretch in stretches.items():
        path, start_s = on_disk.find(stretch)
        if path is None:
            detail = log.get(stretch.youtube_id, {}).get("reason") or (
                f"no file {stretch.youtube_id}.* or {stretch.youtube_id}_START_END.* is there"
            )
            refusals.append(Refusal(video_id, None, None, "gone", detail))
            continue
        end_s = None if start_s is None else stretch.end_s
        common = (video_id, path, "avspeech", licence, None, stretch.split, start_s, end_s)
        found.append(SourceVideo(*common, face_position=stretch.face_position))
    return _listing(found, refusals, ignored)


@dataclass(frozen=True)
class AVSpeechStretch:
    """A row of AVSpeech's list.

    Attributes:
        youtube_id: of the video.
        start_s, end_s: the stretch in which somebody speaks on screen, seconds.
        face_position: (x, y) of that face's centre as shares of the frame.
        split: "dev", "test" or None, by the list's name.
    """

    youtube_id: str
    start_s: float
    end_s: float
    face_position: tuple[float, float]
    split: str | None

    @property
    def video_id(self) -> str:
        x, y = self.face_position
        return f"{self.youtube_id}/{self.start_s:.6f}-{self.end_s:.6f}@{x:.6f},{y:.6f}"


def read_avspeech(path: str | Path) -> list[AVSpeechStretch]:
    """Reads one of AVSpeech's lists.

    Args:
        path: `avspeech_train.csv`, `avspeech_test.csv` or a part of them, without a header.

    Returns:
        Its rows, in its order.

    Raises:
        ValueError: for a file that cannot be read or a row that is no stretch.
    """
    path = Path(path)
    name = path.name.lower()
    split = "test" if "test" in name else DEVELOPMENT if "train" in name else None
    stretches = []
    for number, cells in enumerate(csv.reader(_read_rows(path)), 1):
        try:
            youtube_id, *numbers = (cell.strip() for cell in cells)
            start_s, end_s, x, y = map(float, numbers)
        except ValueError:
            start_s = end_s = x = y = -1.0
        if not (0 <= start_s < end_s < float("inf") and 0 <= x <= 1 and 0 <= y <= 1):
            raise ValueError(
                f"{path}, line {number}: expected YouTube id, start and end in seconds, x and y "
                f"of the face from 0 to 1, got {','.join(cells)!r}"
            )
        if not re.fullmatch(r"[\w-]+", youtube_id, re.ASCII):  # it becomes a file's name
            raise ValueError(f"{path}, line {number}: {youtube_id!r} is not a YouTube id")
        stretches.append(AVSpeechStretch(youtube_id, start_s, end_s, (x, y), split))
    if not stretches:
        raise ValueError(f"{path} is empty: AVSpeech's list of videos is expected")
    return stretches


def read_download_log(folder: Path) -> list[dict]:
    """What `video_download` wrote down of each video, the newest last; torn lines are left out.

    Args:
        folder: of the videos.

    Returns:
        Entries with `youtube_id`, `outcome` ("done", "gone" or "failed"), `reason` and `file`.
    """
    try:
        lines = (folder / DOWNLOAD_LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
            entries.append({key: str(entry[key]) for key in LOG_KEYS})
        except (ValueError, KeyError, TypeError):
            continue  # a run was killed while it wrote
    return entries


class _AVSpeechFiles:
    """Videos on disk, by YouTube id: whole ones, and clips with the times in their names."""

    def __init__(self, root: Path):
        self.whole: dict[str, Path] = {}
        self.clips: dict[str, list[tuple[float, float | None, Path]]] = defaultdict(list)
        for found in _walk(root):
            suffix = found.path.suffix.lower()
            if found.problem is not None or suffix not in VIDEO_SUFFIXES:
                continue
            stem = found.path.stem
            self.whole.setdefault(stem, found.path)  # an id may itself end like `_12_34`
            number = r"(\d+(?:\.\d+)?)"
            for pattern in (rf"(.+)_{number}_{number}", rf"(.+)_{number}"):
                if match := re.fullmatch(pattern, stem):
                    youtube_id, start, *end = match.groups()
                    end_s = float(end[0]) if end else None
                    self.clips[youtube_id].append((float(start), end_s, found.path))

    def find(self, stretch: AVSpeechStretch) -> tuple[Path | None, float | None]:
        """The file, and where in it the stretch begins: None if the file is the stretch."""
        near = 0.05  # s; names carry rounded times
        for start_s, end_s, path in self.clips.get(stretch.youtube_id, ()):
            ends_there = end_s is None or abs(end_s - stretch.end_s) <= near
            if abs(start_s - stretch.start_s) <= near and ends_there:
                return path, None
        if path := self.whole.get(stretch.youtube_id):
            return path, stretch.start_s
        return None, None


def list_cast(path: str | Path) -> Listing:
    """Lists films of the synthetic cast, with what is true of their main persons.

    Args:
        path: the folder that `python -m dataset_scripts.synthetic_cast ... --films` made.

    Returns:
        Videos labelled with their main person. Where a film shows others too, they carry no
        label: their faces are told apart by clustering, as in any film.

    Raises:
        ValueError: if the folder holds no films.
    """
    root = _existing_folder(Path(path))
    try:
        table = json.loads((root / "films.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{root} holds no films of the cast: films.json cannot be read ({error}); make them "
            "with python -m dataset_scripts.synthetic_cast ... --films"
        ) from error
    videos, refusals = [], []
    files = {}
    for found in _walk(_existing_folder(root / "videos")):
        if found.path.suffix.lower() in VIDEO_SUFFIXES and found.problem is None:
            files[found.path.stem] = found.path
    truths = {path.stem: path for path in (root / "videos").glob("*.json")}
    for film_id in sorted(files.keys() | truths.keys()):
        if film_id not in files:
            refusals.append(Refusal(film_id, None, None, "gone", "the film is not there"))
            continue
        try:
            truth = json.loads(truths[film_id].read_text(encoding="utf-8"))
            videos.append(_film(film_id, files[film_id], truth, table))
        except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
            detail = f"the truth beside the film cannot be read: {error!r}"
            refusals.append(Refusal(film_id, None, None, "failed", detail))
    if not videos:
        raise ValueError(f"{root / 'videos'} holds no films that can be read")
    return _listing(videos, refusals, 0)


def _film(film_id: str, path: Path, truth: dict, table: dict) -> SourceVideo:
    main = truth["people"][0]
    licences = dict.fromkeys(person.get("licence") for person in truth["people"])
    return SourceVideo(
        film_id,
        path,
        "cast",
        "; ".join(filter(None, licences)) or table.get("licence") or NOT_STATED,
        main["speaker_id"],
        main["split"],
        gender=main.get("gender"),
        age=main.get("age"),
        language=main.get("language"),
        traits=main.get("traits"),
        voice_parameters=main.get("voice_parameters"),
        voice_id=main.get("voice_id"),
    )


def printable(name: str) -> str:
    """A file's name as printable text: any other byte, and the percent sign, as %XX.

    Args:
        name: as the file system gives it, possibly with surrogate escapes for undecodable bytes.

    Returns:
        Different texts for different names.
    """

    def escape(character: str) -> str:
        if character.isprintable() and character != "%":
            return character
        return "".join(f"%{byte:02X}" for byte in os.fsencode(character))

    return "".join(map(escape, name))


@dataclass(frozen=True)
class _Found:
    """A file below a folder; `problem` says why it cannot be opened."""

    path: Path
    parts: tuple[str, ...]  # below the folder
    problem: str | None = None


def _walk(root: Path) -> Iterator[_Found]:
    """Every file below a folder in the order of names; hidden ones are left out.

    A link to a folder is followed once, and only if it leads neither into `root` nor above it:
    what lies in `root` has one path, and loops end.
    """
    inside = root.resolve()
    seen = {inside}
    pending = [(root, ())]
    while pending:
        folder, parts = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield _Found(folder, parts, f"the folder cannot be read: {error.strerror}")
            continue
        folders = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            below = (*parts, entry.name)
            try:
                kind = entry.stat().st_mode  # of what a link leads to
            except OSError as error:
                yield _Found(Path(entry.path), below, f"it cannot be reached: {error.strerror}")
                continue
            if stat.S_ISDIR(kind):
                real = Path(entry.path).resolve()
                if entry.is_symlink() and (inside in real.parents or real in inside.parents):
                    continue
                if real not in seen:
                    seen.add(real)
                    folders.append((Path(entry.path), below))
            elif stat.S_ISREG(kind):
                yield _Found(Path(entry.path), below)
            else:
                yield _Found(Path(entry.path), below, "it is neither a file nor a folder")
        pending += reversed(folders)


def _is_tried(path: Path, suffixes: frozenset[str]) -> bool:
    suffix = path.suffix.lower()
    return not suffix or suffix in suffixes or _begins_like_a_video(path)


def _begins_like_a_video(path: Path) -> bool:
    """Whether a file of another suffix is MP4, Matroska, AVI, FLV, MPEG or ASF all the same."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return (
        head[4:8] == b"ftyp"
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or head.startswith(
            (b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\x00\x00\x01\xba", b"\x30\x26\xb2\x75")
        )
    )


def _existing_folder(path: Path) -> Path:
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise ValueError(f"{path} {what}: name a folder of videos")
    try:
        with os.scandir(path):
            return path
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def _read_rows(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a text file: {error}") from error
    return [line for line in text.splitlines() if line.strip()]


def _listing(videos: list[SourceVideo], refusals: list[Refusal], ignored: int) -> Listing:
    return Listing(
        sorted(videos, key=lambda video: video.video_id),
        sorted(refusals, key=lambda refusal: refusal.video_id),
        ignored,
    )
