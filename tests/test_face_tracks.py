from dataclasses import replace

import numpy as np
import pytest

from dataset_scripts import face_tracks
from dataset_scripts.face_tracks import TrackingConfig, track_faces
from dataset_scripts.step_clock import StepClock
from tests.drawn_face import draw_face, empty_scene
from tests.film_files import as_frames

SCENE = empty_scene()


def tracks_of(pictures, cuts=(), config=None, first=0):
    frames = as_frames(pictures, first)
    return list(track_faces(((f, f.index in cuts) for f in frames), config))


def walk(count: int) -> list[tuple[float, float]]:
    """Places of a face that moves with a head's speed."""
    t = np.arange(count)
    return list(zip(150 + 25 * np.sin(t / 9), 120 + 6 * np.sin(t / 5), strict=True))


def test_a_moving_face_is_one_track_with_its_landmarks():
    places = walk(53)
    (track,) = tracks_of([draw_face(SCENE, place) for place in places], first=7)
    assert (track.start, track.end) == (7, 60)
    assert track.landmarks.shape == (53, 5, 2) and track.boxes.shape == (53, 4)
    assert track.mouths.shape == (53, 48, 64) and track.mouths.dtype == np.uint8
    # The landmarks move as the face does, to a pixel and a half.
    drift = track.landmarks.mean(axis=1) - np.array(places)
    assert np.abs(drift - np.median(drift, axis=0)).max() < 1.5
    steps = np.abs(np.diff(drift, axis=0))
    assert steps.mean() < 0.25  # and do not tremble
    middles = (track.boxes[:, :2] + track.boxes[:, 2:]) / 2
    assert np.abs(middles - places).max() < 25
    assert track.place == pytest.approx((middles / (320, 240)).mean(axis=0), abs=0.01)
    assert track.score > 0.5


def test_mouths_show_the_mouth_wherever_the_head_is():
    openings = 0.5 + 0.5 * np.sin(np.arange(40) / 2)
    places = walk(40)
    pictures = [
        draw_face(SCENE, place, opening=opening)
        for place, opening in zip(places, openings, strict=True)
    ]
    (track,) = tracks_of(pictures)
    dark = -track.mouths[:, 10:34, 22:42].mean(axis=(1, 2))
    assert np.corrcoef(dark, openings)[0, 1] > 0.95


def test_two_faces_are_two_tracks():
    pictures = [
        draw_face(draw_face(SCENE, (90, 120 + k % 3), 95), (235, 120), 95, tone=120)
        for k in range(21)
    ]
    one, other = sorted(tracks_of(pictures), key=lambda track: track.place)
    assert one.place[0] == pytest.approx(90 / 320, abs=0.03)
    assert other.place[0] == pytest.approx(235 / 320, abs=0.03)
    assert (one.start, one.end) == (other.start, other.end) == (0, 21)


def test_a_crowd_is_not_followed():
    picture = draw_face(draw_face(SCENE, (90, 120), 90), (235, 120), 105)
    (track,) = tracks_of([picture] * 6, config=TrackingConfig(max_faces=1))
    assert track.place[0] == pytest.approx(235 / 320, abs=0.03)  # the larger one


@pytest.mark.parametrize("cut", [10, 12, 14])
def test_a_cut_ends_a_track_at_its_picture(cut):
    pictures = [draw_face(SCENE, (150, 120))] * cut + [draw_face(SCENE, (160, 120))] * (25 - cut)
    before, after = tracks_of(pictures, cuts=(cut,))
    assert (before.start, before.end, after.start, after.end) == (0, cut, cut, 25)
    assert {c.index < cut for c in before.candidates} == {True}
    assert {c.index >= cut for c in after.candidates} == {True}


def test_pictures_that_are_missing_end_a_track():
    face = draw_face(SCENE)
    frames = [*as_frames([face] * 10), *as_frames([face] * 10, first=40)]
    spans = [(t.start, t.end) for t in track_faces((f, False) for f in frames)]
    assert spans == [(0, 10), (40, 50)]


def test_a_face_hidden_for_a_moment_is_the_same_track():
    pictures = [SCENE if 9 <= k <= 11 else draw_face(SCENE) for k in range(31)]
    (track,) = tracks_of(pictures)
    assert (track.start, track.end) == (0, 31)


def test_a_face_that_leaves_ends_its_track_and_one_that_comes_begins_one():
    pictures = [draw_face(SCENE)] * 20 + [SCENE] * 40 + [draw_face(SCENE)] * 20
    first, second = tracks_of(pictures)
    assert first.start == 0 and 15 < first.end <= 21
    assert second.start == 60 and second.end == 80


def test_a_jump_that_no_cut_explains_ends_a_track():
    size = 110
    pictures = [draw_face(SCENE, (150, 120), size)] * 15
    pictures += [draw_face(SCENE, (150 + 0.45 * size, 120), size)] * 15
    first, second = tracks_of(pictures)
    assert first.start == 0 and second.end == 30
    assert first.end == second.start and abs(first.end - 15) <= 2


def test_small_faces_in_a_large_picture_are_found():
    scene = empty_scene(720, 960)
    (track,) = tracks_of([draw_face(scene, (300, 300), 100)] * 11)
    assert (track.start, track.end) == (0, 11)
    assert np.median(track.boxes[:, 2] - track.boxes[:, 0]) == pytest.approx(100, abs=25)
    (tiny,) = tracks_of([draw_face(empty_scene(360, 480), (200, 180), 55)] * 11)
    assert np.median(tiny.boxes[:, 2] - tiny.boxes[:, 0]) < 75


def test_the_best_picture_of_each_second_is_kept():
    import cv2

    turned = [draw_face(SCENE, turn=1.2)] * 50
    turned[15] = draw_face(SCENE)
    turned[30] = draw_face(SCENE)
    blurred = draw_face(SCENE)
    turned[45] = cv2.GaussianBlur(blurred, (0, 0), 4)
    (track,) = tracks_of(turned)
    assert [c.index for c in track.candidates] == [15, 30]
    for candidate in track.candidates:
        assert candidate.face.shape == (224, 224, 3)
        assert candidate.time_s == candidate.index / 25
        assert candidate.place == pytest.approx((0.5, 0.5), abs=0.08)
        assert candidate.score > 0


def test_pictures_are_let_go_of(monkeypatch):
    """A long shot must not be kept in memory."""
    most = 0

    class Watched(face_tracks._Shot):
        def add(self, frame):
            nonlocal most
            yield from super().add(frame)
            most = max(most, len(self.frames))

    monkeypatch.setattr(face_tracks, "_Shot", Watched)
    pictures = [draw_face(SCENE), SCENE]
    tracks_of([pictures[0]] * 60 + [pictures[1]] * 60 + [pictures[0]] * 30)
    assert 0 < most <= 25


def test_repeated_pictures_are_told_apart():
    frames = list(as_frames([draw_face(SCENE, place) for place in walk(20)]))
    for frame in frames[1::2]:
        frame.is_repeat = True
    (track,) = track_faces((frame, False) for frame in frames)
    np.testing.assert_array_equal(track.is_new, [True, False] * 10)


def test_a_wall_has_no_faces():
    assert tracks_of([SCENE] * 12) == []
    assert tracks_of([]) == []


def test_the_steps_are_counted():
    clock = StepClock()
    frames = as_frames([draw_face(SCENE)] * 20)
    list(track_faces(((f, False) for f in frames), TrackingConfig(detect_every=4), clock))
    assert clock.counts["detect"] == 5
    assert clock.seconds["detect"] > 0 and clock.seconds["landmarks"] > 0


def test_landmarks_in_between_are_near_to_predicted_ones():
    pictures = [draw_face(SCENE, place) for place in walk(31)]
    (fine,) = tracks_of(pictures, config=replace(TrackingConfig(), landmarks_every=1))
    (coarse,) = tracks_of(pictures)
    assert np.abs(fine.landmarks - coarse.landmarks).max() < 1.5
