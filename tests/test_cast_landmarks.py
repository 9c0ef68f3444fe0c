"""The landmarks of the cast's faces, which the geometry knows, and their normalized faces."""

from dataclasses import replace

import numpy as np
import pytest

from dataset_scripts.faces import (
    align_face,
    detect_faces,
    get_recogniser,
    predict_landmarks_68,
)
from dataset_scripts.synthetic_cast import normalized_faces
from dataset_scripts.synthetic_cast.frames import draw_frame
from dataset_scripts.synthetic_cast.geometry import BODY, SHAPE_GROUPS
from dataset_scripts.synthetic_cast.landmarks import LEFT_LANDMARKS, MIRRORED, landmark_vertices
from dataset_scripts.synthetic_cast.normalized_faces import FIVE_OF_68, normalized_face
from dataset_scripts.synthetic_cast.renderer import FaceRenderer
from dataset_scripts.synthetic_cast.traits import SHAPE_COMPONENTS
from tests.test_cast_faces import MAN, WOMAN

SIZE = 256  # pixels
MIRROR = np.arange(68)  # each landmark's counterpart
for left, right in MIRRORED.items():
    MIRROR[[left, right]] = right, left
JAW, EYES_NOSE_MOUTH, EYES, MOUTH = slice(17), slice(27, 68), slice(36, 48), slice(48, 68)
# Another man, of the same age and skin.
BROTHER = replace(
    MAN, shape=tuple(np.random.default_rng(8).standard_normal(SHAPE_COMPONENTS)), seed=3
)


@pytest.fixture(scope="module")
def renderer() -> FaceRenderer:
    try:
        return FaceRenderer(SIZE)
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def frame():
    """A plain portrait: straight ahead, neutral, in the middle, without the sensor's noise."""
    drawn = draw_frame(np.random.default_rng(0))
    camera = replace(
        drawn.camera, noise=0.0, distance=1.2, head_share=0.57, shift_x=0.0, shift_y=0.0
    )
    return replace(drawn, yaw=0.0, pitch=0.0, roll=0.0, expression={}, camera=camera)


def grey(picture: np.ndarray) -> np.ndarray:
    return np.rint(picture @ [0.299, 0.587, 0.114]).astype(np.uint8)


def distance_to_dlibs(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(68,) how far each landmark is from where dlib's predictor sees it, pixels."""
    (face,) = detect_faces(picture)
    return np.linalg.norm(predict_landmarks_68(grey(picture), face.box) - landmarks, axis=1)


def test_every_landmark_has_its_place_on_the_skin(renderer):
    assert sorted([*LEFT_LANDMARKS, *MIRRORED.values()]) == list(range(68))
    topology = renderer.model.topology
    vertices = landmark_vertices(topology)
    assert len(set(vertices)) == 68 and (topology.part[vertices] == BODY).all()
    found = 1000 * topology.canonical[vertices]  # mm
    meant = np.array([LEFT_LANDMARKS.get(n, (np.nan,) * 3) for n in range(68)])
    assert np.nanmax(np.linalg.norm(found - meant, axis=1)) < 3.5
    np.testing.assert_allclose(found[MIRROR] * (-1, 1, 1), found, atol=0.01)


def test_a_face_seen_from_ahead_is_symmetrical(renderer, frame):
    for person in (MAN, WOMAN):
        points = renderer.landmarks(person, frame)
        assert points.shape == (68, 2) and points.dtype == np.float32
        mirrored = points[MIRROR] * (-1, 1) + (SIZE - 1, 0)
        np.testing.assert_allclose(mirrored, points, atol=0.05)


def test_a_face_turned_left_mirrors_one_turned_right(renderer, frame):
    left, right = (
        renderer.landmarks(MAN, replace(frame, yaw=yaw, roll=yaw / 3)) for yaw in (12, -12)
    )
    np.testing.assert_allclose(right[MIRROR] * (-1, 1) + (SIZE - 1, 0), left, atol=0.05)
    straight = renderer.landmarks(MAN, replace(frame, roll=4.0))
    assert left[30, 0] - straight[30, 0] > 8  # the tip of the nose, which stands out most
    assert left[30, 0] - straight[30, 0] > left[27, 0] - straight[27, 0] + 2


@pytest.mark.parametrize(
    ("pose", "camera"),
    [
        ({}, {}),
        ({"yaw": 12.0}, {}),
        ({"yaw": -12.0}, {}),
        ({"pitch": 7.0}, {}),
        ({"pitch": -7.0}, {}),
        ({"roll": 10.0}, {}),
        ({"yaw": -8.0, "pitch": 5.0, "roll": -6.0}, {"shift_x": -0.05, "distance": 0.9}),
        ({}, {"distance": 0.75}),
        ({}, {"distance": 1.8, "head_share": 0.5}),
        ({}, {"shift_x": 0.06, "shift_y": 0.03}),
        ({"expression": {"jawOpen": 0.4}}, {}),
    ],
)
@pytest.mark.parametrize("person", [MAN, WOMAN], ids=["man", "woman"])
def test_landmarks_lie_where_dlib_sees_them_in_the_picture(renderer, frame, person, pose, camera):
    person = replace(person, hair_cut="short")  # dlib guesses a jaw that is hidden
    seen = replace(frame, **pose, camera=replace(frame.camera, **camera))
    away = distance_to_dlibs(renderer.render(person, seen), renderer.landmarks(person, seen))
    # Brows are left out: dlib takes arched ones for lower than they are painted.
    assert away[EYES_NOSE_MOUTH].mean() < 1.8  # pixels
    assert away[JAW].mean() < 4


def test_shift_and_size_move_all_points_alike(renderer, frame):
    plain = renderer.landmarks(MAN, frame)
    shifted = replace(frame, camera=replace(frame.camera, shift_x=0.05, shift_y=0.02))
    moved = renderer.landmarks(MAN, shifted) - plain
    np.testing.assert_allclose(moved, np.tile((0.05 * SIZE, -0.02 * SIZE), (68, 1)), atol=1e-3)
    smaller = replace(frame, camera=replace(frame.camera, head_share=0.57 / 2))
    middle = (SIZE - 1) / 2
    expected = (plain - middle) / 2 + middle
    np.testing.assert_allclose(renderer.landmarks(MAN, smaller), expected, atol=1e-3)


def test_a_near_camera_sees_the_nose_large_and_the_ears_apart_small(renderer, frame):
    def nose_to_jaw(distance: float) -> float:
        camera = replace(frame.camera, distance=distance)
        points = renderer.landmarks(MAN, replace(frame, camera=camera))
        return (points[35, 0] - points[31, 0]) / (points[16, 0] - points[0, 0])

    assert nose_to_jaw(0.75) > 1.05 * nose_to_jaw(1.8)


def test_another_size_of_picture_has_the_same_landmarks(renderer, frame):
    larger = normalized_faces._renderer()
    # The middle of the first pixel is 0: the picture's edge is at -0.5.
    expected = (renderer.landmarks(MAN, frame) + 0.5) * larger.size / SIZE - 0.5
    assert larger.size > 1.5 * SIZE
    np.testing.assert_allclose(larger.landmarks(MAN, frame), expected, atol=1e-3)


def test_an_open_jaw_lowers_the_lower_lip_and_the_chin(renderer, frame):
    opened = replace(frame, expression={"jawOpen": 0.4})
    moved = renderer.landmarks(MAN, opened) - renderer.landmarks(MAN, frame)
    assert (moved[[8, 57, 65, 66, 67], 1] > 4).all()  # pixels, down
    assert np.abs(moved[27:48]).max() < 0.5  # nose and eyes
    assert np.abs(moved[[50, 51, 52, 61, 62, 63]]).max() < 1  # the upper lip
    smile = replace(frame, expression={"mouthSmileLeft": 0.5, "mouthSmileRight": 0.5})
    moved = renderer.landmarks(MAN, smile) - renderer.landmarks(MAN, frame)
    assert moved[54, 0] > 1 and moved[48, 0] < -1 and (moved[[48, 54], 1] < -1).all()


def test_traits_move_the_landmarks_that_they_are_about(renderer, frame):
    def points_with(**traits) -> np.ndarray:
        return renderer.landmarks(replace(MAN, **traits), frame)

    def width(points: np.ndarray, right: int, left: int) -> float:
        return points[right, 0] - points[left, 0]

    (wide_mouth,) = (
        k for k, group in enumerate(SHAPE_GROUPS) if group[0][0] == "mouth-scale-horiz-incr"
    )
    shape = np.zeros(SHAPE_COMPONENTS)
    shape[wide_mouth] = 2
    plain, wide = points_with(), points_with(shape=tuple(shape))
    assert width(wide, 54, 48) > width(plain, 54, 48) + 3  # pixels
    assert np.abs((wide - plain)[:48]).max() < 0.5  # all but the mouth

    small, large = points_with(lower_face=-2.0), points_with(lower_face=2.0)
    for left in (3, 4, 5, 6, 7):
        assert width(large, 16 - left, left) > width(small, 16 - left, left) + 5
    assert large[8, 1] > small[8, 1] + 5  # the chin
    assert np.abs((large - small)[EYES]).max() < 0.5
    assert abs(width(large, 16, 0) - width(small, 16, 0)) < 0.5


@pytest.fixture(scope="module")
def normalized(renderer) -> list[tuple[np.ndarray, np.ndarray]]:
    """Faces and landmarks of MAN, WOMAN and BROTHER."""
    return [normalized_face(person) for person in (MAN, WOMAN, BROTHER)]


def test_a_normalized_face_is_one_persons_alone(normalized):
    for person, (face, landmarks) in zip((MAN, WOMAN), normalized[:2], strict=True):
        again, again_landmarks = normalized_face(replace(person))
        assert face.shape == (224, 224, 3) and face.dtype == np.uint8
        assert landmarks.shape == (68, 2) and landmarks.dtype == np.float32
        assert again.tobytes() == face.tobytes()
        assert again_landmarks.tobytes() == landmarks.tobytes()
    assert np.abs(normalized[0][0].astype(int) - normalized[2][0]).mean() > 3
    assert np.abs(normalized[0][1] - normalized[2][1]).max() > 3


def test_it_is_frontal_and_evenly_lit(normalized):
    assert normalized_faces.NORMALIZED_FRAME.expression == {}
    tones = []
    for face, landmarks in normalized:
        assert np.ptp(landmarks[[36, 39, 42, 45], 1]) < 8 and landmarks[8, 1] > landmarks[57, 1]
        axis = (landmarks + landmarks[MIRROR])[:, 0] / 2
        assert np.ptp(axis) < 0.5  # pixels: the left half mirrors the right one
        nose, left, right = (round(float(landmarks[k, 0])) for k in (30, 4, 12))
        below_the_eyes = slice(*(round(float(landmarks[k, 1])) for k in (1, 4)))
        sides = [face[below_the_eyes, left:nose], face[below_the_eyes, nose:right]]
        tones.append(np.subtract(*(side.mean() for side in sides)))
    assert np.abs(tones).max() < 8  # of 255: spots of the skin; a lamp at the side makes 16 to 27


def test_its_landmarks_lie_where_dlib_sees_them(normalized):
    for face, landmarks in normalized:
        (found,) = detect_faces(face)
        five = np.linalg.norm(found.landmarks - landmarks[list(FIVE_OF_68)], axis=1)
        assert five.max() < 6  # pixels; 1.5 of them are one of the drawn picture
        away = distance_to_dlibs(face, landmarks)
        assert away[EYES_NOSE_MOUTH].mean() < 3.5 and away[MOUTH].mean() < 3
        inside = (landmarks[17:] > 0) & (landmarks[17:] < 223)
        assert inside.all()  # a long chin may lie below the picture


def test_photographs_are_nearer_to_their_own_normalized_face_than_to_anothers(renderer, normalized):
    teacher = get_recogniser("dlib")
    truth = teacher.embed(np.stack([face for face, _ in normalized]))
    for number, person in enumerate((MAN, WOMAN, BROTHER)):
        pictures = [
            renderer.render(person, draw_frame(np.random.default_rng(seed))) for seed in (1, 2)
        ]
        faces = [align_face(p, detect_faces(p)[0].landmarks) for p in pictures]
        away = np.linalg.norm(teacher.embed(np.stack(faces))[:, None] - truth, axis=2)  # (2, 3)
        own, others = away[:, number], np.delete(away, number, axis=1)
        assert own.max() < 0.45  # dlib takes what is nearer than .6 for one person
        assert own.max() < others.min() - 0.05
