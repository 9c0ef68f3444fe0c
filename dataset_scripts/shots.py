"""Where a film cuts: PySceneDetect's detector, fed with the pictures as they are decoded."""

from collections import deque
from collections.abc import Iterable, Iterator

from dataset_scripts.records import FRAMES_PER_SECOND
from dataset_scripts.video import VideoFrame

THUMBNAIL = (64, 36)  # pixels, width and height of what the detector compares
WINDOW = 2  # pictures before and after, with whose changes a change is compared
ADAPTIVE_THRESHOLD = 3.0  # a cut changes the picture so many times more than the neighbours do
MIN_CHANGE = 12.0  # mean change of hue, saturation and lightness (0 to 255) that a cut makes


def mark_cuts(frames: Iterable[VideoFrame]) -> Iterator[tuple[VideoFrame, bool]]:
    """Says of each picture whether a shot begins with it.

    Pictures are handed on two later than they come, because a change is only known to be a cut,
    and not the motion of a camera, by what follows. A gap in the pictures ends a shot too.

    Args:
        frames: in the order of time.

    Returns:
        The same pictures, each with whether it is the first of a shot.

    Source: PySceneDetect's AdaptiveDetector (https://www.scenedetect.com).
    """
    detector, pending, undecided = None, deque(), 0
    last_index = None
    for frame in frames:
        if detector is None or frame.index != last_index + 1:
            yield from pending
            pending.clear()
            undecided = 0
            detector, starts_shot = _detector(), True
        else:
            starts_shot = False
        last_index = frame.index
        pending.append((frame, starts_shot))
        if frame.is_repeat:
            continue  # nothing changed; to the detector, slow films look like fast ones
        for cut in _feed(detector, frame):
            pending = deque((f, is_first or f.index == cut) for f, is_first in pending)
        undecided += 1
        while undecided > WINDOW:
            undecided -= not pending[0][0].is_repeat
            yield pending.popleft()
    yield from pending


def _detector():
    from scenedetect import AdaptiveDetector

    return AdaptiveDetector(
        adaptive_threshold=ADAPTIVE_THRESHOLD,
        min_scene_len=1,
        window_width=WINDOW,
        min_content_val=MIN_CHANGE,
    )


def _feed(detector, frame: VideoFrame) -> list[int]:
    """The pictures, among the last few, with which a shot begins."""
    from scenedetect import FrameTimecode

    moment = FrameTimecode(frame.index, fps=FRAMES_PER_SECOND)
    return [cut.frame_num for cut in detector.process_frame(moment, frame.thumbnail(*THUMBNAIL))]
