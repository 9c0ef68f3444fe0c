"""One video, one unit of work, one file: what came of a video, written whole or not at all."""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dataset_scripts.records import Extraction, Refusal, SourceVideo

MAX_DETAIL = 300  # characters
BATCH_ROWS = 64  # read at once: some 10 MB of speech and faces


@dataclass(frozen=True)
class Unit:
    """A video, and where what comes of it is kept.

    Attributes:
        video: as the source lists it.
        file: a Parquet file, which appears when the video is done.
    """

    video: SourceVideo
    file: Path


@dataclass(frozen=True)
class UnitReport:
    """What an engine is told when a unit is done.

    Attributes:
        video_id: of the video.
        seconds: of video that were read.
        pairs: how many it gave.
    """

    video_id: str
    seconds: float
    pairs: int


@dataclass(frozen=True)
class UnitWork:
    """The work that is the same for every unit; an engine carries it to its workers.

    Attributes:
        extract: a function that can be pickled, from a video to what came of it.
        face_embedding_size: D, of the teacher.
        max_seconds: by the clock on the wall, before an engine gives a video up.
    """

    extract: Callable[[SourceVideo], Extraction]
    face_embedding_size: int
    max_seconds: float = 3600.0

    def prepare(self) -> None:
        """Imports what every unit needs."""
        _schema(self.face_embedding_size)

    def __call__(self, unit: Unit) -> UnitReport:
        """Does a unit; a fault of the code refuses this video and no other."""
        try:
            extraction = self.extract(unit.video)
        except Exception as error:
            return self.refuse(unit, "failed", f"{type(error).__name__}: {error}")
        try:
            write_unit(unit, extraction, self.face_embedding_size)
        except OSError:
            raise  # a full disk is no fault of the video
        except Exception as error:
            return self.refuse(unit, "failed", f"{type(error).__name__}: {error}")
        return UnitReport(unit.video.video_id, extraction.duration_s, len(extraction.pairs))

    def refuse(self, unit: Unit, reason: str, detail: str) -> UnitReport:
        """Writes down that a whole video was refused."""
        refusal = Refusal(unit.video.video_id, None, None, reason, detail)
        write_unit(unit, Extraction(refusals=[refusal]), self.face_embedding_size)
        return UnitReport(unit.video.video_id, 0.0, 0)


def unit_name(video: SourceVideo) -> str:
    """Names a unit by all that the source says of the video, and by the size of its file.

    A file that was cut short and is whole now is another unit; one that was moved is the same.
    """
    stated = asdict(video)
    stated["crops"] = len(stated.get("crops") or ())
    path = stated.pop("path")
    try:
        stated["bytes"] = os.stat(path).st_size
    except OSError:
        stated["bytes"] = None  # the extraction will say why
    content = json.dumps(stated, sort_keys=True, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def write_unit(unit: Unit, extraction: Extraction, face_embedding_size: int) -> None:
    """Writes what came of a video; the file appears only when it is whole.

    Args:
        unit: the video and its file.
        extraction: what came of it.
        face_embedding_size: D, of the teacher.

    Raises:
        ValueError: for a pair with a column that the data contract lacks.
    """
    import pyarrow
    import pyarrow.parquet

    schema = _schema(face_embedding_size)
    unknown = {name for pair in extraction.pairs for name in pair} - set(schema.names)
    if unknown:
        raise ValueError(f"pairs have no column {', '.join(sorted(unknown))}")
    rows = [{name: _plain(value) for name, value in pair.items()} for pair in extraction.pairs]
    about = {
        "video_id": unit.video.video_id,
        "refusals": [
            {**asdict(refusal), "detail": _one_line(refusal.detail)}
            for refusal in extraction.refusals
        ],
        "fingerprint": [int(number) for number in extraction.fingerprint],
        "duration_s": float(extraction.duration_s),
    }
    table = pyarrow.Table.from_pylist(rows, schema=schema)
    table = table.replace_schema_metadata({"unit": json.dumps(about)})
    unfinished = unit.file.with_suffix(f".{os.getpid()}.unfinished")
    with unfinished.open("wb") as file:
        pyarrow.parquet.write_table(table, file, compression="none")  # it is compressed already
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(unit.file)


def read_unit(file: Path, columns: Sequence[str] = ()) -> Extraction:
    """Reads what came of a video.

    Args:
        file: of the unit.
        columns: of the pairs that are read; the others stay on disk.

    Returns:
        The extraction; its pairs have these columns only.

    Raises:
        ValueError: if the file is damaged.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            about = json.loads(parquet.schema_arrow.metadata[b"unit"])
            pairs = parquet.read(columns=list(columns)).to_pylist() if columns else []
    except pyarrow.ArrowInvalid as error:
        raise ValueError(
            f"{file} is damaged ({error}): remove it, and the same command makes it again"
        ) from error
    refusals = [Refusal(**refusal) for refusal in about["refusals"]]
    return Extraction(pairs, refusals, about["fingerprint"], about["duration_s"])


def read_pairs(file: Path) -> Iterator[dict]:
    """Yields the pairs of a unit with all their columns, a few in memory at a time."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(BATCH_ROWS):
            yield from batch.to_pylist()


@functools.cache
def _schema(face_embedding_size: int):
    import pyarrow

    from dataset_scripts.pair_table import pair_features

    later = ("speaker_id", "speaker_source")  # known when all videos are
    fields = [
        field
        for field in pair_features(face_embedding_size).arrow_schema
        if field.name not in later
    ]
    track = ("track", pyarrow.int32())
    return pyarrow.schema(
        [*fields, track, ("track_embedding", pyarrow.list_(pyarrow.float32(), face_embedding_size))]
    )


def _one_line(text: str) -> str:
    """A message of any library as a line that any table can hold."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return line if len(line) <= MAX_DETAIL else f"{line[:MAX_DETAIL]} ..."


def _plain(value):
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
