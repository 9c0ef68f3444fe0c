import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest

from dataset_scripts.data_card import read_about
from dataset_scripts.removal import finish_removal, read_list, remove_from_dataset
from dataset_scripts.speech_face_pairs import main
from tests.conftest import ROOT
from tests.fake_extraction import fake_extract
from tests.test_speech_face_pairs import files_of, make_films

pytestmark = pytest.mark.usefixtures("no_workers")

FILMS = {f"{name}/{k}.mp4": f"person:{name}" for name in ("anna", "bert", "carl") for k in "01"}
FILMS |= {f"{name}/0.mp4": f"person:{name}" for name in ("dora", "emil", "fred", "gert", "hans")}
FILMS |= {"two.mp4": "person:anna person:bert", "anna/dark.mp4": "nobody", "x.mp4": "nobody"}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films"), FILMS)


@pytest.fixture(scope="module")
def whole(films, no_workers, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "pairs"
    assert build(films, output) == 0
    return output


@pytest.fixture
def dataset(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "pairs"))


def build(films: Path, output: Path, *options) -> int:
    arguments = ["folder", films, "--speaker-folders", "--output", output]
    return main([str(argument) for argument in [*arguments, *options]], extract=fake_extract)


def rows_of(folder: Path) -> list[dict]:
    columns = ["pair_id", "speaker_id", "video_id", "audio", "face_embedding"]
    paths = [path for path in sorted(folder.glob("*-*.parquet"))]
    return [
        r for path in paths for r in pyarrow.parquet.read_table(path, columns=columns).to_pylist()
    ]


def refused_of(folder: Path) -> list[dict]:
    return pyarrow.parquet.read_table(folder / "refused.parquet").to_pylist()


def test_a_person_goes_from_files_pictures_and_figures(dataset):
    from datasets import load_dataset

    before, files = rows_of(dataset), files_of(dataset)
    said = remove_from_dataset(dataset, ["anna"])
    assert said == f"{dataset}: 1 person and 0 videos were taken out, 6 pairs in all"
    assert rows_of(dataset) == [row for row in before if row["speaker_id"] != "anna"]
    refused = refused_of(dataset)
    assert not [row for row in refused if row["video_id"].startswith("anna/")]
    assert [row["video_id"] for row in refused].count("two.mp4") == 2  # bert is still in it
    after = files_of(dataset)
    assert after["contact_sheet.png"] != files["contact_sheet.png"]
    assert after["histograms.png"] != files["histograms.png"]
    card = after["README.md"].decode()
    assert "1 person and 0 videos, 6 pairs in all, were taken out" in " ".join(card.split())
    assert "Of the 7 persons" in card and "anna" not in card
    assert read_about(dataset / "README.md")["videos"] == len(FILMS) - 3
    assert b"anna" not in after["removed.json"]
    loaded = load_dataset(str(dataset), cache_dir=str(dataset.parent / "cache"))
    assert sum(map(len, loaded.values())) == len(before) - 6


def test_files_without_them_stay_as_they_are(dataset):
    split_of = {
        speaker: path.name
        for path in dataset.glob("*-*.parquet")
        for speaker in pyarrow.parquet.read_table(path)["speaker_id"].to_pylist()
    }
    before = files_of(dataset)
    remove_from_dataset(dataset, ["carl"])
    changed = {name for name, content in files_of(dataset).items() if before.get(name) != content}
    assert {name for name in changed if "-of-" in name} <= {split_of["carl"]}


def test_a_video_goes_with_all_who_are_in_it(dataset):
    remove_from_dataset(dataset, ["two.mp4"])
    assert "two.mp4" not in {row["video_id"] for row in rows_of(dataset) + refused_of(dataset)}
    counts = Counter(row["speaker_id"] for row in rows_of(dataset))
    assert counts["anna"] == counts["bert"] == 4
    assert read_about(dataset / "README.md")["removed"] == {"persons": 0, "videos": 1, "pairs": 4}


def test_a_split_that_empties_is_named_no_more(dataset):
    rows = pyarrow.parquet.read_table(next(dataset.glob("test-*.parquet"))).to_pylist()
    remove_from_dataset(dataset, {row["speaker_id"] for row in rows})
    assert not list(dataset.glob("test-*.parquet"))
    assert "path: test-" not in (dataset / "README.md").read_text()


def test_unknown_names_change_nothing(dataset, capsys):
    before = files_of(dataset)
    with pytest.raises(ValueError, match="nobody_of_that_name: no such person or video is in"):
        remove_from_dataset(dataset, ["anna", "nobody_of_that_name"])
    with pytest.raises(ValueError, match="would be empty: remove the folder instead"):
        remove_from_dataset(dataset, {row["speaker_id"] for row in rows_of(dataset)})
    assert files_of(dataset) == before
    with pytest.raises(ValueError, match="holds no finished data set"):
        remove_from_dataset(dataset.parent, ["anna"])


def test_the_command_removes_and_building_again_keeps_them_out(films, dataset, capsys):
    names = dataset.parent / "names.txt"
    names.write_text("# asked on paper\nanna # and her brother\n\n  bert\nx.mp4\n")
    assert main(["built", str(dataset), "--remove", str(names)]) == 0
    assert "2 persons and 1 video were taken out, 12 pairs" in capsys.readouterr().out
    after = files_of(dataset)
    assert build(films, dataset) == 0 and files_of(dataset) == after  # finished, and stays so
    assert main(["built", str(dataset), "--remove", str(names)]) == 0  # asked once more
    assert "holds none of them any more" in capsys.readouterr().out and files_of(dataset) == after
    rows, refused = rows_of(dataset), refused_of(dataset)
    for path in dataset.iterdir():
        if path.name != "removed.json":
            path.unlink()
    assert build(films, dataset) == 0
    assert rows_of(dataset) == rows and refused_of(dataset) == refused
    about = read_about(dataset / "README.md")
    assert about["removed"] == {"persons": 2, "videos": 1, "pairs": 12}
    other = dataset.parent / "other"
    assert build(films, other, "--known", dataset) == 0
    assert not {"anna", "bert"} & {row["speaker_id"] for row in rows_of(other)}


def test_a_run_killed_as_its_files_are_moved_counts_nobody_twice(films, dataset):
    remove_from_dataset(dataset, ["anna"])
    other = dataset.parent / "other"
    other.mkdir()
    shutil.copy(dataset / "removed.json", other)  # moved, and the card was not
    assert build(films, other, "--known", dataset) == 0
    removed = {"persons": 1, "videos": 0, "pairs": 6}
    assert read_about(other / "README.md")["removed"] == removed
    assert (other / "removed.json").read_bytes() == (dataset / "removed.json").read_bytes()


def test_what_a_killed_run_left_behind_goes_too(dataset):
    left = dataset / "unfinished-0123456789ab" / "videos" / "anna.parquet"
    left.parent.mkdir(parents=True)
    left.write_text("the run was killed as it tidied up")
    remove_from_dataset(dataset, ["anna"])
    assert not left.parent.parent.exists()


def test_a_name_within_other_words_takes_no_refusal_along(tmp_path):
    films = make_films(tmp_path / "films", {"it/0.mp4": "person:x", "bo/0.mp4": "person:y"})
    output = tmp_path / "pairs"
    assert build(films, output) == 0
    assert [row["detail"] for row in refused_of(output)] == 2 * ["it looks away"]
    remove_from_dataset(output, ["it"])
    assert [row["video_id"] for row in refused_of(output)] == ["bo/0.mp4"]


def test_no_copy_takes_the_place_of_a_video_that_was_taken_out(tmp_path, monkeypatch):
    def find_copies(prints):
        return {"copy.mp4": "first.mp4"} if {"copy.mp4", "first.mp4"} <= set(prints) else {}

    monkeypatch.setattr("dataset_scripts.assembly.find_duplicates", find_copies)
    words = {"copy.mp4": "person:x", "first.mp4": "person:x", "other.mp4": "person:y"}
    films = make_films(tmp_path / "films", words)
    assert build(films, tmp_path / "pairs") == 0
    assert "the same recording as first.mp4" in {
        r["detail"] for r in refused_of(tmp_path / "pairs")
    }
    copy = shutil.copytree(tmp_path / "pairs", tmp_path / "copy")
    said = remove_from_dataset(copy, ["copy.mp4"])
    kept = "copy.mp4 is the same recording as first.mp4, which stays: list first.mp4 too"
    assert said.endswith(f"0 pairs in all; {kept}")
    assert "stays" not in remove_from_dataset(tmp_path / "pairs", ["first.mp4"])
    assert build(films, tmp_path / "again", "--known", tmp_path / "pairs") == 0
    rows = rows_of(tmp_path / "again") + refused_of(tmp_path / "again")
    assert {row["video_id"] for row in rows} == {"other.mp4"}
    assert read_about(tmp_path / "again" / "README.md")["videos"] == 1


def test_persons_found_by_their_faces_stay_out_too(tmp_path):
    films = make_films(tmp_path / "films", {f"{k}.mp4": f"person:p{k // 2}" for k in range(8)})
    output = tmp_path / "pairs"
    arguments = ["folder", str(films), "--output", str(output)]
    assert main(arguments, extract=fake_extract) == 0
    row = rows_of(output)[0]
    remove_from_dataset(output, [row["speaker_id"]])
    kept = {row["pair_id"] for row in rows_of(output)}
    for path in output.iterdir():
        if path.name != "removed.json":
            path.unlink()
    assert main(arguments, extract=fake_extract) == 0
    assert {row["pair_id"] for row in rows_of(output)} == kept and len(kept) == 12
    assert row["video_id"] not in {row["video_id"] for row in refused_of(output)}


def test_a_killed_removal_is_whole_or_never_was(dataset):
    other = Path(shutil.copytree(dataset, dataset.parent / "other"))
    before = files_of(dataset)
    remove_from_dataset(other, ["anna", "two.mp4"])
    after = files_of(other)
    names = dataset.parent / "names.txt"
    names.write_text("anna\ntwo.mp4\n")
    command = [sys.executable, "-m", "dataset_scripts.speech_face_pairs", "built", str(dataset)]
    command += ["--remove", str(names)]
    run = subprocess.Popen(command, cwd=ROOT)
    while run.poll() is None and not any(dataset.glob("unfinished-removal/*.parquet")):
        time.sleep(0.001)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    finish_removal(dataset)
    assert files_of(dataset) in (before, after)
    remove_from_dataset(dataset, ["anna", "two.mp4"])
    assert files_of(dataset) == after


def test_a_removal_killed_while_files_are_moved_is_finished(dataset, monkeypatch):
    other = Path(shutil.copytree(dataset, dataset.parent / "other"))
    remove_from_dataset(other, ["anna"])
    monkeypatch.setattr("dataset_scripts.removal.finish_removal", lambda folder: None)
    remove_from_dataset(dataset, ["anna"])
    monkeypatch.undo()
    ready = dataset / "removal-ready"
    (ready / "contact_sheet.png").replace(dataset / "contact_sheet.png")  # one file was moved
    finish_removal(dataset)
    assert files_of(dataset) == files_of(other)


def test_nothing_is_left_where_all_were_taken_out(films, dataset, tmp_path, capsys):
    alone = make_films(tmp_path / "alone", {"anna/0.mp4": "person:anna"})
    remove_from_dataset(dataset, ["anna"])
    assert build(alone, tmp_path / "other", "--known", dataset) == 1
    said = "none of 1 videos gave a pair, and 1 of them stay out, as was asked with --remove: see"
    assert said in capsys.readouterr().err


def test_a_killed_removal_is_finished_before_the_data_set_is_taken_as_known(
    films, dataset, monkeypatch
):
    monkeypatch.setattr("dataset_scripts.removal.finish_removal", lambda folder: None)
    remove_from_dataset(dataset, ["anna"])
    monkeypatch.undo()
    assert (dataset / "removal-ready").is_dir()
    other = dataset.parent / "other"
    assert build(films, other, "--known", dataset) == 0
    assert not (dataset / "removal-ready").exists()
    assert {row["speaker_id"] for row in rows_of(other)} == {
        row["speaker_id"] for row in rows_of(dataset)
    }
    assert "anna" not in {row["speaker_id"] for row in rows_of(other)}


def test_a_list_is_read_with_its_comments(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("anna\n#bert\nvideo#1.mp4 # asked by letter\n\nanna\n")
    assert read_list(path) == ["anna", "video#1.mp4"]
    path.write_text("# nobody yet\n")
    with pytest.raises(ValueError, match="names nobody: write a speaker_id or a video_id"):
        read_list(path)
