"""Takes persons and videos out of a built data set: the files, the pictures, the figures.

Everything that changes is written beside the data set first; then it is moved into place. A killed
removal is finished by whatever is done with the folder next.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from dataset_scripts.assembly import SAME_AS, Removed, move_into_place, remove_folder
from dataset_scripts.data_card import (
    BATCH_ROWS,
    CARD_FILE,
    REFUSED_FILE,
    counted,
    describe,
    read_about,
    rows,
    split_files,
)

UNFINISHED, READY = "unfinished-removal", "removal-ready"
GONE_FILE = "gone.list"  # within READY: which files the data set has no more


def read_list(path: Path) -> list[str]:
    """Reads whom to take out.

    Args:
        path: a text file with a speaker_id or a video_id a line; what follows `#` is a comment.

    Raises:
        ValueError: if it cannot be read or names nobody.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a list of names: {error}") from error
    # An id may hold a "#" itself: only one at the start, or after a space, begins a comment.
    names = [(" " + line).split(" #")[0].strip() for line in lines]
    names = list(dict.fromkeys(name for name in names if name))
    if not names:
        raise ValueError(f"{path} names nobody: write a speaker_id or a video_id on each line")
    return names


def remove_from_dataset(folder: Path, names: Collection[str]) -> str:
    """Takes persons or videos out of a data set; files without them are left as they are.

    Args:
        folder: of the data set.
        names: each a speaker_id or a video_id.

    Returns:
        A sentence that says what was done.

    Raises:
        ValueError: for a name that is neither there nor was removed before, and if nothing would
            be left; then nothing is changed.
    """
    finish_removal(folder)
    about = dataset_about(folder)
    for leftover in folder.glob("unfinished-*"):  # of a run that was killed as it tidied up
        remove_folder(leftover)
    removed = Removed.read(folder)
    wanted = {name for name in names if name not in removed}
    if not wanted:
        return f"{folder} holds none of them any more"
    found = _Found(folder, wanted)
    unknown = sorted(wanted - found.persons - found.videos)
    if unknown:
        raise ValueError(
            f"{', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}: no such person or "
            f"video is in {folder}; nothing was removed"
        )
    if found.left == 0:
        raise ValueError(f"without them {folder} would be empty: remove the folder instead")
    removed.add(wanted | found.pairs | found.duplicates)
    removed.persons += len(found.persons)
    removed.videos += len(found.videos)
    removed.pairs += len(found.pairs)
    about = {**about, "removed": removed.counts()}
    about["videos"] -= len(found.bare_videos | found.duplicates)
    _write(folder, found, removed, about)
    finish_removal(folder)
    return (
        f"{folder}: {counted(len(found.persons), 'person')} and "
        f"{counted(len(found.videos), 'video')} were taken out, "
        f"{counted(len(found.pairs), 'pair')} in all"
        + "".join(
            f"; {copy} is the same recording as {kept}, which stays: list {kept} too"
            for copy, kept in sorted(found.kept_copies.items())
        )
    )


def finish_removal(folder: Path) -> None:
    """Finishes a removal that was killed when all was ready, and forgets one that was not."""
    ready = folder / READY
    if ready.is_dir():
        if (ready / GONE_FILE).is_file():
            gone = (ready / GONE_FILE).read_text(encoding="utf-8").splitlines()
            for name in gone:
                (folder / name).unlink(missing_ok=True)
            (ready / GONE_FILE).unlink()
        move_into_place(ready, folder)
        remove_folder(ready)
    remove_folder(folder / UNFINISHED)


def dataset_about(folder: Path) -> dict:
    """What the card of a finished data set says of its making.

    Raises:
        ValueError: if the folder holds no finished data set that this command built.
    """
    card = folder / CARD_FILE
    about = read_about(card) if card.is_file() else {}
    if about.get("builder") != "dataset_scripts.speech_face_pairs":
        raise ValueError(f"{folder} holds no finished data set that this command built")
    return about


class _Found:
    """What is to go, and what it leaves.

    Attributes:
        persons, videos: of the wanted names, those that are there.
        pairs: ids of the pairs that go.
        files: Parquet files that hold some of them.
        bare_videos: ids of videos, no matter who asked, in which nobody is left.
        duplicates: ids of other copies of these, which would take their place.
        kept_copies: wanted videos that gave nothing -> the same recording, which stays.
        left: how many pairs stay.
    """

    def __init__(self, folder: Path, wanted: Collection[str]):
        self.persons, self.videos, self.pairs, self.files = set(), set(), set(), set()
        self.left = 0
        touched, kept = set(), set()
        for paths in split_files(folder).values():
            for path in paths:
                for row in rows([path], ["pair_id", "speaker_id", "video_id"]):
                    if not self._take(row, wanted):
                        self.left += 1
                        kept.add(row["video_id"])
                        continue
                    self.pairs.add(row["pair_id"])
                    self.files.add(path)
                    touched.add(row["video_id"])
        copies = {}
        for row in rows([folder / REFUSED_FILE], ["speaker_id", "video_id", "reason", "detail"]):
            if self._take(row, wanted):
                touched.add(row["video_id"])
            if row["reason"] == "duplicate":
                copies[row["video_id"]] = row["detail"].removeprefix(SAME_AS)
        self.bare_videos = (touched - kept) | self.videos
        self.duplicates = {copy for copy, of in copies.items() if of in self.bare_videos}
        self.kept_copies = {
            copy: of
            for copy, of in copies.items()
            if copy in self.videos and of not in self.bare_videos
        }

    def _take(self, row: dict, wanted: Collection[str]) -> bool:
        """Whether a row goes; notes the name by which it does."""
        if row["speaker_id"] in wanted:
            self.persons.add(row["speaker_id"])
        if row["video_id"] in wanted:
            self.videos.add(row["video_id"])
        return row["speaker_id"] in wanted or row["video_id"] in wanted

    def refusal_goes(self, row: dict) -> bool:
        """Whether a row of the table of refusals speaks of somebody who goes."""
        names = self.persons | self.bare_videos
        return (
            row["video_id"] in names
            or row["speaker_id"] in names
            or (row["detail"] or "").endswith(tuple(f" {name}" for name in names))
        )


def _write(folder: Path, found: _Found, removed: Removed, about: dict) -> None:
    """Writes every file that changes into a folder of its own, and marks that all are there."""
    unfinished = folder / UNFINISHED
    unfinished.mkdir()
    files, gone = {}, []
    for split, paths in split_files(folder).items():
        for path in paths:
            if path in found.files:
                new = unfinished / path.name
                if not _filter(path, new, lambda row: row["pair_id"] not in found.pairs):
                    new.unlink()
                    gone.append(path.name)
                    continue
                path = new
            files.setdefault(split, []).append(path)
    refused = unfinished / REFUSED_FILE
    _filter(folder / REFUSED_FILE, refused, lambda row: not found.refusal_goes(row))
    removed.write(unfinished)
    describe(unfinished, files, refused, about)
    (unfinished / GONE_FILE).write_text("".join(f"{name}\n" for name in gone), encoding="utf-8")
    unfinished.replace(folder / READY)


def _filter(source: Path, to: Path, keeps: Callable[[dict], bool]) -> int:
    """Copies the rows of a Parquet file that stay; returns how many."""
    import pyarrow
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(source) as old:
        schema = old.schema_arrow
        small = [name for name in schema.names if name not in ("audio", "face")]
        count = 0
        with pyarrow.parquet.ParquetWriter(to, schema, compression=_compression(old)) as new:
            for batch in old.iter_batches(BATCH_ROWS):
                stays = [keeps(row) for row in batch.select(small).to_pylist()]
                kept = batch.filter(pyarrow.array(stays, pyarrow.bool_()))
                if len(kept):
                    new.write_batch(kept)
                count += len(kept)
    return count


def _compression(parquet) -> dict[str, str] | str:
    """How each column of a file is compressed: speech and pictures are not, twice is no help."""
    if parquet.num_row_groups == 0:
        return "snappy"
    group = parquet.metadata.row_group(0)
    columns = [group.column(k) for k in range(group.num_columns)]
    names = {column.path_in_schema: column.compression for column in columns}
    return {path: "none" if n == "UNCOMPRESSED" else n.lower() for path, n in names.items()}
