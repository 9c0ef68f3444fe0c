import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset_scripts.engines import run_units
from dataset_scripts.records import SourceVideo
from dataset_scripts.units import Unit, UnitWork, read_unit, unit_name
from tests.conftest import ROOT
from tests.fake_extraction import fake_extract

FILMS = {
    "one": "person:anna",
    "two": "person:bert person:carl",
    "crash": "crash",
    "hang": "hang",
    "error": "error",
    "nobody": "nobody",
    "last": "person:anna",
}
LIMIT = 4  # seconds, for a film that hangs
REFUSED = {
    "crash": ("failed", "its process died twice (exit code -6)"),
    "hang": ("too_slow", "the video took longer than {limit} s"),
    "error": ("failed", "RuntimeError: a fault of the code"),
    "nobody": ("no_face", "no face is seen"),
}


def make_units(folder: Path, films: dict[str, str]) -> list[Unit]:
    units = []
    (folder / "units").mkdir(parents=True)
    for name, words in films.items():
        path = folder / f"{name}.mp4"
        path.write_text(words)
        video = SourceVideo(video_id=name, path=path, source="test", licence="none")
        units.append(Unit(video, folder / "units" / f"{unit_name(video)}.parquet"))
    return units


def check(units: list[Unit], reports: list, limit: int = LIMIT) -> None:
    assert sorted(report.video_id for report in reports) == sorted(FILMS)
    pairs = {report.video_id: report.pairs for report in reports}
    assert pairs == {**dict.fromkeys(FILMS, 0), "one": 2, "two": 4, "last": 2}
    for unit in units:
        extraction = read_unit(unit.file, ["pair_id", "track"])
        assert len(extraction.pairs) == pairs[unit.video.video_id]
        whole = [(r.reason, r.detail) for r in extraction.refusals if r.start_s is None]
        expected = [REFUSED[unit.video.video_id]] if unit.video.video_id in REFUSED else []
        assert whole == [(reason, detail.format(limit=limit)) for reason, detail in expected]


def test_what_crashes_or_hangs_is_refused_and_the_rest_goes_on(tmp_path):
    units = make_units(tmp_path, FILMS)
    work = UnitWork(fake_extract, 128, max_seconds=LIMIT)
    check(units, list(run_units(units, work, workers=2)))
    assert not list((tmp_path / "units").glob("*.unfinished"))


@pytest.mark.slow
def test_ray_writes_the_same_files(tmp_path):
    pytest.importorskip("ray")
    here, there = make_units(tmp_path / "a", FILMS), make_units(tmp_path / "b", FILMS)
    work = UnitWork(fake_extract, 128, max_seconds=20)  # Ray's own start takes both cores
    check(here, list(run_units(here, work, workers=1)), limit=20)
    check(there, list(run_units(there, work, workers=2, engine="ray")), limit=20)
    for one, other in zip(here, there, strict=True):
        assert one.file.name == other.file.name
        assert one.file.read_bytes() == other.file.read_bytes()


def test_a_unit_is_read_as_it_was_written(tmp_path):
    (unit,) = make_units(tmp_path, {"two": FILMS["two"]})
    made = fake_extract(unit.video)
    UnitWork(fake_extract, 128)(unit)
    read = read_unit(unit.file, ["pair_id", "track", "audio", "face_embedding"])
    assert [pair["pair_id"] for pair in read.pairs] == [pair["pair_id"] for pair in made.pairs]
    assert [pair["track"] for pair in read.pairs] == [0, 0, 1, 1]
    assert read.pairs[3]["audio"] == made.pairs[3]["audio"]
    assert read.pairs[3]["face_embedding"] == pytest.approx(made.pairs[3]["face_embedding"])
    assert read.refusals == made.refusals and read.fingerprint == made.fingerprint
    assert read.duration_s == 20.0


def test_a_unit_is_named_by_what_its_video_is(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("abc")
    video = SourceVideo("a", path, "test", "none")
    moved = tmp_path / "b.mp4"
    moved.write_text("xyz")
    assert unit_name(video) == unit_name(SourceVideo("a", moved, "test", "none"))
    assert unit_name(video) != unit_name(SourceVideo("a", path, "test", "CC BY 4.0"))
    assert unit_name(video) != unit_name(SourceVideo("a", path, "test", "none", start_s=1.0))
    before = unit_name(video)
    path.write_text("abc, and the rest of it")
    assert unit_name(video) != before


def test_odd_words_and_columns_harm_one_video_only(tmp_path):
    (unit,) = make_units(tmp_path, {"one": "person:anna"})

    def with_a_new_column(video):
        extraction = fake_extract(video)
        extraction.pairs[0]["shoe_size"] = 43
        return extraction

    UnitWork(with_a_new_column, 128)(unit)
    (refusal,) = read_unit(unit.file).refusals
    assert refusal.detail == "ValueError: pairs have no column shoe_size"

    def with_odd_words(video):
        raise ValueError("a\nname \udcff " + 1000 * "x")

    UnitWork(with_odd_words, 128)(unit)
    (refusal,) = read_unit(unit.file).refusals
    assert refusal.detail.startswith("ValueError: a name \\udcff x") and len(refusal.detail) < 320


def test_a_full_disk_ends_the_run_in_a_sentence(tmp_path):
    units = make_units(tmp_path, {"one": "person:anna"})
    (tmp_path / "units").rmdir()
    with pytest.raises(OSError, match="No such file or directory"):
        list(run_units(units, UnitWork(fake_extract, 128)))


def test_workers_that_do_not_start_end_the_run_in_a_sentence(tmp_path):
    units = make_units(tmp_path, {"one": "person:anna"})
    with pytest.raises(RuntimeError, match="the worker processes do not start"):
        list(run_units(units, UnitWork(fake_extract, face_embedding_size="many")))


def test_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="unknown engine 'slurm': choose one of local, ray"):
        run_units([], UnitWork(fake_extract, 128), engine="slurm")


def test_workers_die_with_a_killed_run(tmp_path):
    code = """
import sys
from pathlib import Path
from tests.test_engines import make_units
from tests.fake_extraction import fake_extract
from dataset_scripts.engines import run_units
from dataset_scripts.units import UnitWork
if __name__ == "__main__":
    units = make_units(Path(sys.argv[1]) / "run", {f"{k}": "begin hang" for k in range(4)})
    list(run_units(units, UnitWork(fake_extract, 128), workers=2))
"""
    (tmp_path / "run.py").write_text(code)
    run = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    wait_for(lambda: len(list(tmp_path.glob("run/*.begun"))) == 2)
    workers = children_of(run.pid)
    assert len(workers) == 2
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def children_of(parent: int) -> list[int]:
    """The workers (a further process tracks resources)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent:
                if b"spawn_main" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_for(condition, seconds: float = 120.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    pytest.fail("it did not happen in time")
