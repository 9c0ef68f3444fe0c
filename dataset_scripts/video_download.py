"""`python -m dataset_scripts.video_download CSV ... --output FOLDER` fetches AVSpeech's videos.

One video at a time, slowly, with a log of what became of each: a run that was stopped, however,
goes on where it was. A good part of the lists is gone, and stays gone: the log says why.
"""

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from dataset_scripts.sources import DOWNLOAD_LOG, VIDEO_SUFFIXES, read_avspeech, read_download_log

YOUTUBE = "https://www.youtube.com/watch?v={id}"

# What YouTube says of a video that will not come back, however often one asks.
GONE_MESSAGES = re.compile(
    "video (is )?unavailable|private video|video is private|been removed|been terminated|"
    "no longer available|not available|does not exist|account .*closed|members.only|"
    "confirm your age|age.restricted|available to this channel's members|copyright",
    re.IGNORECASE,
)
# What it says of a visitor whom it does not like: the video may be there all the same.
REFUSED_MESSAGES = re.compile(
    "not a bot|rate.limit|too many requests|try again|requested format", re.IGNORECASE
)
GONE_STATUS = {404, 410, 451}  # of HTTP
DISK_FULL = "No space left on device"


@dataclass(frozen=True)
class DownloadConfig:
    """How videos are fetched.

    Attributes:
        url_template: of a video, with `{id}`.
        max_height: lines; the best that is not larger is taken, or else the smallest there is.
        max_bytes: of a file; a larger one is not fetched.
        bytes_per_second: no faster than so; None for no limit.
        pause_s: between two videos, seconds.
        attempts: at each video in one run.
        retry_pause_s: before the second attempt; doubled before each further one.
        timeout_s: without an answer.
        max_seconds: for an attempt, whatever trickles in.
        stop_after_failures: in a row; then the site or the network is at fault, not the videos.
    """

    url_template: str = YOUTUBE
    max_height: int = 720
    max_bytes: int = 2_000_000_000
    bytes_per_second: int | None = 4_000_000
    pause_s: float = 1.0
    attempts: int = 4
    retry_pause_s: float = 2.0
    timeout_s: float = 30.0
    max_seconds: float = 3600.0
    stop_after_failures: int = 20

    def __post_init__(self):
        if "{id}" not in self.url_template:
            raise ValueError(f"the URL needs {{id}} where the video's id goes: {self.url_template}")
        for name in ("max_height", "max_bytes", "attempts", "timeout_s", "max_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.stop_after_failures < 1:
            raise ValueError(f"stop_after_failures must be 1 or more: {self.stop_after_failures}")
        if self.bytes_per_second is not None and self.bytes_per_second <= 0:
            raise ValueError(f"bytes_per_second must be above 0, got {self.bytes_per_second}")
        if min(self.pause_s, self.retry_pause_s) < 0:
            raise ValueError("pauses must not be negative")


@dataclass(frozen=True)
class Outcome:
    """What became of a video: a line of the log.

    Attributes:
        youtube_id: of the video.
        outcome: "done"; "gone" for good; "failed", to be tried again by the next run.
        reason: why, in the site's words; empty if done.
        file: its name in the folder; empty if not done.
    """

    youtube_id: str
    outcome: str
    reason: str = ""
    file: str = ""


class DownloadStopped(RuntimeError):
    """Nothing can be fetched at present; the log holds what was."""


def download_videos(
    youtube_ids: Iterable[str],
    folder: str | Path,
    config: DownloadConfig | None = None,
    retry_gone: bool = False,
    progress: Callable[[Outcome], None] = lambda outcome: None,
) -> dict[str, Outcome]:
    """Fetches the videos that are not there yet, and were not found to be gone.

    Args:
        youtube_ids: in the order in which they are wanted; each is fetched once.
        folder: for `ID.mp4` (or another container) and the log, `downloads.jsonl`.
        config: limits and pauses.
        retry_gone: whether to ask again for what an earlier run found gone.
        progress: is told of each video, also of those that are there already.

    Returns:
        What is known of each of these videos.

    Raises:
        ValueError: for an id that is none, or a file in the folder's place.
        DownloadStopped: if the disk is full, or after too many failures in a row.
    """
    config = config or DownloadConfig()
    youtube_ids = list(dict.fromkeys(youtube_ids))
    for youtube_id in youtube_ids:
        if not re.fullmatch(r"[\w-]+", youtube_id, re.ASCII):
            raise ValueError(f"{youtube_id!r} is not a YouTube id")
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder for the videos")
    folder.mkdir(parents=True, exist_ok=True)
    known = {entry["youtube_id"]: Outcome(**entry) for entry in read_download_log(folder)}
    outcomes, failures, asked = {}, 0, False
    for youtube_id in youtube_ids:
        outcome = known.get(youtube_id)
        if outcome is None or not _is_settled(outcome, folder, retry_gone):
            if asked:
                time.sleep(config.pause_s)
            asked = True
            outcome = _download(youtube_id, folder, config)
            _write_to_log(outcome, folder)
            failures = failures + 1 if outcome.outcome == "failed" else 0
        outcomes[youtube_id] = outcome
        progress(outcome)
        if DISK_FULL in outcome.reason:
            raise DownloadStopped(f"the disk of {folder} is full: the same command continues")
        if failures >= config.stop_after_failures:
            raise DownloadStopped(
                f"{failures} videos in a row failed ({outcome.reason}): wait, or pause longer; "
                "the same command continues"
            )
    return outcomes


def main(arguments: list[str] | None = None) -> int:
    """Fetches videos as the command line asks; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.first is not None and options.first < 1:
            raise ValueError(f"--first must be at least 1, got {options.first}")
        stretches = [stretch for path in options.lists for stretch in read_avspeech(path)]
        wanted = list(dict.fromkeys(stretch.youtube_id for stretch in stretches))[: options.first]
        config = DownloadConfig(
            url_template=options.url_template,
            max_height=options.max_height,
            bytes_per_second=options.bytes_per_second,
            pause_s=options.pause,
            attempts=options.attempts,
        )
        outcomes = download_with_progress(wanted, options.output, config, options.retry_gone)
    except KeyboardInterrupt:
        return _refuse("stopped: the same command continues")
    except ModuleNotFoundError as error:
        return _refuse(f"{error}: install the extra `data`, see dataset_scripts/README.md")
    except (OSError, RuntimeError, ValueError) as error:
        return _refuse(str(error))
    counts = Counter(outcome.outcome for outcome in outcomes.values())
    print(
        f"{counts['done']} videos are in {options.output}, {counts['gone']} are gone, "
        f"{counts['failed']} failed and will be tried again; {DOWNLOAD_LOG} says why"
    )
    return 0 if counts["done"] else 1


def download_with_progress(
    youtube_ids: list[str],
    folder: str | Path,
    config: DownloadConfig | None = None,
    retry_gone: bool = False,
) -> dict[str, Outcome]:
    """`download_videos` with a bar on the standard error stream."""
    from tqdm import tqdm

    counts = Counter()
    with tqdm(total=len(youtube_ids), unit="video", desc="fetching") as bar:

        def progress(outcome: Outcome) -> None:
            counts[outcome.outcome] += 1
            bar.set_postfix(counts, refresh=False)
            bar.update()

        return download_videos(youtube_ids, folder, config, retry_gone, progress)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.video_download",
        description="Fetches the videos of AVSpeech's lists, and logs those that are gone.",
    )
    parser.add_argument(
        "lists", nargs="+", type=Path, metavar="CSV", help="avspeech_train.csv, or more"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FOLDER", help="for the videos"
    )
    parser.add_argument(
        "--first",
        type=int,
        metavar="N",
        help="fetch only so many videos of the lists; without it, all",
    )
    settings = DownloadConfig()
    parser.add_argument(
        "--max-height",
        type=int,
        default=settings.max_height,
        metavar="LINES",
        help="the best picture that is not larger is taken (default: %(default)s)",
    )
    parser.add_argument(
        "--bytes-per-second",
        type=int,
        default=settings.bytes_per_second,
        metavar="N",
        help="fetch no faster (default: %(default)s)",
    )
    parser.add_argument(
        "--pause",
        type=float,
        default=settings.pause_s,
        metavar="S",
        help="between two videos, seconds (default: %(default)s)",
    )
    parser.add_argument(
        "--attempts",
        type=int,
        default=settings.attempts,
        metavar="N",
        help="at each video (default: %(default)s)",
    )
    parser.add_argument("--retry-gone", action="store_true", help="ask again for what was gone")
    parser.add_argument(
        "--url-template",
        default=YOUTUBE,
        metavar="URL",
        help="from where, with {id} (default: %(default)s)",
    )
    return parser


def _refuse(sentence: str) -> int:
    print(f"video_download: {sentence}", file=sys.stderr)
    return 1


def _is_settled(outcome: Outcome, folder: Path, retry_gone: bool) -> bool:
    if outcome.outcome == "done":
        return (folder / outcome.file).is_file()
    return outcome.outcome == "gone" and not retry_gone


def _download(youtube_id: str, folder: Path, config: DownloadConfig) -> Outcome:
    """Tries some times, with longer and longer pauses."""
    outcome = Outcome(youtube_id, "failed", "not tried")
    for attempt in range(config.attempts):
        if attempt:
            time.sleep(config.retry_pause_s * 2 ** (attempt - 1))
        outcome = _try_once(youtube_id, folder, config)
        if outcome.outcome != "failed" or DISK_FULL in outcome.reason:
            break
    return outcome


def _try_once(youtube_id: str, folder: Path, config: DownloadConfig) -> Outcome:
    from yt_dlp import YoutubeDL
    from yt_dlp.utils import YoutubeDLError

    try:
        with YoutubeDL(_options(youtube_id, folder, config)) as downloader:
            downloader.download([config.url_template.format(id=youtube_id)])
    except (YoutubeDLError, OSError) as error:
        reason = _plain(str(error))
        return Outcome(youtube_id, "gone" if _is_gone(error, reason) else "failed", reason)
    for path in sorted(folder.glob(f"{youtube_id}.*")):
        # Not ID.f137.mp4: pictures that still wait for their sound.
        if path.stem == youtube_id and path.suffix.lower() in VIDEO_SUFFIXES:
            return Outcome(youtube_id, "done", file=path.name)
    return Outcome(youtube_id, "failed", f"no video came, or one of over {config.max_bytes} bytes")


def _options(youtube_id: str, folder: Path, config: DownloadConfig) -> dict:
    """For yt-dlp, whose parts and resuming make a killed download continue."""
    deadline = time.monotonic() + config.max_seconds

    def check_time(_: dict) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"it took more than {config.max_seconds:g} s")

    height = f"[height<=?{config.max_height}]"
    formats = f"b{height}/w"  # pictures and sound in one file: joining two needs ffmpeg
    if shutil.which("ffmpeg"):
        formats = f"bv*{height}+ba/{formats}"
    return {
        "format": formats,
        "outtmpl": {"default": str(folder).replace("%", "%%") + f"/{youtube_id}.%(ext)s"},
        "ratelimit": config.bytes_per_second,
        "max_filesize": config.max_bytes,
        "socket_timeout": config.timeout_s,
        "progress_hooks": [check_time],
        "retries": 2,
        "noplaylist": True,
        "continuedl": True,
        "updatetime": False,
        "quiet": True,
        "noprogress": True,
        "no_color": True,
        "cachedir": False,
        "logger": _Silent(),
    }


class _Silent:
    """yt-dlp's words come with its errors; the log keeps them."""

    def debug(self, message: str) -> None:
        pass

    info = warning = error = debug


def _is_gone(error: BaseException, reason: str) -> bool:
    cause = error.exc_info[1] if getattr(error, "exc_info", None) else error
    while cause is not None:
        if getattr(cause, "status", None) in GONE_STATUS:
            return True
        cause = getattr(cause, "cause", None) or cause.__cause__
    return bool(GONE_MESSAGES.search(reason)) and not REFUSED_MESSAGES.search(reason)


def _plain(message: str) -> str:
    """The first line of a message, without yt-dlp's advice on how to report it."""
    message = message.removeprefix("ERROR: ").strip()
    return (message.splitlines() or ["unknown"])[0].split("; please report this issue")[0][:300]


def _write_to_log(outcome: Outcome, folder: Path) -> None:
    log = folder / DOWNLOAD_LOG
    line = json.dumps(asdict(outcome)) + "\n"
    with open(log, "a+b") as file:
        if file.tell() and not _ends_a_line(file):  # a run was killed while it wrote
            line = "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def _ends_a_line(file) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


if __name__ == "__main__":
    sys.exit(main())
