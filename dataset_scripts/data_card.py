"""What is said of a data set of pairs: its figures, its card, its contact sheet, its histograms.

All of it is made from the Parquet files themselves, so that it can be made again when some are
taken out; nothing of it depends on the day or the machine.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset_scripts.pair_table import contact_sheet
from dataset_scripts.records import REASONS
from dataset_scripts.splits import SPLITS

QUALITY = {
    "sync_score": "how surely the mouth moves with the speech",
    "frontality": "1: the face looks straight into the camera",
    "sharpness": "variance of the Laplacian of the aligned face",
    "speech_ratio": "share of the clip in which somebody speaks",
    "face_size_px": "size of the face in the video, pixels",
}
SHEET_PERSONS, SHEET_FACES = 12, 6
BATCH_ROWS = 100
CARD_FILE, REFUSED_FILE, SHEET_FILE, HISTOGRAMS_FILE = (
    "README.md",
    "refused.parquet",
    "contact_sheet.png",
    "histograms.png",
)
NO_RIGHTS = "Nobody has stated the rights to this data set. Until somebody does, do not pass it on."
HUB_LICENCES = {
    "cc by 4.0": "cc-by-4.0",
    "cc-by-4.0": "cc-by-4.0",
    "cc by-sa 4.0": "cc-by-sa-4.0",
    "cc-by-sa-4.0": "cc-by-sa-4.0",
    "cc0-1.0": "cc0-1.0",
    "cc0 1.0": "cc0-1.0",
    "apache-2.0": "apache-2.0",
    "mit": "mit",
}
SOURCES = {
    "folder": (
        "Pairs of speech and face from a folder of videos",
        "Videos of a folder, chosen by whoever built this data set.",
        "Whether the people seen and heard here agreed to it, this builder cannot know: see the "
        "statement of rights below.",
    ),
    "voxceleb": (
        "Pairs of speech and face from VoxCeleb",
        "[VoxCeleb](https://www.robots.ox.ac.uk/~vgg/data/voxceleb/) (A. Nagrani, J. S. Chung, "
        "A. Zisserman, 2017 and 2018): interviews of well-known people on YouTube. The videos "
        "belong to those who put them there. Where there are only sound and face crops, that the "
        "face speaks is VoxCeleb's word, and `sync_score` is empty.",
        "The people in it were not asked. They are known by name, and each of them can object.",
    ),
    "avspeech": (
        "Pairs of speech and face from AVSpeech",
        "[AVSpeech](https://looking-to-listen.github.io/avspeech/) (A. Ephrat et al., 2018): "
        "stretches of YouTube videos in which one person is seen and heard. The list is under "
        "CC BY 4.0; the videos belong to those who put them there.",
        "The people in it were not asked, and most do not know of it. Each of them can object.",
    ),
    "cast": (
        "Pairs of speech and face from films of a synthetic cast",
        "Films of the project's own synthetic cast. **The faces are of nobody**: each was invented "
        "by a random draw and rendered. Some of the voices are those of LibriSpeech's readers, "
        "shifted in pitch, formants and rate; the faces given to them have nothing to do with the "
        "readers. Which traits of a face go with which traits of a voice was decided by whoever "
        "wrote the cast's laws, and is no evidence about anyone.",
        "Nobody is seen. LibriSpeech's readers gave their recordings to the public domain; the "
        "other voices are synthetic.",
    ),
}


@dataclass
class Figures:
    """What is counted in the files of a data set.

    Attributes:
        pairs, hours: by split.
        speakers: by split, the set of the persons' ids.
        labels: how many persons the source named; the others were found by their faces.
        genders, languages, licences, sources: pairs by what is stated; "" where nothing is.
        videos: ids of those that gave pairs.
        quality: the values of each quality column, float32; nothing for rows without one.
        refused_videos, refused_segments: by reason.
    """

    pairs: Counter = field(default_factory=Counter)
    hours: Counter = field(default_factory=Counter)
    speakers: dict[str, set[str]] = field(default_factory=lambda: {s: set() for s in SPLITS})
    labels: set[str] = field(default_factory=set)
    genders: Counter = field(default_factory=Counter)
    languages: Counter = field(default_factory=Counter)
    licences: Counter = field(default_factory=Counter)
    sources: Counter = field(default_factory=Counter)
    videos: set[str] = field(default_factory=set)
    quality: dict[str, np.ndarray] = field(default_factory=dict)
    refused_videos: Counter = field(default_factory=Counter)
    refused_segments: Counter = field(default_factory=Counter)


def split_files(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files of each split that a folder has."""
    files = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in SPLITS}
    return {split: paths for split, paths in files.items() if paths}


def rows(files: Iterable[Path], columns: Sequence[str]) -> Iterator[dict]:
    """Yields rows of Parquet files, one after the other, some at a time in memory.

    Raises:
        ValueError: for a file that is no Parquet, or lacks a column.
    """
    import pyarrow
    import pyarrow.parquet

    for file in files:
        try:
            with pyarrow.parquet.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(BATCH_ROWS, columns=list(columns)):
                    yield from batch.to_pylist()
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{file} cannot be read as Parquet: {error}") from error


def measure(files: Mapping[str, Sequence[Path]], refused: Path) -> Figures:
    """Counts what is in the files of a data set.

    Args:
        files: by split, as `split_files` gives them.
        refused: `refused.parquet`.
    """
    figures = Figures()
    stated = {
        "gender": figures.genders,
        "language": figures.languages,
        "licence": figures.licences,
        "source": figures.sources,
    }
    columns = ["speaker_id", "speaker_source", "video_id", "start_s", "end_s", *stated, *QUALITY]
    quality = {name: [] for name in QUALITY}
    for split, paths in files.items():
        for row in rows(paths, columns):
            figures.pairs[split] += 1
            figures.hours[split] += (row["end_s"] - row["start_s"]) / 3600
            figures.speakers[split].add(row["speaker_id"])
            figures.videos.add(row["video_id"])
            if row["speaker_source"] == "label":
                figures.labels.add(row["speaker_id"])
            for name, counter in stated.items():
                counter[row[name] or ""] += 1
            for name, values in quality.items():
                if row[name] is not None:
                    values.append(np.float32(row[name]))
    figures.quality = {name: np.array(values, np.float32) for name, values in quality.items()}
    for row in rows([refused], ["start_s", "reason"]):
        whole = row["start_s"] is None
        (figures.refused_videos if whole else figures.refused_segments)[row["reason"]] += 1
    return figures


def draw_contact_sheet(files: Mapping[str, Sequence[Path]], to: Path) -> int:
    """Draws some persons, a row each, with faces from as many videos as can be.

    Args:
        files: by split.
        to: the PNG file.

    Returns:
        How many persons are on it.
    """
    paths = [path for split in SPLITS for path in files.get(split, ())]
    persons = {row["speaker_id"] for row in rows(paths, ["speaker_id"])}
    # By hash: neither the first of the alphabet nor the most filmed; others removed move nobody.
    chosen = sorted(persons, key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen = chosen[:SHEET_PERSONS]
    places = _faces_to_show(paths, chosen)
    faces = _faces_at(paths, {place for shown in places.values() for place in shown})
    tiles = []
    for person in chosen:
        shown = [(faces[place], person) for place in places[person]]
        tiles += shown + [None] * (SHEET_FACES - len(shown))
    contact_sheet(tiles, SHEET_FACES).save(to)
    return len(chosen)


def _faces_to_show(paths: Sequence[Path], persons: Sequence[str]) -> dict[str, list[int]]:
    """The places of some rows of each person among all rows; other videos before other clips."""
    found = {person: [] for person in persons}
    for place, row in enumerate(rows(paths, ["speaker_id", "video_id"])):
        seen = found.get(row["speaker_id"])
        if seen is not None:
            again = sum(video == row["video_id"] for _, _, video in seen)
            seen.append((again, place, row["video_id"]))
            seen.sort()
            del seen[SHEET_FACES:]
    return {person: [place for _, place, _ in seen] for person, seen in found.items()}


def _faces_at(paths: Sequence[Path], places: set[int]) -> dict[int, bytes]:
    """The faces at some places among all rows; only groups of rows that hold one are read."""
    import pyarrow.parquet

    faces, start = {}, 0
    for path in paths:
        with pyarrow.parquet.ParquetFile(path) as parquet:
            for group in range(parquet.num_row_groups):
                end = start + parquet.metadata.row_group(group).num_rows
                here = sorted(places & set(range(start, end)))
                if here:
                    column = parquet.read_row_group(group, columns=["face.bytes"])["face"]
                    for place in here:
                        faces[place] = column[place - start].as_py()["bytes"]
                start = end
    return faces


def draw_histograms(figures: Figures, to: Path) -> None:
    """Draws how each quality column is distributed.

    Args:
        figures: of the data set.
        to: the PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(QUALITY), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, values) in zip(
        figure.subplots(1, len(QUALITY)), figures.quality.items(), strict=True
    ):
        if len(values):
            axes.hist(values, bins=40)
            axes.axvline(np.median(values), color="black", linewidth=1)
        axes.set_title(name)
        axes.set_xlabel(QUALITY[name], fontsize=7)
        axes.set_yticks([])
    figure.savefig(to, metadata={"Software": None})


def describe(
    folder: Path, files: Mapping[str, Sequence[Path]], refused: Path, about: Mapping
) -> Figures:
    """Writes contact sheet, histograms and card of a data set.

    Args:
        folder: for these three.
        files: the pairs, by split.
        refused: `refused.parquet`.
        about: see `render_card`.

    Returns:
        The figures in the card.
    """
    figures = measure(files, refused)
    draw_contact_sheet(files, folder / SHEET_FILE)
    draw_histograms(figures, folder / HISTOGRAMS_FILE)
    (folder / CARD_FILE).write_text(render_card(about, figures), encoding="utf-8")
    return figures


def say_figures(folder: Path) -> str:
    """Says in a sentence what a finished data set holds.

    Args:
        folder: of the data set.
    """
    figures = measure(split_files(folder), folder / REFUSED_FILE)
    persons = sum(len(names) for names in figures.speakers.values())
    refused = sum(figures.refused_videos.values()) + sum(figures.refused_segments.values())
    said = f"{counted(sum(figures.pairs.values()), 'pair')} of {counted(persons, 'person')}; "
    if not refused:
        return f"{said}nothing was refused"
    were = "was" if refused == 1 else "were"
    what = counted(refused, "video or segment", "videos and segments")
    return f"{said}{what} {were} refused, see {REFUSED_FILE}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number of things, in the grammar of one or of many."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def read_about(card: Path) -> dict:
    """What the head of a data set's card says of its making.

    Returns:
        The entry `speech2face` of its YAML; empty if there is none.
    """
    import yaml

    # A line of its own: what is said of the rights may hold dashes too.
    parts = re.split("^---\n", card.read_text(encoding="utf-8"), flags=re.MULTILINE)
    try:
        head = yaml.safe_load(parts[1]) if len(parts) > 2 and not parts[0].strip() else None
    except yaml.YAMLError:
        head = None
    about = head.get("speech2face") if isinstance(head, dict) else None
    return about if isinstance(about, dict) else {}


def render_card(about: Mapping, figures: Figures) -> str:
    """Writes the card of a data set.

    Args:
        about: what the files do not say: `source` (a key of `SOURCES`), `face_recogniser`,
            `face_embedding_size`, `builder_version`, `configuration`, `videos` (listed),
            `ignored_files`, `hours_read`, and optionally `rights`, `contact` and `removed`.
        figures: of the files.

    Returns:
        Markdown with its YAML head.
    """
    import yaml

    title, what, consent = SOURCES[about["source"]]
    text = Path(__file__).with_name("pairs_card.md").read_text(encoding="utf-8")
    text = text.format(
        title=title,
        what=what,
        consent=consent,
        splits=_splits(figures),
        first_split=next((split for split in SPLITS if figures.pairs[split]), SPLITS[0]),
        persons=_persons(figures),
        videos_with_pairs=len(figures.videos),
        videos=counted(about["videos"], "video"),
        hours_read=_hours(about["hours_read"]),
        ignored=_ignored(about),
        sources=_table(figures.sources),
        licences=_table(figures.licences),
        rights=about.get("rights") or NO_RIGHTS,
        whom_to_ask=_whom_to_ask(about),
        removed=_removed(about),
        quality=_quality(figures),
        groups=_groups(figures),
        refused=_refused(figures),
        face_recogniser=about["face_recogniser"],
        face_embedding_size=about["face_embedding_size"],
        builder_version=about["builder_version"],
    )
    head = yaml.safe_dump(_head(about, figures, title), sort_keys=False, allow_unicode=True)
    return f"---\n{head.strip()}\n---\n\n{text}"


def _head(about: Mapping, figures: Figures, title: str) -> dict:
    licences = {HUB_LICENCES.get(licence.lower()) for licence in figures.licences}
    known = sorted(name for name in licences if name) if None not in licences else []
    languages = sorted(language for language in figures.languages if language)
    return {
        "pretty_name": title,
        "license": known or ["other"],
        **({"language": languages} if languages else {}),
        "tags": ["speech", "faces", "speech2face", *_tags(about["source"])],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": split, "path": f"{split}-*.parquet"}
                    for split in SPLITS
                    if figures.pairs[split]  # a pattern without a file cannot be loaded
                ],
            }
        ],
        "speech2face": dict(about),
    }


def _tags(source: str) -> list[str]:
    return ["synthetic"] if source == "cast" else ["biometric"]


def _splits(figures: Figures) -> str:
    return "\n".join(
        f"| {split} | {figures.pairs[split]} | {len(figures.speakers[split])} | "
        f"{_hours(figures.hours[split])} |"
        for split in SPLITS
    )


def _hours(hours: float) -> str:
    """Hours in two decimals, or in as many as show that they are not none."""
    return f"{hours:.2f}" if hours >= 0.005 or not hours else f"{hours:.1g}"


def _persons(figures: Figures) -> str:
    total = sum(len(persons) for persons in figures.speakers.values())
    found = total - len(figures.labels)
    were = "was found by the face" if found == 1 else "were found by their faces"
    return (
        f"Of the {counted(total, 'person')}, the source names {len(figures.labels)} "
        f"(`speaker_source: label`); {found} {were} alone (`cluster`)."
    )


def _ignored(about: Mapping) -> str:
    count = about.get("ignored_files", 0)
    if not count:
        return ""
    said = "is no video" if count == 1 else "are no videos"
    return f" {counted(count, 'file')} beside them {said}."


def _table(counter: Counter) -> str:
    return "\n".join(
        f"| {name or 'not stated'} | {count} |"
        for name, count in sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    )


def _whom_to_ask(about: Mapping) -> str:
    if about.get("contact"):
        return f"write to {about['contact']},"
    return "write on the *Community* page of this data set, or to whoever gave it to you,"


def _removed(about: Mapping) -> str:
    removed = about.get("removed")
    if not removed:
        return ""
    return (
        f"\nSo far {counted(removed['persons'], 'person')} and "
        f"{counted(removed['videos'], 'video')}, {counted(removed['pairs'], 'pair')} in all, "
        "were taken out on request.\n"
    )


def _quality(figures: Figures) -> str:
    lines = []
    for name, values in figures.quality.items():
        quartiles = np.percentile(values, [25, 50, 75]) if len(values) else []
        shown = " | ".join(f"{value:.3g}" for value in quartiles) or "none | none | none"
        lines.append(f"| {name} | {QUALITY[name]} | {shown} |")
    return "\n".join(lines)


def _groups(figures: Figures) -> str:
    """Tables of what the source states of the people; nothing where it states nothing."""
    text = ""
    for name, counter in (("gender", figures.genders), ("language", figures.languages)):
        if set(counter) - {""}:
            text += f"\n| {name}, as the source states it | pairs |\n|---|---|\n{_table(counter)}\n"
    return text


def _refused(figures: Figures) -> str:
    """What was refused, in a sentence and a table; a sentence alone where nothing was."""
    reasons = {**figures.refused_videos, **figures.refused_segments}
    if not reasons:
        return "Nothing."
    total = max(1, sum(figures.pairs.values()) + sum(figures.refused_segments.values()))
    refused = sum(figures.refused_segments.values())
    table = "\n".join(
        f"| {reason} | {REASONS[reason]} | {figures.refused_videos[reason]} | "
        f"{figures.refused_segments[reason]} | {figures.refused_segments[reason] / total:.1%} |"
        for reason in sorted(reasons)
    )
    return (
        "`refused.parquet` names every video and every segment that was refused, and why. Of the\n"
        f"{counted(total, 'segment')} of speech that {'was' if total == 1 else 'were'} looked at, "
        f"{refused / total:.1%} were refused.\n\n"
        "| reason | | videos | segments | share of the segments |\n|---|---|---|---|---|\n"
        f"{table}"
    )
