import numpy as np
import pytest

from dataset_scripts.faces import detect_boxes, predict_landmarks
from dataset_scripts.frame_quality import (
    exposure,
    frontality,
    grey_sharpness,
    nose_place,
    quality,
)
from tests.drawn_face import draw_face, empty_scene

# Corners of the eyes and base of the nose of a head, in distances of the eyes' outer corners:
# to the right, down, towards the viewer.
HEAD = np.array(
    [[0.5, 0, 0], [0.17, 0, 0], [-0.5, 0, 0], [-0.17, 0, 0], [0, 0.55, 0.33]], np.float64
)


def seen(yaw: float = 0, pitch: float = 0, roll: float = 0, size: float = 80) -> np.ndarray:
    """Landmarks of the head turned by so many degrees."""
    yaw, pitch, roll = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]]
    )
    points = (HEAD @ (about_y @ about_x).T)[:, :2] * size
    turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    return (points @ turn + 200).astype(np.float32)


def test_a_frontal_face_is_frontal():
    assert frontality(seen()) == pytest.approx(1, abs=0.01)
    assert nose_place(seen()) == pytest.approx((0, 0.55), abs=0.01)


@pytest.mark.parametrize("yaw", [-30, -15, 15, 30])
def test_frontality_falls_as_the_head_turns(yaw):
    assert frontality(seen(yaw)) == pytest.approx(np.cos(np.radians(yaw)), abs=0.08)
    assert frontality(seen(1.8 * yaw)) < frontality(seen(yaw)) < frontality(seen(0.5 * yaw))


@pytest.mark.parametrize("pitch", [-30, 30])
def test_frontality_falls_as_the_head_nods(pitch):
    assert frontality(seen(pitch=pitch)) < frontality(seen(pitch=0.5 * pitch)) < 1.0


def test_a_profile_and_what_is_no_face_have_none():
    assert frontality(seen(80)) == 0
    assert frontality(np.full((5, 2), 50, np.float32)) == 0


def test_tilt_size_and_place_do_not_matter():
    expected = frontality(seen(20))
    for other in (seen(20, roll=35), seen(20, size=300), seen(20) + 500):
        assert frontality(other) == pytest.approx(expected, abs=0.01)


def test_frontality_of_a_picture():
    scene, found = empty_scene(), []
    for turn in (0.0, 0.8, -1.5):
        grey = draw_face(scene, turn=turn)[..., 1].copy()
        (box, _), *_ = detect_boxes(grey)
        found.append(frontality(predict_landmarks(grey, box)))
    assert found[0] > 0.95 and found[0] > found[1] > found[2]


def test_sharpness_falls_with_blur():
    import cv2

    grey = draw_face(empty_scene())[..., 1].copy()
    box = (105, 65, 215, 175)
    values = [
        grey_sharpness(cv2.GaussianBlur(grey, (0, 0), blur) if blur else grey, box)
        for blur in (0, 1, 3)
    ]
    assert values[0] > 1.5 * values[1] > 3 * values[2] > 0
    assert grey_sharpness(grey, (-50, -50, -10, -10)) == 0
    assert grey_sharpness(grey, (-50, -50, 900, 900)) > 0


@pytest.mark.parametrize("tone", [60, 120, 220])
def test_the_tone_of_the_skin_is_no_light(tone):
    face = draw_face(empty_scene(224, 224), (112, 112), 130, tone=tone)
    light = exposure(face)
    assert light.contrast > 0.12 and light.lost < 0.3


def test_bad_light_is_seen():
    face = draw_face(empty_scene(224, 224), (112, 112), 130).astype(float)
    assert exposure((0.05 * face).astype(np.uint8)).lost > 0.8
    assert exposure(np.clip(4 * face, 0, 255).astype(np.uint8)).lost > 0.6
    assert exposure((110 + 0.05 * face).astype(np.uint8)).contrast < 0.1


def test_the_better_picture_ranks_higher():
    good = quality(seen(), 200, 120, 1.5)
    assert 0 < good <= 1
    assert good > quality(seen(30), 200, 120, 1.5)
    assert good > quality(seen(), 20, 120, 1.5)
    assert good > quality(seen(), 200, 60, 1.5)
    assert good > quality(seen(), 200, 120, 0.2) > 0
