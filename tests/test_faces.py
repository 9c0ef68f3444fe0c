import numpy as np
import pytest

from dataset_scripts import faces
from tests.drawn_face import draw_face, empty_scene


def random_pictures(count: int, size: int = 150) -> np.ndarray:
    """Smooth random pictures: a recogniser must agree on any input, not only on faces."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 10, 10, 3), dtype=np.uint8)
    return coarse.repeat(size // 10, axis=1).repeat(size // 10, axis=2)


def test_the_torch_network_equals_dlib():
    import dlib

    pictures = random_pictures(3)
    file = str(faces._model_file("dlib_face_recognition_resnet_model_v1.dat"))
    original = dlib.face_recognition_model_v1(file)
    expected = np.stack([np.array(original.compute_face_descriptor(p)) for p in pictures])
    ours = faces.get_recogniser("dlib").embed(pictures)
    cosines = (expected * ours).sum(1) / np.linalg.norm(expected, axis=1)
    cosines /= np.linalg.norm(ours, axis=1)
    assert cosines.min() > 0.9999
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_batches_do_not_change_an_embedding():
    pictures = random_pictures(5)
    together = faces.get_recogniser("dlib", batch_size=5).embed(pictures)
    apart = faces.get_recogniser("dlib", batch_size=2).embed(pictures)
    np.testing.assert_allclose(together, apart, atol=1e-5)
    assert together.shape == (5, 128) and together.dtype == np.float32


def test_no_pictures_give_no_embeddings():
    assert faces.get_recogniser("dlib").embed(np.zeros((0, 150, 150, 3), np.uint8)).shape == (
        0,
        128,
    )


def test_a_grey_wall_has_no_face():
    assert faces.detect_faces(np.full((200, 200, 3), 127, np.uint8)) == []


def test_alignment_levels_the_eyes():
    image = np.zeros((300, 300, 3), np.uint8)
    eyes = np.array([[200, 130], [180, 125], [110, 100], [130, 107]], np.float32)
    nose = np.array([[145, 160]], np.float32)
    for number, (x, y) in enumerate(eyes.astype(int)):
        image[y - 3 : y + 4, x - 3 : x + 4, number % 3] = 255
    chip = faces.align_face(image, np.concatenate([eyes, nose]))
    assert chip.shape == (224, 224, 3)
    rows = [
        np.argwhere(chip[..., c] > 100)[:, 0].mean() for c in (0, 2)
    ]  # one outer, one other corner
    assert abs(rows[0] - rows[1]) < 20  # 25 pixels apart in the source, magnified here


@pytest.mark.parametrize("wrong", [np.zeros((10, 10), np.uint8), np.zeros((10, 10, 3)), "picture"])
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        faces.detect_faces(wrong)


def test_an_unknown_recogniser_is_refused():
    with pytest.raises(ValueError, match="choose one of dlib"):
        faces.get_recogniser("nobody")


def test_a_grey_picture_shows_the_same_face():
    picture = draw_face(empty_scene(), (150, 115), 110)
    grey = picture[..., 1]
    assert not grey.flags.c_contiguous  # a channel of a picture, rows of a decoded frame: no matter
    ((box, score),) = faces.detect_boxes(grey)
    (face,) = faces.detect_faces(picture)
    assert score > 0.5 and np.abs(np.subtract(box, face.box)).max() < 20
    np.testing.assert_allclose(faces.predict_landmarks(grey, box), face.landmarks, atol=3)
    assert faces.detect_boxes(grey, threshold=score + 1) == []
    assert faces.detect_boxes(grey[::3, ::3]) == []  # too small for the detector
    ((small, _),) = faces.detect_boxes(grey[::3, ::3], upsample=2)
    np.testing.assert_allclose(np.multiply(small, 3), box, atol=30)


@pytest.mark.parametrize("wrong", [np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9)), "picture"])
def test_what_is_no_grey_picture_is_refused(wrong):
    with pytest.raises(ValueError, match="grey picture"):
        faces.detect_boxes(wrong)
    with pytest.raises(ValueError, match="grey picture"):
        faces.predict_landmarks(wrong, (0, 0, 5, 5))


def test_68_landmarks_lie_on_the_drawn_face_in_their_order():
    centre, size = (150, 115), 110
    grey = np.ascontiguousarray(draw_face(empty_scene(), centre, size)[..., 1])
    ((box, _),) = faces.detect_boxes(grey)
    points = faces.predict_landmarks_68(grey, box)
    assert points.shape == (68, 2) and points.dtype == np.float32

    def middle(start: int, stop: int) -> np.ndarray:
        """Of some landmarks, in the units in which `draw_face` places its ellipses."""
        return (points[start:stop].mean(0) - centre) * 100 / size

    np.testing.assert_allclose(middle(36, 42), (-19, -12), atol=5)  # the eye on the left
    np.testing.assert_allclose(middle(42, 48), (19, -12), atol=5)
    np.testing.assert_allclose(middle(31, 36), (0, 21), atol=8)  # nostrils
    np.testing.assert_allclose(middle(48, 68), (0, 39), atol=8)  # mouth
    assert np.all(np.diff(points[:17, 0]) > 0) and points[8, 1] == points[:17, 1].max()  # jaw
    shifted = np.roll(grey, (4, 7), (0, 1))
    ahead = faces.predict_landmarks_68(shifted, tuple(np.add(box, (7, 4, 7, 4))))
    np.testing.assert_allclose(ahead - points, np.tile((7, 4), (68, 1)), atol=1)


def test_68_landmarks_are_those_of_any_layout_and_of_no_coloured_picture():
    picture = draw_face(empty_scene(), (150, 115), 110)
    ((box, _),) = faces.detect_boxes(picture[..., 1])
    np.testing.assert_array_equal(
        faces.predict_landmarks_68(picture[..., 1], box),
        faces.predict_landmarks_68(picture[..., 1].copy(), box),
    )
    with pytest.raises(ValueError, match="grey picture"):
        faces.predict_landmarks_68(picture, box)
