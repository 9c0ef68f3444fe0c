"""The recordings that visitors bring: read once, kept as short as can be."""

import threading
from collections import Counter, defaultdict
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
EXAMPLE_NAMES = {example.name for example in EXAMPLES}
NO_VOICE = "Record or upload a voice first."
GONE = (
    f"The recording is no longer on the server, where it is kept for {KEPT_SECONDS // 60} minutes: "
    "record or upload it again."
)


def path_of(file) -> Path:
    """Where a file that came with a request lies.

    Args:
        file: what a request holds in its place: {"path": ...}, or anything else.

    Returns:
        `Path` of an uploaded file that is there.

    Raises:
        Refusal: nothing was uploaded, it lies anywhere else, or it is deleted already.
    """
    name = file.get("path") if isinstance(file, dict) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise Refusal(NO_VOICE)
    path = Path(name).resolve()
    if not path.is_relative_to(Path(get_upload_folder()).resolve()):
        raise Refusal("The recording must be one that you upload here, not a file of the server.")
    if not path.is_file():
        raise Refusal(GONE)
    return path


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


class Swept:
    """One of gradio's sets of files, as its sweep for old ones sees it.

    Requests add to these sets meanwhile, and a set that changes under a loop would end the sweep
    for as long as the page runs.

    Args:
        files: the set.
    """

    def __init__(self, files: set[str]):
        self.files = files

    def __iter__(self):
        return iter(self.files.copy())

    def __isub__(self, deleted):
        self.files -= deleted
        return self


class Uploads(set):
    """Gradio's own set of uploaded files, which also counts who still needs each of them.

    Equal files share one place, also between visitors, so that a file may go only when each upload
    of it was used, or the page that it was uploaded to is closed.
    """

    def __init__(self):
        super().__init__()
        self._needed: Counter[Path] = Counter()  # times uploaded, and not released
        self._pages: dict[str, set[Path]] = defaultdict(set)  # what each open page has used
        self._lock = threading.Lock()

    def update(self, files) -> None:
        """Gradio has stored uploads in these places."""
        paths = [Path(file).resolve() for file in files]
        with self._lock:
            self._needed.update(paths)
            super().update(map(str, paths))

    def __isub__(self, deleted):
        """Gradio has deleted files because they are old."""
        with self._lock:
            for file in deleted:
                self._needed.pop(Path(file), None)
            return super().__isub__(deleted)

    def keep(self, path: Path, session: str) -> None:
        """An open page has used a file, and may use it again."""
        with self._lock:
            self._pages[session].add(path)

    def forget(self, session: str) -> None:
        """A page was closed: what it used is released."""
        with self._lock:
            paths = self._pages.pop(session, set())
        for path in paths:
            self.release(path)

    def release(self, path: Path) -> None:
        """One of those who uploaded a file needs it no more; after the last it is deleted."""
        with self._lock:
            self._needed[path] -= 1
            if self._needed[path] > 0:
                return
            del self._needed[path]
            if path.name not in EXAMPLE_NAMES:  # their copies are everybody's
                path.unlink(missing_ok=True)
                self.discard(str(path))
