import numpy as np
import pytest

from dataset_scripts.shots import mark_cuts
from tests.drawn_face import draw_face, empty_scene
from tests.film_files import as_frames, flat_pictures, tone, write_video


def starts(frames) -> list[int]:
    marked = list(mark_cuts(frames))
    assert [f.index for f, _ in marked] == sorted(f.index for f, _ in marked)
    return [frame.index for frame, starts_shot in marked if starts_shot]


def panned(count: int, seed: int, step: int = 4) -> list[np.ndarray]:
    """A camera that moves over a scene."""
    wide = empty_scene(120, 160 + step * count, seed)
    return [wide[:, step * k : step * k + 160] for k in range(count)]


def test_a_cut_is_marked_at_its_picture():
    pictures = panned(20, seed=1) + panned(17, seed=2) + panned(30, seed=3)
    assert starts(as_frames(pictures)) == [0, 20, 37]


def test_cuts_close_to_each_other_and_to_the_ends():
    pictures = panned(4, seed=1) + panned(5, seed=2) + panned(6, seed=3)
    assert starts(as_frames(pictures)) == [0, 4, 9]


def test_a_moving_camera_a_moving_face_and_a_slow_light_are_no_cuts():
    assert starts(as_frames(panned(40, seed=4, step=8))) == [0]
    scene = empty_scene()
    moving = [draw_face(scene, (100 + 3 * k, 120), 110) for k in range(40)]
    assert starts(as_frames(moving)) == [0]
    fading = [(scene * (0.3 + 0.015 * k)).astype(np.uint8) for k in range(40)]
    assert starts(as_frames(fading)) == [0]


def test_a_gap_in_the_pictures_begins_a_shot():
    scene = empty_scene()
    frames = [*as_frames([scene] * 10), *as_frames([scene] * 10, first=30)]
    assert starts(frames) == [0, 30]


@pytest.mark.parametrize("fps", [5, 12])
def test_slow_films_are_not_cut_at_every_picture(tmp_path, fps):
    from dataset_scripts.video import probe, read_frames

    pictures = panned(3 * fps, seed=5, step=10)
    film = write_video(tmp_path / "film.mkv", pictures, fps, sounds=[tone(3)])
    frames = list(read_frames(film, probe(film)))
    assert starts(frames) == [0]
    assert len(list(mark_cuts(frames))) == len(frames)


def test_pictures_are_handed_on_soon():
    given = 0

    def counted():
        nonlocal given
        for frame in as_frames(flat_pictures([90] * 50)):
            given += 1
            yield frame

    for taken, _ in enumerate(mark_cuts(counted()), start=1):
        assert given - taken <= 3


def test_no_pictures():
    assert list(mark_cuts([])) == []
