"""Speech-face pairs from video, as a data set: `python -m dataset_scripts.speech_face_pairs`.

One video is one unit of work, with a file of its own; when all are there it is decided who is who,
and the pairs are written as Parquet. A killed run continues, and ends with the same bytes.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import datasets

from dataset_scripts.assembly import (
    Plan,
    Removed,
    configuration_of,
    known_persons,
    make_plan,
    move_into_place,
    remove_folder,
    write_refused,
)
from dataset_scripts.data_card import (
    CARD_FILE,
    REFUSED_FILE,
    describe,
    read_about,
    rows,
    split_files,
)
from dataset_scripts.engines import run_units
from dataset_scripts.extraction import ExtractionConfig
from dataset_scripts.face_crops import extract_unit
from dataset_scripts.identities import IdentityConfig, Person
from dataset_scripts.pair_table import pair_features
from dataset_scripts.records import Extraction, Refusal, SourceVideo
from dataset_scripts.removal import finish_removal
from dataset_scripts.sources import (
    NOT_STATED,
    Listing,
    list_avspeech,
    list_cast,
    list_folder,
    list_voxceleb,
)
from dataset_scripts.splits import SPLITS
from dataset_scripts.units import Unit, UnitWork, unit_name

BUILDER = "dataset_scripts.speech_face_pairs"
BUILDER_VERSION = "2"
SPARE_SECONDS = 60  # beyond what the extraction allows itself, before a video is given up


class NoPairs(RuntimeError):
    """No video gave a pair that can be used."""


@dataclass
class StoredAudio(datasets.Audio):
    """Speech that is bytes already: `datasets` would want torchcodec to look at it."""

    def encode_example(self, value: dict) -> dict:
        """Takes speech as it is stored, {"bytes", "path"}."""
        return {"bytes": value["bytes"], "path": value["path"]}


@dataclass
class SourceConfig(datasets.BuilderConfig):
    """What every source has in common; each has its own class below.

    Attributes:
        path: of the source.
        extraction: how pairs are found in a video.
        identities: how faces become persons, and the seed of the splits.
        ignore_labels: whether persons are found by their faces even where the source names them.
        known: folder of an earlier data set, whose persons keep their names and splits.
        workers: processes, or workers of Ray.
        engine: "local" or "ray".
        ray_address: of a cluster; None starts Ray on this machine.
        units: folder for what came of each video; None for one beside the cache, which goes when
            the data set is written.
        extract: from a video to what came of it; None for `face_crops.extract_unit`.
    """

    path: str | None = None
    extraction: ExtractionConfig = field(default_factory=ExtractionConfig)
    identities: IdentityConfig = field(default_factory=IdentityConfig)
    ignore_labels: bool = False
    known: str | None = None
    workers: int = 1
    engine: str = "local"
    ray_address: str | None = None
    units: str | None = None
    extract: Callable[[SourceVideo], Extraction] | None = None

    def list_videos(self) -> Listing:
        """Lists what the source has.

        Raises:
            ValueError: if the source is not there, or is not what it should be.
        """
        raise NotImplementedError

    def folders(self) -> list[Path]:
        """The folders that are searched for videos."""
        return [Path(self.path)] if self.path else []

    def face_embedding_size(self) -> int:
        """D, of the teacher."""
        from dataset_scripts.faces import RECOGNISERS

        return RECOGNISERS[self.extraction.face_recogniser].embedding_size

    def known_persons(self) -> list[Person]:
        """The persons of the earlier data set."""
        return known_persons(Path(self.known)) if self.known else []

    def units_fingerprint(self) -> str:
        """Names the way in which a video is turned into pairs."""
        return _digest([BUILDER_VERSION, asdict(self.extraction)])

    def configuration_fingerprint(self) -> str:
        """Names all that is asked for, whatever the source lists."""
        return _digest([BUILDER_VERSION, self.name, self.stated()])

    def fingerprint(self, listing: Listing) -> str:
        """Names a data set: every pair in it follows from what is hashed here."""
        known = [
            (person.speaker_id, person.split, person.embedding.tobytes().hex())
            for person in self.known_persons()
        ]
        units = [unit_name(video) for video in listing.videos]
        refusals = [asdict(refusal) for refusal in listing.refusals]
        return _digest([self.configuration_fingerprint(), known, units, refusals])

    def stated(self) -> dict:
        """The configuration as the card shows it, without the paths of this machine."""
        shown = {
            "extraction": asdict(self.extraction),
            "identities": asdict(self.identities),
            "ignore_labels": self.ignore_labels,
            "known": self.known is not None,
        }
        own = ("licence", "speaker_folders")
        shown |= {name: getattr(self, name) for name in own if hasattr(self, name)}
        return configuration_of(shown)


@dataclass
class FolderConfig(SourceConfig):
    """A folder of videos.

    Attributes:
        licence: of the videos, as their owner states it.
        speaker_folders: whether each first-level folder holds one person's videos.
    """

    licence: str = NOT_STATED
    speaker_folders: bool = False

    def list_videos(self) -> Listing:
        """See `SourceConfig.list_videos`."""
        return list_folder(_named(self.path, "path"), self.licence, self.speaker_folders)


@dataclass
class VoxCelebConfig(SourceConfig):
    """VoxCeleb1 or 2 as distributed.

    Attributes:
        metadata: `vox1_meta.csv`, `vox2_meta.csv`; found below `path` if none is named.
        crops: a folder with the face crops, for recordings without pictures.
        licence: what the column `licence` says.
    """

    metadata: Sequence[str] = ()
    crops: str | None = None
    licence: str = NOT_STATED

    def list_videos(self) -> Listing:
        """See `SourceConfig.list_videos`."""
        path = _named(self.path, "path")
        return list_voxceleb(path, self.metadata, self.crops, self.licence)


@dataclass
class AVSpeechConfig(SourceConfig):
    """AVSpeech's lists; `path` is one of them.

    Attributes:
        further_lists: more of them.
        videos: a folder with the videos.
        licence: what the column `licence` says.
    """

    further_lists: Sequence[str] = ()
    videos: str | None = None
    licence: str = NOT_STATED

    def folders(self) -> list[Path]:
        """See `SourceConfig.folders`."""
        return [Path(self.videos)] if self.videos else []

    def list_videos(self) -> Listing:
        """See `SourceConfig.list_videos`."""
        lists = [_named(self.path, "path"), *self.further_lists]
        return list_avspeech(lists, _named(self.videos, "videos"), self.licence)


@dataclass
class CastConfig(SourceConfig):
    """Films of the synthetic cast."""

    def list_videos(self) -> Listing:
        """See `SourceConfig.list_videos`."""
        return list_cast(_named(self.path, "path"))


def _digest(content) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _named(value: str | None, name: str) -> str:
    if not value:
        raise ValueError(f"{name} is needed: say where the source is")
    return value


class SpeechFacePairs(datasets.GeneratorBasedBuilder):
    """Speech-face pairs from a folder of videos, VoxCeleb, AVSpeech or films of the cast.

    Example:
        >>> builder = SpeechFacePairs(config_name="folder", path="videos", workers=4)
        >>> builder.download_and_prepare()
        >>> pairs = builder.as_dataset()
    """

    VERSION = datasets.Version(f"{BUILDER_VERSION}.0.0")
    BUILDER_CONFIG_CLASS = SourceConfig
    BUILDER_CONFIGS = [
        FolderConfig(name="folder", version=VERSION, description="A folder of videos."),
        VoxCelebConfig(name="voxceleb", version=VERSION, description="VoxCeleb1 or 2."),
        AVSpeechConfig(name="avspeech", version=VERSION, description="AVSpeech's lists."),
        CastConfig(name="cast", version=VERSION, description="Films of the synthetic cast."),
    ]

    plan: Plan | None = None  # once the videos are done
    removed = Removed()

    @cached_property
    def listing(self) -> Listing:
        """What the source has."""
        return self.config.list_videos()

    @property
    def units_folder(self) -> Path:
        """Where what came of each video is kept."""
        if self.config.units:
            return Path(self.config.units).absolute()
        name = _digest([self.config.units_fingerprint(), self.config.name, self.config.path])
        return Path(self._cache_dir_root) / f"units-{name[:12]}"

    def refused(self) -> Iterator[tuple[Refusal, str | None]]:
        """Yields every refusal, with the person whom the source names for that video."""
        for refusal in self.listing.refusals:
            if refusal.video_id not in self.removed:
                yield refusal, None
        yield from self.plan.refused()

    def _info(self) -> datasets.DatasetInfo:
        features = pair_features(self.config.face_embedding_size())
        audio = features["audio"]
        features["audio"] = StoredAudio(sampling_rate=audio.sampling_rate, decode=audio.decode)
        return datasets.DatasetInfo(
            description="Speech-face pairs, found in video by synchrony.", features=features
        )

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        units = self._make_units()
        config = self.config
        self.plan = make_plan(
            units, config.identities, config.known_persons(), config.ignore_labels, self.removed
        )
        splits = [split for split in SPLITS if any(True for _ in self.plan.pairs(split))]
        if not splits:
            count = len(self.listing.videos)
            out = count - len(units) + len(self.plan.silent)
            asked = f", and {out} of them stay out, as was asked with --remove" if out else ""
            raise NoPairs(f"none of {count} videos gave a pair{asked}")
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"split": split}) for split in splits
        ]

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        for row in self.plan.pairs(split):
            yield row["pair_id"], row

    def _download_and_prepare(self, *arguments, **options) -> None:
        super()._download_and_prepare(*arguments, **options)
        self.info.features = pair_features(self.config.face_embedding_size())  # for readers
        if not self.config.units:
            shutil.rmtree(self.units_folder)

    def _make_units(self) -> list[Unit]:
        """Does what is still to be done, one video after the other or many at once."""
        folder = self.units_folder
        folder.mkdir(parents=True, exist_ok=True)
        done = {path.name for path in folder.iterdir() if path.suffix == ".parquet"}
        videos = [
            video
            for video in self.listing.videos
            if video.video_id not in self.removed and video.speaker_id not in self.removed
        ]
        units = [Unit(video, folder / f"{unit_name(video)}.parquet") for video in videos]
        missing = [unit for unit in units if unit.file.name not in done]
        work = UnitWork(
            self.config.extract or partial(extract_unit, config=self.config.extraction),
            self.config.face_embedding_size(),
            self.config.extraction.limits.max_seconds_of_work + SPARE_SECONDS,
        )
        reports = run_units(
            missing, work, self.config.workers, self.config.engine, self.config.ray_address
        )
        _show_progress(reports, len(units), len(units) - len(missing))
        return units


def source_config(kind: str, **options) -> SourceConfig:
    """The configuration of a source.

    Args:
        kind: "folder", "voxceleb", "avspeech" or "cast".
        options: attributes of its class.

    Raises:
        ValueError: for an unknown kind.
    """
    kinds = {config.name: config for config in SpeechFacePairs.BUILDER_CONFIGS}
    if kind not in kinds:
        raise ValueError(f"unknown source {kind!r}: choose one of {', '.join(kinds)}")
    return replace(kinds[kind], **options)


def _show_progress(reports: Iterator, total: int, initial: int) -> None:
    from tqdm import tqdm

    start, seconds, pairs = time.monotonic(), 0.0, 0
    with tqdm(total=total, initial=initial, desc="videos", unit="video") as progress:
        for report in reports:
            seconds += report.seconds
            pairs += report.pairs
            rate = seconds / max(1e-3, time.monotonic() - start)
            progress.set_postfix_str(f"{pairs} pairs, {rate:.1f} x real time", refresh=False)
            progress.update()


def build_dataset(
    output: str | Path,
    config: SourceConfig,
    rights: str | None = None,
    contact: str | None = None,
) -> Path:
    """Builds a data set in a folder, or continues with it.

    Args:
        output: the folder; all workers must see it under this path.
        config: of the source, see `source_config`.
        rights: by what right the data may be passed on; it goes into the card.
        contact: whom people can ask to be taken out; it goes into the card.

    Returns:
        The folder, for `datasets.load_dataset`.

    Raises:
        FileExistsError: if the folder holds something else, or is being written.
        NoPairs: if no pair was found; `refused.parquet` says why.
        ValueError: if the source is not what it should be.
    """
    from filelock import FileLock, Timeout

    output = Path(output).absolute()  # workers may have another working directory
    unfinished = output / f"unfinished-{config.units_fingerprint()[:12]}"
    _check_is_beside(output, config)
    if config.known:
        finish_removal(Path(config.known))  # before its persons, and who was removed, are read
    listing = config.list_videos()
    fingerprint = config.fingerprint(listing)
    if (output / CARD_FILE).exists():
        _check_is_the_same(output, config, listing.videos, fingerprint)
        remove_folder(unfinished)  # if a run was killed as it tidied up
        return output
    if not unfinished.is_dir() and any(output.glob("unfinished-*/videos")):
        raise FileExistsError(
            f"{output} holds an unfinished run with other options: choose another folder, or "
            "remove it"
        )
    if not unfinished.is_dir() and [*output.glob("unfinished-*"), *output.glob("*.parquet")]:
        raise FileExistsError(f"{output} holds another data set: choose another folder")
    unfinished.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(unfinished / "lock", blocking=False):
            builder = _write_pairs(config, listing, unfinished, output)
            about = _about(builder, fingerprint, rights, contact)
            _finish(builder, about, unfinished, output)
    except Timeout:
        raise FileExistsError(f"{output} is being written by another run: wait for it") from None
    remove_folder(unfinished)
    return output


def _check_is_beside(output: Path, config: SourceConfig) -> None:
    for source in config.folders():
        if output.resolve().is_relative_to(source.resolve()):
            raise ValueError(f"{output} lies among the videos: choose a folder outside {source}")


def _check_is_the_same(
    output: Path, config: SourceConfig, videos: Sequence[SourceVideo], fingerprint: str
) -> None:
    about = read_about(output / CARD_FILE)
    if about.get("fingerprint") == fingerprint:
        return
    if about.get("builder") != BUILDER:
        raise FileExistsError(f"{output} holds another data set: choose another folder")
    same_options = about.get("configuration_fingerprint") == config.configuration_fingerprint()
    if not same_options or _videos_of(output).isdisjoint(video.video_id for video in videos):
        raise FileExistsError(
            f"{output} was built with other options, or from another source: choose another "
            "folder, or remove it"
        )
    raise FileExistsError(
        f"{output} is finished, and its source has changed since: build a new folder with "
        f"--known {output}, so that every person keeps name and split"
    )


def _videos_of(folder: Path) -> set[str]:
    """The ids of all videos that a finished data set speaks of."""
    files = [path for paths in split_files(folder).values() for path in paths]
    return {row["video_id"] for row in rows([*files, folder / REFUSED_FILE], ["video_id"])}


def _write_pairs(
    config: SourceConfig, listing: Listing, unfinished: Path, output: Path
) -> SpeechFacePairs:
    """Does the videos, and writes the pairs into a folder of their own."""
    for name in ("cache", "parquet", "parquet.incomplete", "finished"):  # of a killed run
        remove_folder(unfinished / name)
    options = {name: getattr(config, name) for name in type(config).__dataclass_fields__}
    for name in ("name", "version", "description", "data_dir", "data_files"):
        del options[name]
    # Kept there, the cache is on the disk of the data set, and goes with the rest.
    options["units"] = str(unfinished / "videos")
    builder = SpeechFacePairs(
        config_name=config.name, cache_dir=str(unfinished / "cache"), **options
    )
    builder.listing = listing
    builder.removed = Removed.read(output, *([Path(config.known)] if config.known else []))
    try:
        builder.download_and_prepare(str(unfinished / "parquet"), file_format="parquet")
    except NoPairs:
        write_refused(builder.refused(), output / REFUSED_FILE)
        raise
    except datasets.exceptions.DatasetGenerationError as error:
        raise RuntimeError(f"the pairs cannot be written: {error.__cause__ or error}") from error
    return builder


def _about(
    builder: SpeechFacePairs, fingerprint: str, rights: str | None, contact: str | None
) -> dict:
    """What the card says beside the figures."""
    config = builder.config
    said = {"rights": rights, "contact": contact}
    return {
        "face_recogniser": config.extraction.face_recogniser,
        "face_embedding_size": config.face_embedding_size(),
        "builder": BUILDER,
        "builder_version": BUILDER_VERSION,
        "source": config.name,
        "videos": len(builder.plan.units) + len(builder.listing.refusals),
        "ignored_files": builder.listing.ignored,
        "hours_read": round(builder.plan.seconds / 3600, 4),
        "cluster_threshold": round(float(builder.plan.cluster_threshold), 6),
        **{name: text for name, text in said.items() if text},
        **({"removed": builder.removed.counts()} if builder.removed.hashes else {}),
        "configuration": config.stated(),
        "configuration_fingerprint": config.configuration_fingerprint(),
        "fingerprint": fingerprint,
    }


def _finish(builder: SpeechFacePairs, about: dict, unfinished: Path, output: Path) -> None:
    """Makes the rest of the data set, and moves all of it to where it belongs."""
    finished = unfinished / "finished"
    finished.mkdir()
    _name_by_split(unfinished / "parquet", finished)
    write_refused(builder.refused(), finished / REFUSED_FILE)
    builder.removed.write(finished)
    describe(finished, split_files(finished), finished / REFUSED_FILE, about)
    names = {path.name for path in finished.iterdir()}
    left = [path.name for paths in split_files(output).values() for path in paths]
    move_into_place(finished, output, gone=[name for name in left if name not in names])


def _name_by_split(written: Path, finished: Path) -> None:
    """Gives the files of `datasets` the names that the Hub knows: train-00000-of-00002.parquet."""
    for split in SPLITS:
        files = sorted(written.glob(f"*-{split}*.parquet"))
        for number, file in enumerate(files):
            file.replace(finished / f"{split}-{number:05d}-of-{len(files):05d}.parquet")
