"""The command that cuts faces out of photographs: what it writes, what it says, its status."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_scripts.align_faces import align_photograph, main
from dataset_scripts.faces import align_face, detect_faces
from dataset_scripts.pair_table import sharpness
from tests.conftest import ROOT
from tests.drawn_face import draw_face, empty_scene


@pytest.fixture
def photograph(tmp_path):
    """Saves a picture, by default one with a face."""

    def save(name: str, picture: np.ndarray | None = None, **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if picture is None:
            picture = draw_face(empty_scene(), (150, 115), 110)
        Image.fromarray(picture).save(path, **options)
        return path

    return save


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command in this process; returns its status, its lines of errors, its folder."""

    def run(*pictures: Path, output: Path = tmp_path / "faces") -> tuple[int, list[str], Path]:
        status = main([*map(str, pictures), "--output", str(output)])
        captured = capsys.readouterr()
        assert captured.out == ""
        return status, captured.err.splitlines(), output

    return run


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_it_writes_an_aligned_face_for_each_photograph(run, photograph):
    jpeg = photograph("first/ann.jpg", quality=95)
    picture = draw_face(empty_scene(seed=1), (180, 120), 130, tone=120)
    status, errors, folder = run(jpeg, photograph("bob.PNG", picture))
    assert (status, errors) == (0, [])
    assert names_in(folder) == {"ann.png", "bob.png"}
    (face,) = detect_faces(picture)
    written = np.asarray(Image.open(folder / "bob.png"))
    np.testing.assert_array_equal(written, align_face(picture, face.landmarks))
    assert written.shape == (224, 224, 3)


def test_the_largest_face_is_taken(photograph):
    scene = draw_face(empty_scene(300, 500), (110, 140), 90, tone=200)
    picture = draw_face(scene, (350, 150), 150, tone=110)
    large = max(detect_faces(picture), key=lambda face: face.box[2] - face.box[0])
    assert len(detect_faces(picture)) == 2 and large.box[0] > 200
    aligned = align_photograph(photograph("two.png", picture))
    np.testing.assert_array_equal(aligned, align_face(picture, large.landmarks))


def test_a_large_photograph_is_cut_at_its_own_resolution(photograph):
    plain = draw_face(empty_scene(1200, 1600), (800, 600), 150)
    striped = plain.copy()
    striped[:, ::3] //= 2  # 3 pixels apart, 1.9 where the face is looked for
    expected = align_face(striped, detect_faces(plain)[0].landmarks)
    aligned = align_photograph(photograph("striped.png", striped))
    assert sharpness(aligned) > 0.8 * sharpness(expected)


def test_a_small_face_is_found_too(photograph):
    picture = draw_face(empty_scene(), (150, 115), 56)
    assert detect_faces(picture) == []  # as it is
    aligned = align_photograph(photograph("small.png", picture))
    assert len(detect_faces(aligned)) == 1


def test_a_photograph_is_turned_as_its_camera_says(photograph):
    upright = draw_face(empty_scene(), (150, 115), 110)
    lying = np.rot90(upright)  # as a sensor that was held on its side saw it
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    turned = align_photograph(photograph("turned.png", lying, exif=exif))
    plain = align_photograph(photograph("upright.png", upright))
    np.testing.assert_array_equal(turned, plain)


def test_what_cannot_be_done_is_said_in_one_sentence_and_the_others_are_done(run, photograph):
    empty = photograph("empty.png", empty_scene())
    text = empty.with_name("words.jpg")
    text.write_text("not a picture")
    whole = photograph("whole.jpg")
    broken = whole.with_name("broken.jpg")
    broken.write_bytes(whole.read_bytes()[:2000])
    missing = whole.with_name("missing.jpg")
    folder_itself = whole.parent / "first"
    folder_itself.mkdir()
    status, errors, folder = run(empty, text, broken, missing, folder_itself, whole)
    assert status == 1 and names_in(folder) == {"whole.png"}
    assert len(errors) == 5
    assert errors[0].startswith(f"align_faces: {empty}: no face is found: take a picture")
    assert errors[1] == f"align_faces: {text}: this is not a picture: save it as JPEG or PNG"
    assert errors[2].startswith(f"align_faces: {broken}: cannot be read (")
    assert errors[3] == f"align_faces: {missing}: cannot be read (No such file or directory)"
    assert errors[4] == f"align_faces: {folder_itself}: cannot be read (Is a directory)"


def test_no_face_replaces_another(run, photograph):
    first = photograph("a/ann.jpg")
    second = photograph("b/Ann.png", draw_face(empty_scene(seed=1), (180, 120), 130))
    third = photograph("c/bob.png")
    status, errors, folder = run(first, second, third)
    assert status == 1 and names_in(folder) == {"ann.png", "bob.png"}
    assert errors == [
        f"align_faces: {second}: its face would replace that of {first}: rename one of them"
    ]
    face = align_photograph(first)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "ann.png")), face)
    assert run(first)[0] == 0  # again: its own face may be replaced


def test_no_face_replaces_a_photograph(run, photograph):
    own, other = photograph("here/ann.png"), photograph("there/ann.jpg")
    before = own.read_bytes()
    for pictures in ([own], [other, own]):
        status, errors, _ = run(*pictures, output=own.parent)
        assert status == 1 and own.read_bytes() == before
        assert errors == [
            f"align_faces: {path}: its face would replace the photograph {own}: "
            "name another --output"
            for path in pictures
        ]


def test_a_folder_that_cannot_be_made_is_refused(run, photograph):
    picture = photograph("ann.png")
    status, errors, _ = run(picture, output=picture / "faces")
    assert status == 1 and len(errors) == 1
    assert errors[0].startswith(f"align_faces: {picture / 'faces'} cannot be made (")


def test_the_readme_calls_it_as_it_is_called(photograph, tmp_path, monkeypatch):
    readme = (ROOT / "dataset_scripts" / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^python -m dataset_scripts\.align_faces (.+)$", readme, re.MULTILINE)
    photograph("ann.jpg")
    photograph("bob.jpg")
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 0
    assert names_in(tmp_path / "FACES") == {"ann.png", "bob.png"}
