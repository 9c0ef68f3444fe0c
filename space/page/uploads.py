"""The recordings that visitors bring: read once, kept as short as can be."""

import io
import os
import secrets
import shutil
import threading
import time
import wave
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from gradio.utils import get_upload_folder

from modeling_speech2face import load_audio

from .limits import KEPT_SECONDS, MAX_SECONDS, Refusal

# Recordings of LibriSpeech's readers whom no model was trained on, and what the page calls them.
EXAMPLES = {
    Path(__file__).resolve().parent.parent / "examples" / f"librispeech-{reader}.flac": label
    for reader, label in {
        2414: "A man reads",
        3080: "A woman reads",
        3005: "Another man reads",
        533: "Another woman reads",
    }.items()
}
NO_VOICE = "Record or upload a voice first."
GONE = (
    f"The recording is no longer on the server, where it is kept for {KEPT_SECONDS // 60} minutes: "
    "record or upload it again."
)
ELSEWHERE = "The recording must be one that you upload here, not a file of the server."


def path_of(file) -> Path:
    """Where a file that came with a request lies.

    Args:
        file: what a request holds in its place: {"path": ...}, or anything else.

    Returns:
        `Path` of an uploaded file that is there, or of an example.

    Raises:
        Refusal: nothing was uploaded, it lies anywhere else, or it is deleted already.
    """
    name = file.get("path") if isinstance(file, dict) else None
    if not isinstance(name, str) or not name:
        raise Refusal(NO_VOICE)
    return checked_path(name)


def checked_path(name: str) -> Path:
    """The same of a path.

    Whether there is such a file is only said of the folder for uploads, where nobody can guess a
    name: of the server's other files a visitor learns nothing.

    Raises:
        Refusal: an address, a path that leads anywhere else, or a file that is deleted already.
    """
    if "://" in name:
        raise Refusal("Nothing is fetched from elsewhere: upload the recording here.")
    try:
        path = Path(name).resolve()
        if path in EXAMPLES:
            return path
        if path.is_relative_to(Path(get_upload_folder()).resolve()):
            if path.is_file():
                return path
            raise Refusal(GONE)
    except (OSError, RuntimeError):  # too long, or links in a circle
        pass
    except ValueError as error:
        if isinstance(error, Refusal):
            raise  # else it is no path at all
    raise Refusal(ELSEWHERE)


def read_voice(path: Path, sampling_rate: int) -> np.ndarray:
    """The sound of a recording or a film.

    Args:
        path (`Path`): of any file that FFmpeg reads.
        sampling_rate (`int`): of the result, in Hz.

    Returns:
        `np.ndarray` `(samples,)`: mono, -1 to 1, two minutes at most.

    Raises:
        AudioError: it cannot be read; its name and place are not in the message.
    """
    with path.open("rb") as file:
        return load_audio(file, sampling_rate, max_seconds=MAX_SECONDS)


def wav_of(waveform: np.ndarray, sampling_rate: int) -> bytes:
    """Sound (samples,), -1 to 1, as the content of a WAV file."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)  # bytes
        file.setframerate(sampling_rate)
        file.writeframes((waveform.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return content.getvalue()


class Swept:
    """One of gradio's sets of files, as its sweep for old ones sees it.

    Requests add to these sets meanwhile, and a set that changes under a loop would end the sweep
    for as long as the page runs. Gradio itself never forgets a file that somebody else deleted.

    Args:
        files: the set.
    """

    def __init__(self, files: set[str]):
        self.files = files

    def __iter__(self):
        files = self.files.copy()
        there = {file for file in files if os.path.exists(file)}
        self -= files - there
        return iter(there)

    def __isub__(self, deleted):
        self.files -= deleted
        return self


class Uploads(set):
    """Gradio's own set of uploaded files, each of which goes when its visitor needs it no more.

    What is used through the API goes when it was read, what an open page has used when that page is
    closed, and all else when gradio finds that it is old.
    """

    def __init__(self):
        super().__init__()
        self._pages: dict[str | None, set[Path]] = defaultdict(set)  # what each open one has used
        self._closed: dict[str | None, float] = {}  # when each was, in seconds
        self._lock = threading.Lock()

    def update(self, files: list[str]) -> None:
        """Gradio has stored uploads, equal ones in one place: each is given a place of its own.

        Args:
            files: their paths, in the list that gradio answers an upload with.
        """
        moved: dict[str, str] = {}
        for number, file in enumerate(files):
            files[number] = str(_own_place(Path(file).name))
            if file in moved:  # twice in one request
                shutil.copyfile(moved[file], files[number])
            else:
                os.rename(file, files[number])
                _remove_folder(Path(file).parent)
            moved[file] = files[number]
        with self._lock:
            super().update(files)

    def store(self, name: str, content: bytes) -> Path:
        """Writes a file of the page's own, which is deleted as if it was an upload."""
        path = _own_place(name)
        try:
            path.write_bytes(content)
        finally:  # not before: a sweep would miss the file, and take its folder away
            with self._lock:
                self.add(str(path))
        return path

    def __isub__(self, deleted: Iterable[str]):
        """Gradio has deleted files because they are old."""
        paths = {Path(file) for file in deleted}
        with self._lock:
            for path in paths:
                _remove_folder(path.parent)
            for page in list(self._pages):
                self._pages[page] -= paths
                if not self._pages[page]:
                    del self._pages[page]
            return super().__isub__(deleted)

    def keep(self, path: Path, page: str | None) -> None:
        """A page has used a file, and may use it again while it is open.

        Its last request may come to its turn when it is closed already.
        """
        with self._lock:
            if page in self._closed:
                self._delete(path)
            else:
                self._pages[page].add(path)

    def forget(self, page: str | None) -> None:
        """A page was closed: what it used is deleted."""
        now = time.monotonic()
        with self._lock:
            # Later, nothing of it can be waiting any more, and the browser may have come back.
            recent = {old: at for old, at in self._closed.items() if now - at < KEPT_SECONDS}
            self._closed = recent | {page: now}
            for path in self._pages.pop(page, set()):
                self._delete(path)

    def release(self, path: Path) -> None:
        """A file was used, and nobody but an open page uses it again."""
        with self._lock:
            self._delete(path)

    def _delete(self, path: Path) -> None:
        if path in EXAMPLES or any(path in used for used in self._pages.values()):
            return
        path.unlink(missing_ok=True)
        _remove_folder(path.parent)
        self.discard(str(path))


def _own_place(name: str) -> Path:
    """A path in the folder for uploads that nobody can guess."""
    folder = Path(get_upload_folder()).resolve() / secrets.token_hex(20)
    folder.mkdir(parents=True)
    return folder / name


def _remove_folder(folder: Path) -> None:
    with suppress(OSError):  # others have a file in it
        folder.rmdir()
