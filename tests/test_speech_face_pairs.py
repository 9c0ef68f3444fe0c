import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from dataset_scripts.assembly import make_plan
from dataset_scripts.data_card import measure, read_about, render_card, split_files
from dataset_scripts.identities import IdentityConfig
from dataset_scripts.records import SourceVideo
from dataset_scripts.sources import list_folder
from dataset_scripts.speech_face_pairs import main
from dataset_scripts.splits import SPLITS
from dataset_scripts.units import Unit, UnitWork, unit_name
from tests.conftest import ROOT
from tests.fake_extraction import fake_extract

pytestmark = pytest.mark.usefixtures("no_workers")

PERSONS = "anna bert carl dora emil fred gert hans ines jane".split()
FILMS = {f"{name}/{k}.mp4": f"person:{name}" for name in PERSONS for k in range(2)}
FILMS |= {
    "two.mp4": "person:anna person:bert",
    "nobody.mp4": "nobody",
    "broken.mp4": "error",
    "notes.txt": "no video",
}


def make_films(folder: Path, films: dict[str, str] = FILMS) -> Path:
    for name, words in films.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(words)
    return folder


def build(*arguments) -> int:
    return main([str(argument) for argument in arguments], extract=fake_extract)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows_of(folder: Path, columns: list[str] | None = None) -> dict[str, list[dict]]:
    rows = defaultdict(list)
    for path in sorted(folder.glob("*-*.parquet")):
        split = path.name.split("-")[0]
        rows[split] += pyarrow.parquet.read_table(path, columns=columns).to_pylist()
    return rows


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def built(films, no_workers, tmp_path_factory):
    """The films as a data set, persons found by their faces."""
    output = tmp_path_factory.mktemp("built") / "pairs"
    assert build("folder", films, "--output", output, "--licence", "CC0-1.0") == 0
    return output


def test_load_dataset_opens_it(built, tmp_path):
    import soundfile
    from datasets import Audio, Image, load_dataset

    dataset = load_dataset(str(built), cache_dir=str(tmp_path))
    assert set(dataset) <= {"train", "validation", "test"} and "train" in dataset
    assert sum(map(len, dataset.values())) == 44
    features = dataset["train"].features
    assert features["audio"] == Audio(sampling_rate=16000, decode=False)
    assert features["face"] == Image() and features["face_embedding"].length == 128
    row = dataset["train"][0]
    assert row["face"].size == (224, 224) and row["licence"] == "CC0-1.0"
    waveform, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
    assert rate == 16000 and len(waveform) == 16000 * (row["end_s"] - row["start_s"])


def test_everything_lies_in_the_folder_and_nothing_else(built):
    names = set(files_of(built))
    splits = {name for name in names if name.endswith(".parquet")} - {"refused.parquet"}
    others = {"README.md", "refused.parquet", "contact_sheet.png", "histograms.png"}
    assert names == splits | others
    assert all(name.split("-", 1)[1] == "00000-of-00001.parquet" for name in splits)


def test_persons_are_whole_and_in_one_split(built):
    found, splits = defaultdict(set), defaultdict(set)
    for split, rows in rows_of(built, ["speaker_id", "speaker_source", "video_id"]).items():
        for row in rows:
            assert row["speaker_source"] == "cluster"
            splits[row["speaker_id"]].add(split)
            found[row["speaker_id"]].add(row["video_id"])
    assert all(len(where) == 1 for where in splits.values())
    true = {name: {f"{name}/0.mp4", f"{name}/1.mp4"} for name in PERSONS}
    true["anna"].add("two.mp4")
    true["bert"].add("two.mp4")
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, true.values()))


def test_every_refusal_is_in_the_table(built):
    table = pyarrow.parquet.read_table(built / "refused.parquet").to_pylist()
    whole = {row["video_id"]: row["reason"] for row in table if row["start_s"] is None}
    assert whole == {"nobody.mp4": "no_face", "broken.mp4": "failed"}
    parts = [row for row in table if row["start_s"] is not None]
    assert len(parts) == 22 and {row["reason"] for row in parts} == {"not_frontal"}
    assert parts[0]["end_s"] == 10.5 and parts[0]["detail"] == "it looks away"


def test_card_tells_what_is_there(built):
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(built / "README.md")
    about = card.data.to_dict()["speech2face"]
    assert (about["face_recogniser"], about["face_embedding_size"]) == ("dlib", 128)
    assert about["builder_version"] == "2" and about["configuration"]["identities"]["seed"] == 0
    assert card.data.license == ["cc0-1.0"]
    pairs = {split: len(rows) for split, rows in rows_of(built, ["pair_id"]).items()}
    for split, count in pairs.items():
        assert f"| {split} | {count} |" in card.text
    assert {file["path"] for file in card.data.configs[0]["data_files"]} == {
        f"{split}-*.parquet" for split in pairs
    }
    for words in (
        "Of the 10 persons, the source names 0",
        "The pairs come from 21 of 23 videos, 0.12 hours of which",
        "66 segments of speech that were looked at, 33.3% were refused",
        "| not_frontal | the face is never seen from the front | 0 | 22 | 33.3% |",
        "| no_face | no face is seen | 1 | 0 | 0.0% |",
        "Nobody has stated the rights",
        "Asking for removal",
        "re-animated to a",
        "Identifying anybody",
        " 1 file beside them is no video.",
    ):
        assert words in card.text, words
    assert str(ROOT) not in card.text and "/tmp" not in card.text
    sharp = [row["sharpness"] for rows in rows_of(built, ["sharpness"]).values() for row in rows]
    quartiles = " | ".join(f"{q:.3g}" for q in np.percentile(np.float32(sharp), [25, 50, 75]))
    assert (
        f"| sharpness | variance of the Laplacian of the aligned face | {quartiles} |" in card.text
    )


def test_the_card_of_little_is_written_in_good_grammar(tmp_path):
    films = make_films(tmp_path / "films", {"a.mp4": "person:x", "b.mp4": "person:y"})
    output = tmp_path / "pairs"
    assert build("folder", films, "--output", output) == 0
    figures = measure(split_files(output), output / "refused.parquet")
    about = read_about(output / "README.md") | {"hours_read": 0.0004, "videos": 1}
    figures.refused_videos.clear()
    figures.refused_segments.clear()
    figures.speakers = {"train": {"x"}, "validation": set(), "test": set()}
    card = render_card(about, figures)
    for words in (
        "of 1 video, 0.0004 hours of which",
        "Of the 1 person, the source names 0 (`speaker_source: label`); 1 was found by the face",
        "## What was refused\n\nNothing.\n\n## How it was made",
    ):
        assert words in card, words
    assert "| reason |" not in card and " 0.00 " not in card.replace("| 0 | 0 | 0.00 |", "")


def test_what_the_card_says_of_reading_is_true(built, monkeypatch, tmp_path):
    import datasets
    import soundfile

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    card = (built / "README.md").read_text()
    snippet = card.split("```python\n")[1].split("```")[0]
    names = {"datasets": datasets, "soundfile": soundfile, "io": io, "FOLDER": str(built)}
    exec(snippet, names)
    assert names["sampling_rate"] == 16000 and len(names["speech"])


def test_contact_sheet_shows_ten_persons_and_histograms_five_columns(built):
    from PIL import Image

    sheet = np.asarray(Image.open(built / "contact_sheet.png"))
    assert sheet.shape == (10 * 240, 6 * 224, 3)
    tiles = sheet.reshape(10, 240, 6, 224, 3)[:, :224]
    shown = [[bool((tiles[y, :, x] < 250).any()) for x in range(6)] for y in range(10)]
    assert sorted(map(sum, shown)) == 8 * [4] + 2 * [6]
    assert Image.open(built / "histograms.png").size == (2000, 300)


def test_a_killed_run_continues_to_the_same_bytes(films, built, tmp_path):
    output = tmp_path / "pairs"
    assert _run_until(_a_unit(output, 9), films, output)
    done = {path: path.stat().st_mtime_ns for path in _units(output)}
    assert 9 <= len(done) < 23 and not (output / "README.md").exists()
    assert _run_until(_any(output, "parquet*/*"), films, output)
    assert done.items() <= {path: path.stat().st_mtime_ns for path in _units(output)}.items()
    assert build("folder", films, "--output", output, "--licence", "CC0-1.0") == 0
    assert files_of(output) == files_of(built)


@pytest.mark.slow
def test_kills_at_any_moment_change_no_byte(films, built, tmp_path):
    output = tmp_path / "pairs"
    moments = [_a_unit(output, count) for count in (1, 2, 5, 17)]
    patterns = ("cache", "parquet.incomplete/*", "parquet/*", "finished", "finished/*.png")
    moments += [_any(output, pattern) for pattern in patterns]
    moments += [_any(output, f"../{name}") for name in ("*.png", "*.parquet", "train-*")]
    kills = sum(_run_until(moment, films, output) for moment in moments)
    assert kills >= 6  # the last moments are short: some may be missed
    assert build("folder", films, "--output", output, "--licence", "CC0-1.0") == 0
    assert files_of(output) == files_of(built)


def _units(output: Path) -> list[Path]:
    return list(output.glob("unfinished-*/videos/*.parquet"))


def _a_unit(output: Path, count: int):
    return lambda: len(_units(output)) >= count


def _any(output: Path, pattern: str):
    whole = pattern[3:] if pattern.startswith("../") else f"unfinished-*/{pattern}"

    def is_there() -> bool:
        with contextlib.suppress(FileNotFoundError):  # a folder renamed while it is read
            return any(output.glob(whole))
        return False

    return is_there


def _run_until(moment, films: Path, output: Path) -> bool:
    """Starts the command and kills it; says whether it was still running."""
    command = [sys.executable, "-m", "tests.fake_extraction", "folder", films, "--output", output]
    command += ["--workers", "2", "--licence", "CC0-1.0"]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while run.poll() is None and not moment():
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    return run.wait() == -signal.SIGKILL


def test_a_finished_data_set_is_kept(films, built, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in built.iterdir()}
    assert build("folder", films, "--output", built, "--licence", "CC0-1.0") == 0
    said = capsys.readouterr()
    assert said.out == f"{built}\n"
    figures = "44 pairs of 10 persons; 24 videos and segments were refused, see refused.parquet"
    assert said.err.splitlines()[-1] == figures
    assert {path: path.stat().st_mtime_ns for path in built.iterdir()} == before
    elsewhere = make_films(tmp_path / "films", {"elsewhere.mp4": "person:zoe"})
    for others in (
        [films, "--licence", "CC0-1.0", "--seed", 1],
        [films, "--licence", "CC BY 4.0"],
        [films, "--licence", "CC0-1.0", "--speaker-folders"],
        [films, "--licence", "CC0-1.0", "--known", built],
        [elsewhere, "--licence", "CC0-1.0"],
    ):
        assert build("folder", *others, "--output", built) == 1
        assert capsys.readouterr().err == (
            f"speech_face_pairs: {built} was built with other options, or from another source: "
            "choose another folder, or remove it\n"
        )


def test_new_videos_go_into_a_new_folder_and_move_nobody(built, tmp_path, capsys):
    films = make_films(tmp_path / "films", FILMS | {"new.mp4": "person:anna person:zoe"})
    arguments = ["folder", films, "--licence", "CC0-1.0"]
    assert build(*arguments, "--output", built) == 1
    assert f"build a new folder with --known {built}" in capsys.readouterr().err
    output = tmp_path / "more"
    assert build(*arguments, "--output", output, "--known", built) == 0
    split_of = {row["speaker_id"]: split for split, rows in rows_of(built).items() for row in rows}
    videos = defaultdict(set)
    for split, rows in rows_of(output).items():
        for row in rows:
            assert split_of.get(row["speaker_id"], split) == split
            videos[row["speaker_id"]].add(row["video_id"])
    assert len(videos) == 11 and sum("new.mp4" in found for found in videos.values()) == 2
    assert set(split_of) < set(videos)


def test_labels_are_used_or_ignored(films, tmp_path):
    listing = list_folder(films, speaker_folders=True)
    units = [Unit(v, tmp_path / f"{unit_name(v)}.parquet") for v in listing.videos]
    for unit in units:
        UnitWork(fake_extract, 128)(unit)

    def speakers(ignore_labels: bool) -> dict[str, set[str]]:
        plan = make_plan(units, IdentityConfig(), ignore_labels=ignore_labels)
        found = defaultdict(set)
        for row in (row for split in SPLITS for row in plan.pairs(split)):
            found[row["video_id"]].add((row["speaker_source"], row["speaker_id"]))
        return found

    found = speakers(ignore_labels=False)
    assert found["emil/1.mp4"] == {("label", "emil")} and len(found) == 21
    assert {name for _, name in found["two.mp4"]} == {"anna", "bert"}  # no label but their faces
    assert {source for names in speakers(True).values() for source, _ in names} == {"cluster"}


def test_what_is_said_of_one_person_is_not_said_of_another(films, tmp_path):
    stated = {"gender": "female", "age": 33.0, "voice_id": "af_bella"}
    video = SourceVideo("two.mp4", films / "two.mp4", "cast", "CC0", "anna", **stated)
    alone = SourceVideo("one.mp4", films / "anna/0.mp4", "cast", "CC0", "anna", **stated)
    units = [Unit(v, tmp_path / f"{unit_name(v)}.parquet") for v in (alone, video)]
    for unit in units:
        UnitWork(fake_extract, 128)(unit)
    plan = make_plan(units, IdentityConfig(others="cluster"))
    found = {
        (row["video_id"], row["speaker_id"] == "anna"): {name: row[name] for name in stated}
        for split in SPLITS
        for row in plan.pairs(split)
    }
    nothing = dict.fromkeys(stated)
    assert found == {
        ("one.mp4", True): stated,
        ("two.mp4", True): stated,
        ("two.mp4", False): nothing,
    }


def test_the_same_recording_counts_once(films, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "dataset_scripts.assembly.find_duplicates", lambda prints: {"two.mp4": "anna/0.mp4"}
    )
    listing = list_folder(films)
    units = [Unit(v, tmp_path / f"{unit_name(v)}.parquet") for v in listing.videos]
    for unit in units:
        UnitWork(fake_extract, 128)(unit)
    plan = make_plan(units, IdentityConfig())
    rows = [row for split in SPLITS for row in plan.pairs(split)]
    assert len(rows) == 40 and "two.mp4" not in {row["video_id"] for row in rows}
    refused = [refusal for refusal, _ in plan.refused() if refusal.video_id == "two.mp4"]
    assert [(r.reason, r.detail) for r in refused] == [
        ("duplicate", "the same recording as anna/0.mp4")
    ]


def test_the_builder_is_a_datasets_builder(films, built, tmp_path):
    from datasets import Audio

    from dataset_scripts.speech_face_pairs import SpeechFacePairs

    assert set(SpeechFacePairs.builder_configs) == {"folder", "voxceleb", "avspeech", "cast"}
    builder = SpeechFacePairs(
        config_name="folder",
        cache_dir=str(tmp_path),
        path=str(films),
        licence="CC0-1.0",
        extract=fake_extract,
    )
    builder.download_and_prepare()
    dataset = builder.as_dataset()
    columns = ["pair_id", "speaker_id", "video_id", "start_s", "audio", "face_embedding"]
    expected = rows_of(built, columns)
    for split, rows in expected.items():
        assert dataset[split].select_columns(columns).to_list() == rows
    assert dataset["train"].features["audio"] == Audio(sampling_rate=16000, decode=False)
    assert not list(tmp_path.glob("units-*"))  # they go when the data set is written


def test_no_pairs_is_a_sentence_and_a_table(tmp_path, capsys):
    films = make_films(tmp_path / "films", {"a.mp4": "nobody", "b.mp4": "error"})
    output = tmp_path / "pairs"
    assert build("folder", films, "--output", output) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        f"speech_face_pairs: none of 2 videos gave a pair: see {output / 'refused.parquet'}"
    )
    table = pyarrow.parquet.read_table(output / "refused.parquet").to_pylist()
    assert [row["reason"] for row in table] == ["no_face", "failed"]
    assert build("folder", films, "--output", output) == 1  # and again, from what is there
    assert not (output / "README.md").exists()
    capsys.readouterr()
    assert build("folder", films, "--output", output, "--max-duration", 60) == 1
    error = capsys.readouterr().err
    assert "holds an unfinished run with other options: choose another folder, or remove" in error
    damaged = _units(output)[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert build("folder", films, "--output", output) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{damaged} is damaged" in error and "remove it, and the same command" in error


def test_bad_commands_are_refused_in_one_sentence(films, tmp_path, capsys):
    output = tmp_path / "pairs"
    a_file = tmp_path / "file"
    a_file.write_text("")
    full = tmp_path / "full"
    full.mkdir()
    (full / "train-00000.parquet").write_text("")
    to = ["--output", output]
    for arguments, sentence in (
        (["folder", tmp_path / "no", *to], "no does not exist: name a folder of videos"),
        (["folder", full, *to], "full holds no video: 1 other files were found"),
        (["folder", films, "--output", a_file], "is a file: name a folder for the data set"),
        (["folder", films, "--output", full], "holds another data set: choose another folder"),
        (["folder", films, "--output", films / "pairs"], "lies among the videos: choose a folder"),
        (["folder", films, *to, "--workers", 0], "--workers must be at least 1, got 0"),
        (["folder", films, *to, "--seed", -1], "--seed must be at least 0, got -1"),
        (["folder", films, *to, "--max-duration", 0], "--max-duration must be above 0 s, got 0"),
        (["folder", films, *to, "--max-duration", "nan"], "must be above 0 s, got nan"),
        (["folder", films, *to, "--max-duration", "inf"], "must be above 0 s and finite, got inf"),
        (["folder", films, *to, "--ray-address", "x"], "--ray-address is for a cluster: add"),
        (["folder", films, *to, "--public"], "--public says how to push: add --push-to-hub REPO"),
        (["folder", films, *to, "--known", a_file], "file holds no data set of pairs"),
        (["folder", films, *to, "--known", full], "train-00000.parquet cannot be read as Parquet"),
        (["folder", films, *to, "--remove", full], "cannot be read as a list of names"),
        (["folder", films, *to, "--remove", a_file], "file names nobody: write a speaker_id"),
        (["voxceleb", films, *to], "name VoxCeleb's metadata file"),
        (["avspeech", a_file, *to, "--videos", films], "file is empty"),
        (["cast", films, *to], "holds no films of the cast"),
        (["built", films], "nothing to do: add --remove LIST"),
        (["built", films, "--rights", "mine, all mine, I swear"], "holds no finished data set"),
    ):
        assert build(*arguments) == 1, arguments
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1, error
        assert error.startswith("speech_face_pairs: ") and not output.exists()
    for arguments in ([], ["folder", films], ["nonsense"], ["folder", films, *to, "--engine", "x"]):
        with pytest.raises(SystemExit) as stopped:
            build(*arguments)
        assert stopped.value.code == 2
    assert not (films / "pairs").exists()


def test_a_stopped_run_says_how_to_go_on(tmp_path):
    films = make_films(tmp_path / "films", {f"{k}.mp4": "begin" + 100 * " slow" for k in range(8)})
    output = tmp_path / "pairs"
    command = [sys.executable, "-m", "tests.fake_extraction", "folder", films, "--output", output]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, process_group=0)
    while run.poll() is None and not any(films.glob("*.begun")):
        time.sleep(0.01)
    for _ in range(2):  # Python may lose one, where it cannot raise
        os.killpg(run.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            _, error = run.communicate(timeout=60)
            break
    assert run.returncode == 1 and "Traceback" not in error
    assert error.splitlines()[-1] == "speech_face_pairs: stopped: the same command continues"


def test_two_runs_do_not_write_into_one_folder(films, tmp_path, capsys):
    from filelock import FileLock

    from dataset_scripts.builder import source_config

    config = source_config("folder", path=str(films))
    unfinished = tmp_path / f"unfinished-{config.units_fingerprint()[:12]}"
    unfinished.mkdir()
    with FileLock(unfinished / "lock"):
        assert build("folder", films, "--output", tmp_path) == 1
    error = f"speech_face_pairs: {tmp_path} is being written by another run: wait for it\n"
    assert capsys.readouterr().err == error


@pytest.mark.slow
def test_ray_gives_the_same_rows(films, built, tmp_path):
    pytest.importorskip("ray")
    output = tmp_path / "pairs"
    options = ["--output", output, "--workers", 2, "--licence", "CC0-1.0", "--engine", "ray"]
    assert build("folder", films, *options) == 0
    assert files_of(output) == files_of(built)


def test_about_is_empty_for_cards_of_others(tmp_path):
    card = tmp_path / "README.md"
    for text in ("", "# A project", "---\nlicense: mit\n---\n", "---\n- [\n---\n", "---\nx\n---\n"):
        card.write_text(text)
        assert read_about(card) == {}


def test_a_card_is_read_whatever_is_said_of_the_rights(built, tmp_path):
    output = Path(shutil.copytree(built, tmp_path / "pairs"))
    for rights in ("agreed on paper ---", "agreed on paper\n---\nand kept there"):
        assert build("built", output, "--rights", rights) == 0
        assert read_about(output / "README.md")["rights"] == rights


def test_avspeech_is_fetched_and_what_is_gone_is_refused(tmp_path):
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    site = make_films(tmp_path / "site", {f"video{k}.mp4": f"person:p{k}" for k in range(2)})

    class Site(SimpleHTTPRequestHandler):
        def log_message(self, *words) -> None:
            pass

    stretches = "".join(f"video{k},1.0,9.0,0.5,0.5\n" for k in range(3))  # the last is not there
    (tmp_path / "avspeech_train.csv").write_text(stretches)
    output, videos = tmp_path / "pairs", tmp_path / "videos"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{{id}}.mp4"
        fetch = ["--videos", videos, "--download", "--url-template", url, "--output", output]
        assert build("avspeech", tmp_path / "avspeech_train.csv", *fetch) == 0
        server.shutdown()
    rows = [row for rows in rows_of(output).values() for row in rows]
    assert {row["source"] for row in rows} == {"avspeech"} and len(rows) == 4
    assert not rows_of(output)["test"]  # the list of the development set fills no test set
    refused = pyarrow.parquet.read_table(output / "refused.parquet").to_pylist()
    gone = [row["video_id"] for row in refused if row["reason"] == "gone"]
    assert gone == ["video2/1.000000-9.000000@0.500000,0.500000"]
    assert "[AVSpeech](" in (output / "README.md").read_text()
