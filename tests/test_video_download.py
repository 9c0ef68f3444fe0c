"""Videos are fetched from a real server that fails in every way in which servers fail."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from dataset_scripts import video_download
from dataset_scripts.sources import DOWNLOAD_LOG, list_avspeech, read_download_log
from dataset_scripts.video_download import (
    DownloadConfig,
    DownloadStopped,
    Outcome,
    download_videos,
    main,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> bytes:
    """A true MP4 of a second, of noise: some 100 kB."""
    import av

    path = tmp_path_factory.mktemp("film") / "film.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for _ in range(25):
            picture = rng.integers(0, 255, (128, 160, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


class Site:
    """Serves a film under any id; an id's first letters say what goes wrong with it."""

    def __init__(self, film: bytes):
        self.film = film
        self.asked = Counter()  # id -> requests that got something of the film, or an error
        self.ranges: list[str] = []
        self.pause_s = 0.0  # between pieces
        site = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                try:
                    site.answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/{{id}}.mp4"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.strip("/").removesuffix(".mp4")
        self.asked[name] += 1
        if name.startswith("status"):
            return request.send_error(int(name[6:9]))
        if name.startswith("twice500") and self.asked[name] <= 2:
            return request.send_error(500)
        if name.startswith("hang"):
            time.sleep(2)
        if name.startswith("page"):
            return self.send(request, b"<html>A page without a video</html>", "text/html")
        body, start = self.film, 0
        wanted = request.headers.get("Range")
        if wanted and wanted != "bytes=0-":
            self.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        request.send_response(206 if wanted else 200)
        if wanted:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Type", "video/mp4")
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        stop = len(body)
        # The first request finds out what there is; the second is cut in the middle.
        if name.startswith("cut") and self.asked[name] == 2:
            stop = len(body) // 2
        for at in range(start, stop, 8192):
            request.wfile.write(body[at : min(at + 8192, stop)])
            request.wfile.flush()
            time.sleep(self.pause_s)

    def send(self, request, body: bytes, kind: str) -> None:
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


@pytest.fixture
def site(film):
    site = Site(film)
    yield site
    site.server.shutdown()
    site.server.server_close()


def config_for(site: Site, **kwargs) -> DownloadConfig:
    quick = {"pause_s": 0.0, "retry_pause_s": 0.01, "timeout_s": 5.0, "bytes_per_second": None}
    return DownloadConfig(url_template=site.url, **{**quick, **kwargs})


def log_of(folder: Path) -> list[tuple[str, str]]:
    return [(entry["youtube_id"], entry["outcome"]) for entry in read_download_log(folder)]


def test_videos_are_fetched_whole_and_only_once(site, tmp_path):
    outcomes = download_videos(["aaa", "-b_b", "aaa"], tmp_path, config_for(site))
    assert outcomes["aaa"] == Outcome("aaa", "done", "", "aaa.mp4") and len(outcomes) == 2
    assert (tmp_path / "aaa.mp4").read_bytes() == (tmp_path / "-b_b.mp4").read_bytes() == site.film
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "-b_b.mp4",
        "aaa.mp4",
        DOWNLOAD_LOG,
    ]
    asked = dict(site.asked)
    assert download_videos(["aaa", "-b_b"], tmp_path, config_for(site)) == outcomes
    assert dict(site.asked) == asked


def test_a_video_that_was_deleted_here_is_fetched_again(site, tmp_path):
    download_videos(["aaa"], tmp_path, config_for(site))
    (tmp_path / "aaa.mp4").unlink()
    assert download_videos(["aaa"], tmp_path, config_for(site))["aaa"].outcome == "done"
    assert (tmp_path / "aaa.mp4").read_bytes() == site.film


def test_what_is_gone_is_not_asked_for_again_unless_wanted(site, tmp_path):
    ids = ["status404", "status410", "status451"]
    outcomes = download_videos(ids, tmp_path, config_for(site))
    assert {outcome.outcome for outcome in outcomes.values()} == {"gone"}
    assert "404" in outcomes["status404"].reason
    asked = dict(site.asked)
    assert set(asked.values()) == {1}  # a second attempt would be in vain
    assert download_videos(ids, tmp_path, config_for(site)) == outcomes
    assert dict(site.asked) == asked
    download_videos(ids[:1], tmp_path, config_for(site), retry_gone=True)
    assert site.asked["status404"] == 2


def test_a_server_that_stumbles_is_asked_again(site, tmp_path):
    assert download_videos(["twice500"], tmp_path, config_for(site))["twice500"].outcome == "done"
    assert (tmp_path / "twice500.mp4").read_bytes() == site.film


def test_attempts_come_slower_and_slower(site, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(video_download.time, "sleep", pauses.append)
    config = config_for(site, retry_pause_s=2.0, pause_s=7.0)
    download_videos(["status503", "status404"], tmp_path, config)
    assert pauses[:4] == [2.0, 4.0, 8.0, 7.0]


def test_what_failed_is_tried_by_the_next_run(site, tmp_path):
    config = config_for(site, attempts=1)
    assert download_videos(["twice500"], tmp_path, config)["twice500"].outcome == "failed"
    assert download_videos(["twice500"], tmp_path, config)["twice500"].outcome == "failed"
    assert download_videos(["twice500"], tmp_path, config)["twice500"].outcome == "done"
    assert log_of(tmp_path) == [("twice500", "failed")] * 2 + [("twice500", "done")]


def test_a_file_that_was_cut_short_is_resumed(site, tmp_path):
    assert download_videos(["cut"], tmp_path, config_for(site))["cut"].outcome == "done"
    assert (tmp_path / "cut.mp4").read_bytes() == site.film
    assert site.ranges and not list(tmp_path.glob("*.part"))


def test_the_rate_is_limited(site, tmp_path):
    rate = len(site.film)
    started = time.monotonic()
    download_videos(["aaa"], tmp_path, config_for(site, bytes_per_second=rate))
    limited = time.monotonic() - started
    assert limited > 0.5  # a second at that rate; yt-dlp checks now and then
    started = time.monotonic()
    download_videos(["bbb"], tmp_path, config_for(site))
    assert time.monotonic() - started < limited


def test_a_page_without_a_video_is_a_failure(site, tmp_path):
    outcome = download_videos(["page"], tmp_path, config_for(site, attempts=1))["page"]
    assert outcome.outcome == "failed" and "Unsupported URL" in outcome.reason


def test_too_large_a_video_is_not_fetched(site, tmp_path):
    config = config_for(site, max_bytes=len(site.film) // 2, attempts=1)
    outcome = download_videos(["aaa"], tmp_path, config)["aaa"]
    assert outcome.outcome == "failed" and "no video came" in outcome.reason
    assert not (tmp_path / "aaa.mp4").exists()


def test_servers_that_hang_or_trickle_do_not_hold_the_run(site, tmp_path):
    config = config_for(site, attempts=1, timeout_s=0.2, max_seconds=0.3)
    site.pause_s = 0.1
    started = time.monotonic()
    outcomes = download_videos(["hang", "trickle"], tmp_path, config)
    assert [outcome.outcome for outcome in outcomes.values()] == ["failed", "failed"]
    assert "0.3 s" in outcomes["trickle"].reason
    assert time.monotonic() - started < 5


def test_many_failures_in_a_row_end_the_run_and_the_next_one_continues(site, tmp_path):
    ids = [f"status503-{index}" for index in range(9)]
    config = config_for(site, attempts=1, stop_after_failures=3)
    with pytest.raises(DownloadStopped, match="3 videos in a row failed .*503.*continues"):
        download_videos(["aaa", *ids], tmp_path, config)
    assert len(log_of(tmp_path)) == 4
    assert "\n" not in read_download_log(tmp_path)[-1]["reason"]
    with_gaps = [name for pair in zip(ids, 9 * ["status404"], strict=True) for name in pair]
    with pytest.raises(DownloadStopped):  # what is settled says nothing of the site today
        download_videos(
            with_gaps[2:], tmp_path, config_for(site, attempts=1, stop_after_failures=1)
        )


def test_no_server_at_all(tmp_path):
    config = DownloadConfig(
        url_template="http://127.0.0.1:9/{id}.mp4", attempts=1, pause_s=0, stop_after_failures=2
    )
    with pytest.raises(DownloadStopped, match="2 videos in a row failed"):
        download_videos(["aaa", "bbb", "ccc"], tmp_path, config)


def test_a_torn_line_of_the_log_is_left_out_and_ended(site, tmp_path):
    download_videos(["aaa"], tmp_path, config_for(site))
    with open(tmp_path / DOWNLOAD_LOG, "a") as log:
        log.write('{"youtube_id": "bbb", "outco')
    download_videos(["aaa", "ccc"], tmp_path, config_for(site))
    assert log_of(tmp_path) == [("aaa", "done"), ("ccc", "done")]


def test_a_killed_run_continues(site, tmp_path):
    site.pause_s = 0.05
    code = (
        "import sys; from dataset_scripts.video_download import *; "
        "download_videos(['aaa', 'bbb', 'ccc'], sys.argv[1], "
        "DownloadConfig(url_template=sys.argv[2], pause_s=0, attempts=1))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path, site.url], cwd=ROOT)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("bbb*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert log_of(tmp_path) == [("aaa", "done")]
    asked = site.asked["aaa"]
    site.pause_s = 0.0
    outcomes = download_videos(["aaa", "bbb", "ccc"], tmp_path, config_for(site))
    assert {outcome.outcome for outcome in outcomes.values()} == {"done"}
    assert site.asked["aaa"] == asked
    for name in ("aaa", "bbb", "ccc"):
        assert (tmp_path / f"{name}.mp4").read_bytes() == site.film
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("message", "gone"),
    [
        ("[youtube] x: Video unavailable. This video has been removed by the uploader", True),
        ("[youtube] x: Private video. Sign in if you've been granted access", True),
        ("[youtube] x: This video is no longer available because the account has been "
         "terminated", True),
        ("[youtube] x: Sign in to confirm your age. This video may be inappropriate", True),
        ("[youtube] x: Sign in to confirm you're not a bot. Use --cookies", False),
        ("[youtube] x: Video unavailable. This content isn't available, try again later. The "
         "current session has been rate-limited", False),
        ("[youtube] x: Requested format is not available. Use --list-formats for a list of "
         "available formats", False),
        ("unable to download video data: HTTP Error 403: Forbidden", False),
        ("Unable to download webpage: timed out", False),
    ],
)  # fmt: skip
def test_what_youtube_says_of_gone_videos_and_of_unwelcome_visitors(message, gone):
    assert video_download._is_gone(RuntimeError(message), message) is gone


def test_the_command_and_what_the_source_makes_of_its_log(site, tmp_path, capsys):
    rows = ["aaa,0.5,0.9,0.5,0.5", "aaa,0.1,0.4,0.5,0.5", "status404,1,2,0.5,0.5", "zzz,1,2,0,0"]
    lists = tmp_path / "avspeech_train.csv"
    lists.write_text("\n".join(rows))
    videos = tmp_path / "videos"
    arguments = [str(lists), "--output", str(videos), "--url-template", site.url]
    assert main([*arguments, "--first", "2", "--pause", "0"]) == 0
    assert "1 videos are in" in (printed := capsys.readouterr().out) and "1 are gone" in printed
    listing = list_avspeech(lists, videos)
    assert [video.start_s for video in listing.videos] == [0.1, 0.5]
    reasons = {refusal.video_id.split("/")[0]: refusal for refusal in listing.refusals}
    assert "404" in reasons["status404"].detail and reasons["status404"].reason == "gone"
    assert "no file zzz.*" in reasons["zzz"].detail


def test_a_run_that_fetched_nothing_has_failed(site, tmp_path, capsys):
    lists = tmp_path / "avspeech_train.csv"
    lists.write_text("status404,1,2,0.5,0.5")
    arguments = [str(lists), "--output", str(tmp_path / "videos"), "--url-template", site.url]
    assert main(arguments) == 1
    assert "0 videos are in" in capsys.readouterr().out


def test_wrong_lists_and_settings_are_refused_in_one_sentence(site, tmp_path, capsys):
    lists = tmp_path / "list.csv"
    lists.write_text("aaa,0.5,0.9,0.5,0.5\n")
    wrong = [
        [str(tmp_path / "missing.csv"), "--output", str(tmp_path)],
        [str(lists), "--output", str(tmp_path), "--url-template", "http://127.0.0.1/"],
        [str(lists), "--output", str(tmp_path), "--attempts", "0"],
        [str(lists), "--output", str(tmp_path), "--first", "0"],
        [str(lists), "--output", str(tmp_path), "--pause", "-1"],
        [str(lists), "--output", str(lists)],
    ]
    for arguments in wrong:
        assert main(arguments) == 1
        lines = capsys.readouterr().err.splitlines()
        sentences = [line for line in lines if line and not line.startswith("fetching")]
        assert len(sentences) == 1 and sentences[0].startswith("video_download: ")
    with pytest.raises(ValueError, match="is not a YouTube id"):
        download_videos(["../x"], tmp_path, config_for(site))


def test_pictures_that_wait_for_their_sound_are_no_video(tmp_path, monkeypatch):
    class HalfADownload:
        def __init__(self, options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def download(self, urls):
            (tmp_path / "aaa.f137.mp4").touch()

    monkeypatch.setattr("yt_dlp.YoutubeDL", HalfADownload)
    outcome = video_download._try_once("aaa", tmp_path, DownloadConfig())
    assert outcome.outcome == "failed" and "no video came" in outcome.reason
