"""Arrays on disk by key, so that an evaluation that is killed continues where it was.

What is costly (predictions, images, readings) is made in chunks of rows; a chunk is written whole
or not at all, and the same rows always meet in the same chunk: a run that was killed ends with the
same bytes as one that was not.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROWS_PER_CHUNK = 32

Rows = dict[str, np.ndarray]


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of what goes in.

    Args:
        parts: arrays, bytes, or anything that JSON can write.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            # In pieces, so that a memory-mapped array is not read into memory whole.
            for row in part if part.ndim > 1 else [part]:
                digest.update(np.ascontiguousarray(row).tobytes())
        elif isinstance(part, bytes):
            digest.update(b"bytes" + part)
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def key_of(prefix: str, *parts: Any) -> str:
    """A name that people can read, followed by the fingerprint of all that decides the content."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', prefix).strip('-')}-{fingerprint(*parts)}"


def seed_of(seed: int, *parts: Any) -> int:
    """A seed from 0 to 2^63 - 1 of a recording's or an image's own.

    It depends on nothing but what is passed, so that leaving out some pairs changes nothing for
    the others.

    Args:
        seed: of the evaluation.
        parts: whose it is and what for, for example a pair's id, "draw", and a number.
    """
    digest = hashlib.sha256(json.dumps([seed, *map(str, parts)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Store:
    """A folder of arrays by key.

    Args:
        folder: made when something is written.

    Example:
        ```python
        >>> import numpy as np, tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> squares = lambda start, stop: {"square": np.arange(start, stop) ** 2}
        >>> store.rows("squares", 4, squares)["square"].tolist()
        [0, 1, 4, 9]

        ```
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def rows(
        self,
        key: str,
        count: int,
        make: Callable[[int, int], Rows],
        chunk: int = ROWS_PER_CHUNK,
        label: str | None = None,
    ) -> Rows:
        """Arrays of `count` rows: read if they are there, else made chunk by chunk.

        Args:
            key: names what decides the content, see `key_of`.
            count: rows, at least 1.
            make: takes (start, stop) and returns arrays by name, each with stop - start rows; a
                pure function of them.
            chunk: rows at once, at least 1.
            label: of the progress bar; none if None.

        Returns:
            The arrays by name, each with `count` rows; memory-mapped, not to be written to.

        Raises:
            ValueError: for no rows, or if `make` returns another number of them than it was asked.
        """
        if count < 1:
            raise ValueError(f"there is nothing to make for {key}: pass at least one row")
        whole = self.folder / key
        if not whole.is_dir():
            parts = [(start, min(start + chunk, count)) for start in range(0, count, chunk)]
            self._make_chunks(key, parts, make, label)
            self._join(key, parts)
        return {
            path.stem: np.load(path, mmap_mode="r", allow_pickle=False)
            for path in sorted(whole.glob("*.npy"))
        }

    def _make_chunks(
        self, key: str, parts: list[tuple[int, int]], make: Callable, label: str | None
    ) -> None:
        from tqdm import tqdm

        folder = self.folder / f"{key}.part"
        folder.mkdir(parents=True, exist_ok=True)
        missing = [part for part in parts if not _chunk_file(folder, part).exists()]
        done = parts[-1][1] - sum(stop - start for start, stop in missing)
        with tqdm(
            desc=label, total=parts[-1][1], initial=done, unit="row", disable=label is None
        ) as bar:
            for start, stop in missing:
                rows = {name: np.asarray(values) for name, values in make(start, stop).items()}
                wrong = [name for name, values in rows.items() if len(values) != stop - start]
                if wrong or not rows:
                    raise ValueError(f"{key}: expected {stop - start} rows each, see {wrong}")
                work = folder / f"{os.getpid()}.work"
                with work.open("wb") as file:
                    np.savez(file, **rows)
                work.replace(_chunk_file(folder, (start, stop)))
                bar.update(stop - start)

    def _join(self, key: str, parts: list[tuple[int, int]]) -> None:
        """Writes the chunks as one array a name; only then does the key exist."""
        folder, work = self.folder / f"{key}.part", self.folder / f"{key}.{os.getpid()}.work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        chunks = [_read(_chunk_file(folder, part)) for part in parts]
        for name in chunks[0]:
            np.save(work / f"{name}.npy", np.concatenate([chunk[name] for chunk in chunks]))
        try:
            work.replace(self.folder / key)
        except OSError:  # another run was faster; what it made is the same
            shutil.rmtree(work)
            if not (self.folder / key).is_dir():
                raise
        shutil.rmtree(folder, ignore_errors=True)


def _chunk_file(folder: Path, part: tuple[int, int]) -> Path:
    return folder / f"{part[0]:08d}-{part[1]:08d}.npz"


def _read(path: Path) -> Rows:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
