"""Pairs whose speech stays where it is, in Parquet files in a folder or on the Hub.

Only what is small is read at once: embeddings, speakers, genders (half a kilobyte a pair). Speech
comes by row groups, a few of which are kept. The order of rows is a pure function of (seed, epoch,
lane), so that a resumed run continues exactly, without any buffer that would have to be saved.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from training.data import Pairs, fingerprint, pairs_of, parquet_files, read_speech, teacher_of
from training.hub import first_line

SMALL_COLUMNS = ("pair_id", "face_embedding", "speaker_id", "gender", "age", "voice_id")
SMALL_COLUMNS += ("voice_parameters",)  # which a cast alone states
ROW_GROUPS_KEPT = 16  # of one lane, in memory, encoded; rows are shuffled within so many


@dataclass
class StreamedPairs(Pairs):
    """As `Pairs`, but speech is read from its Parquet file when it is asked for.

    Attributes:
        files: paths or addresses of the Parquet files.
        group_files: (groups,) index of each row group's file.
        group_numbers: (groups,) its number in that file.
        group_ends: (groups + 1,) first row of each row group, and the number of rows.
    """

    files: list[str] = field(default_factory=list)
    group_files: np.ndarray | None = None
    group_numbers: np.ndarray | None = None
    group_ends: np.ndarray | None = None

    def speech(self, index: int) -> np.ndarray:
        """The recording of a pair, (samples,) int16 at 16 kHz.

        Raises:
            ConnectionError: if its file cannot be read.
        """
        group = int(np.searchsorted(self.group_ends, index, side="right")) - 1
        encoded = self._speech_of_group(group)[index - self.group_ends[group]]
        return read_speech(encoded, self.pair_ids[index])

    @cached_property
    def _kept(self) -> OrderedDict[int, list[bytes]]:
        return OrderedDict()

    def _speech_of_group(self, group: int) -> list[bytes]:
        """The encoded recordings of a row group; the least recently used is forgotten."""
        import pyarrow.parquet as pq

        if group not in self._kept:
            # Opened anew: a handle that is shared with a forked process has one position for both.
            with _opened(self.files[self.group_files[group]]) as file:
                table = pq.ParquetFile(file).read_row_group(
                    int(self.group_numbers[group]), columns=["audio"]
                )
            self._kept[group] = [audio["bytes"] for audio in table["audio"].to_pylist()]
            while len(self._kept) > ROW_GROUPS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(group)
        return self._kept[group]


def stream_pairs(dataset: str, split: str, cache: str) -> StreamedPairs:
    """One split whose speech is read from its Parquet files as it is needed.

    Args:
        dataset: as for `training.data.load_pairs`.
        split: "train", "validation" or "test".
        cache: folder for what a voice teacher says of the recordings.

    Raises:
        ConnectionError: if a file cannot be read.
        FileNotFoundError: if there is no such split.
        ValueError: if the data set names no teacher.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    teacher = teacher_of(dataset)
    files = _parquet_files(dataset, split)
    tables, group_files, group_numbers, group_rows = [], [], [], []
    for number, path in enumerate(files):
        with _opened(path) as file:
            parquet = pq.ParquetFile(file)
            names = set(parquet.schema_arrow.names)
            tables.append(parquet.read([name for name in SMALL_COLUMNS if name in names]))
            groups = range(parquet.num_row_groups)
            group_files += [number] * len(groups)
            group_numbers += groups
            group_rows += [parquet.metadata.row_group(group).num_rows for group in groups]
    columns = _Columns(pa.concat_tables(tables, promote_options="default"))
    folder = Path(cache) / f"{fingerprint(columns['pair_id'])}-{split}-streamed"
    folder.mkdir(parents=True, exist_ok=True)
    return pairs_of(
        columns,
        teacher,
        folder,
        StreamedPairs,
        faces=None,
        samples=None,
        ends=None,
        files=files,
        group_files=np.asarray(group_files),
        group_numbers=np.asarray(group_numbers),
        group_ends=np.cumsum([0, *group_rows]),
    )


class StreamOrder:
    """Which rows a batch holds: every row once an epoch, few row groups at a time.

    Each lane (a process, or a worker of one) has its own row groups. Within some of them that are
    neighbours in this epoch's order, every speaker comes once before any comes twice: a batch holds
    as many speakers as it can.

    Args:
        seed: of the run.
        pairs: the split.
        lanes: how many there are.

    Raises:
        ValueError: if there are more lanes than row groups.
    """

    def __init__(self, seed: int, pairs: StreamedPairs, lanes: int = 1):
        groups = len(pairs.group_files)
        if groups < lanes:
            raise ValueError(
                f"{lanes} processes and workers cannot share {groups} row groups: use fewer, or "
                "write the data set in smaller row groups"
            )
        self.seed, self.pairs, self.lanes = seed, pairs, lanes
        self._orders: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def rows(self, lane: int, batch: int, batch_size: int) -> np.ndarray:
        """(batch_size,) rows of a lane's batch; a pure function of the arguments."""
        length = int(np.diff(self.pairs.group_ends)[lane :: self.lanes].sum())
        positions = np.arange(batch * batch_size, (batch + 1) * batch_size)
        return np.asarray([self._order(lane, p // length)[p % length] for p in positions.tolist()])

    def _groups_of(self, lane: int) -> list[np.ndarray]:
        ends = self.pairs.group_ends
        return [np.arange(ends[g], ends[g + 1]) for g in range(lane, len(ends) - 1, self.lanes)]

    def _order(self, lane: int, epoch: int) -> np.ndarray:
        """(rows of the lane,) in the order of an epoch; the last two are remembered."""
        if (lane, epoch) not in self._orders:
            rng = np.random.default_rng([self.seed, 5, epoch, lane])
            groups = self._groups_of(lane)
            groups = [groups[g] for g in rng.permutation(len(groups))]
            windows = [
                self._in_turns(np.concatenate(groups[start : start + ROW_GROUPS_KEPT]), rng)
                for start in range(0, len(groups), ROW_GROUPS_KEPT)
            ]
            self._orders[lane, epoch] = np.concatenate(windows)
            while len(self._orders) > 2:
                self._orders.popitem(last=False)
        return self._orders[lane, epoch]

    def _in_turns(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rows at random, but a speaker's second only after every speaker's first, and so on."""
        rows = rng.permutation(rows)
        speakers = self.pairs.speakers[rows]
        by_speaker = np.argsort(speakers, kind="stable")
        _, starts, counts = np.unique(speakers[by_speaker], return_index=True, return_counts=True)
        turns = np.empty(len(rows), int)
        turns[by_speaker] = np.arange(len(rows)) - np.repeat(starts, counts)
        return rows[np.argsort(turns, kind="stable")]


class _Columns:
    """A pyarrow table, read as `datasets` lets its own be read."""

    def __init__(self, table: Any):
        self.table = table
        self.column_names = table.column_names

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, name: str) -> list:
        return self.table[name].to_pylist()


def _parquet_files(dataset: str, split: str) -> list[str]:
    if Path(dataset).is_dir():
        return parquet_files(dataset, split)
    from datasets import load_dataset_builder

    files = list((load_dataset_builder(dataset).config.data_files or {}).get(split, []))
    if not files:
        raise FileNotFoundError(f"no {split}-*.parquet in {dataset}: build the data set first")
    return files


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """A file in a folder or on the Hub; `huggingface_hub` asks again where a request fails.

    Raises:
        ConnectionError: if it cannot be read nevertheless.
    """
    import fsspec
    from huggingface_hub.errors import HTTPError

    try:
        with fsspec.open(path, "rb") as file:
            yield file
    except (HTTPError, OSError) as error:
        raise ConnectionError(f"{path} cannot be read ({first_line(error)})") from error
