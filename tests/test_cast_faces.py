"""Faces of the synthetic cast: the same bytes again, the same person again, traits that show."""

from dataclasses import replace

import numpy as np
import pytest

from dataset_scripts.faces import align_face, detect_faces, get_recogniser
from dataset_scripts.synthetic_cast.frames import draw_frame
from dataset_scripts.synthetic_cast.renderer import FaceRenderer
from dataset_scripts.synthetic_cast.traits import EYE_COLOURS, HAIR_CUTS, SHAPE_COMPONENTS, Traits

MAN = Traits(
    gender="male",
    masculinity=0.9,
    age=35.0,
    lower_face=0.0,
    weight=0.5,
    muscle=0.5,
    ancestry=(0.1, 0.2, 0.7),
    skin_tone=0.25,
    skin_hue=0.0,
    eye_colour="brown",
    hair_cut="short",
    hair_colour="dark_brown",
    hair_grey=0.0,
    hair_recession=0.0,
    beard="none",
    brow_thickness=0.6,
    make_up=0.0,
    shape=(0.0,) * SHAPE_COMPONENTS,
    seed=1,
)
WOMAN = replace(
    MAN,
    gender="female",
    masculinity=0.1,
    brow_thickness=0.3,
    hair_cut="long",
    shape=tuple(np.random.default_rng(4).standard_normal(SHAPE_COMPONENTS)),
    seed=2,
)


@pytest.fixture(scope="module")
def renderer() -> FaceRenderer:
    try:
        return FaceRenderer()
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def frame():
    """A plain portrait: straight ahead, neutral, without the sensor's noise."""
    drawn = draw_frame(np.random.default_rng(0))
    camera = replace(drawn.camera, noise=0.0, distance=1.2, shift_x=0.0, shift_y=0.0)
    return replace(drawn, yaw=0.0, pitch=0.0, roll=0.0, expression={}, camera=camera)


def embed(picture: np.ndarray) -> np.ndarray:
    (face,) = detect_faces(picture)
    return get_recogniser("dlib").embed(align_face(picture, face.landmarks)[None])[0]


def eyes_of(picture: np.ndarray) -> list[tuple[int, int, int]]:
    """Return column, row and width of both eyes, by the five landmarks."""
    (face,) = detect_faces(picture)
    corners = face.landmarks[:4].reshape(2, 2, 2)  # two eyes, two corners
    return [(*np.rint(c.mean(0)).astype(int), int(np.ptp(c[:, 0]))) for c in corners]


def patch(picture: np.ndarray, column: int, row: int, half: int) -> np.ndarray:
    region = picture[row - half : row + half + 1, column - half : column + half + 1]
    return region.reshape(-1, 3).astype(float)


def face_patch(picture: np.ndarray, right: float, down: float, half: int = 4) -> np.ndarray:
    """Return mean RGB at an offset from the middle of the eyes, in distances between the eyes."""
    (x1, y1, _), (x2, y2, _) = eyes_of(picture)
    unit = abs(x2 - x1)
    column, row = (x1 + x2) / 2 + right * unit, (y1 + y2) / 2 + down * unit
    return patch(picture, round(column), round(row), half).mean(0)


def test_same_traits_and_frame_give_the_same_bytes(renderer, frame):
    noisy = replace(frame, camera=replace(frame.camera, noise=2.0))
    first = renderer.render(WOMAN, noisy)
    renderer.render(MAN, frame)  # nothing of another person may stay behind
    again = renderer.render(WOMAN, noisy)
    assert first.shape == (256, 256, 3) and first.dtype == np.uint8
    assert first.tobytes() == again.tobytes()
    assert draw_frame(np.random.default_rng(3)) == draw_frame(np.random.default_rng(3))


def test_a_rebuilt_person_is_the_same_picture(renderer, frame):
    first = renderer.render(MAN, frame)
    renderer._people.clear()  # what was kept of him
    assert renderer.render(MAN, frame).tobytes() == first.tobytes()


def test_another_frame_is_another_picture_of_the_same_person(renderer):
    frames = [draw_frame(np.random.default_rng(seed)) for seed in (1, 2)]
    man = [renderer.render(MAN, f) for f in frames]
    woman = [renderer.render(WOMAN, f) for f in frames]
    assert not np.array_equal(man[0], man[1])
    man, woman = [embed(p) for p in man], [embed(p) for p in woman]
    same = max(np.linalg.norm(man[0] - man[1]), np.linalg.norm(woman[0] - woman[1]))
    other = min(np.linalg.norm(m - w) for m in man for w in woman)
    assert same < other - 0.1


@pytest.mark.parametrize("cut", HAIR_CUTS)
def test_one_face_is_found_whatever_the_hair(renderer, frame, cut):
    assert len(detect_faces(renderer.render(replace(MAN, hair_cut=cut), frame))) == 1


def test_melanin_darkens_the_cheek(renderer, frame):
    tones = (0.0, 0.35, 0.7, 1.0)
    pictures = [renderer.render(replace(MAN, skin_tone=tone), frame) for tone in tones]
    cheeks = [face_patch(p, 0.45, 0.6).mean() for p in pictures]
    assert all(lighter - darker > 12 for lighter, darker in zip(cheeks, cheeks[1:], strict=False))


def test_hair_colour_changes_the_hair_and_not_the_cheek(renderer, frame):
    dark = renderer.render(replace(MAN, hair_colour="black"), frame)
    blond = renderer.render(replace(MAN, hair_colour="blond"), frame)
    hair = [face_patch(p, 0.0, -1.35).mean() for p in (dark, blond)]
    cheek = [face_patch(p, 0.45, 0.6).mean() for p in (dark, blond)]
    assert hair[1] - hair[0] > 30
    assert abs(cheek[1] - cheek[0]) < 6


def test_a_full_beard_darkens_the_chin(renderer, frame):
    bare = face_patch(renderer.render(MAN, frame), 0.0, 1.55).mean()
    bearded = face_patch(renderer.render(replace(MAN, beard="full"), frame), 0.0, 1.55).mean()
    assert bare - bearded > 25


def test_lower_face_moves_jaw_and_chin(renderer):
    average = renderer.model.topology.canonical
    jaw = (average[:, 1] > 0.80) & (average[:, 1] < 0.84) & (average[:, 2] > 0.04)
    chin = (np.abs(average[:, 0]) < 0.01) & (average[:, 2] > 0.13) & (average[:, 1] < 0.82)
    chin &= average[:, 1] > 0.77

    def width_and_low(lower_face: float) -> tuple[float, float]:
        head = renderer.model.head(replace(MAN, lower_face=lower_face))
        fine, _ = renderer.model.subdivide(head.coarse)
        return float(np.ptp(fine[jaw, 0])), float(fine[chin, 1].min())

    widths, lows = zip(*(width_and_low(size) for size in (-2, -1, 0, 1, 2)), strict=True)
    assert np.all(np.diff(widths) > 0.002)  # metres
    assert np.all(np.diff(lows) < -0.001)


def test_eye_colours_differ_in_the_iris(renderer, frame):
    close = replace(frame, camera=replace(frame.camera, blur=0.01))
    irises = []
    for colour in EYE_COLOURS:
        picture = renderer.render(replace(MAN, eye_colour=colour), close)
        irises.append(np.mean([patch(picture, x, y, 2).mean(0) for x, y, _ in eyes_of(picture)], 0))
    irises = dict(zip(EYE_COLOURS, irises, strict=True))
    warmth = {colour: rgb[0] - rgb[2] for colour, rgb in irises.items()}
    assert warmth["brown"] > warmth["green"] > warmth["blue"]
    gaps = [np.abs(irises[a] - irises[b]).max() for a in EYE_COLOURS for b in EYE_COLOURS if a < b]
    assert min(gaps) > 2


def test_an_expression_moves_the_mouth_only_for_its_frame(renderer, frame):
    neutral = renderer.render(MAN, frame)
    opened = renderer.render(MAN, replace(frame, expression={"jawOpen": 0.4}))
    mouth = [face_patch(p, 0.0, 1.12, 3).mean() for p in (neutral, opened)]
    assert mouth[0] - mouth[1] > 15  # the dark inside of an open mouth
    assert renderer.render(MAN, frame).tobytes() == neutral.tobytes()
