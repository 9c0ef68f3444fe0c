import numpy as np
import pytest

from dataset_scripts import faces
from tests.drawn_face import draw_face, empty_scene


def random_pictures(count: int, size: int = 150) -> np.ndarray:
    """Smooth random pictures: a recogniser must agree on any input, not only on faces."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 10, 10, 3), dtype=np.uint8)
    return coarse.repeat(size // 10, axis=1).repeat(size // 10, axis=2)


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


@pytest.mark.parametrize("size", [224, 150])
@pytest.mark.parametrize(("turn", "scale"), [(0, 40), (-35, 25), (20, 60), (170, 45)])
def test_points_lie_in_the_aligned_face_where_they_are_seen(turn, scale, size):
    """A dot is drawn in a picture; its middle is sought in the face that is cut out of it."""
    rng = np.random.default_rng(turn % 360)
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    upright = np.array([[0.8, 0], [0.3, 0], [-0.8, 0], [-0.3, 0], [0, 0.8]])
    landmarks = scale * upright @ np.array([[cos, sin], [-sin, cos]]) + (190, 160)
    landmarks += rng.uniform(-2, 2, (5, 2))
    points = landmarks.mean(0) + rng.uniform(-0.7, 0.7, (6, 2)) * scale
    placed = faces.align_points(points, landmarks, size)
    assert placed.shape == (6, 2) and placed.dtype == np.float32
    for point, expected in zip(points, placed, strict=True):
        chip = faces.align_face(draw_dot(point, (320, 380), 2), landmarks, size)
        np.testing.assert_allclose(middle_of(chip), expected, atol=0.1)


def draw_dot(place: np.ndarray, shape: tuple[int, int], radius: float) -> np.ndarray:
    """(height, width, 3) uint8, a soft white dot on black; the middle of pixel 0 is 0."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    square = (columns - place[0]) ** 2 + (rows - place[1]) ** 2
    dot = 255 * np.exp(-square / (2 * radius**2))
    return np.repeat(np.rint(dot)[..., None], 3, axis=2).astype(np.uint8)


def middle_of(picture: np.ndarray) -> tuple[float, float]:
    """Centre of mass (x, y) of what is bright."""
    light = picture.astype(float).sum(2)
    rows, columns = np.mgrid[: len(light), : light.shape[1]]
    return (columns * light).sum() / light.sum(), (rows * light).sum() / light.sum()


def test_points_of_any_shape_are_aligned():
    landmarks = np.array([[120, 80], [105, 80], [60, 80], [75, 80], [90, 110]])
    points = np.arange(12.0).reshape(2, 3, 2)
    placed = faces.align_points(points, landmarks)
    assert placed.shape == (2, 3, 2)
    np.testing.assert_array_equal(placed[1, 2], faces.align_points(points[1, 2], landmarks))
    with pytest.raises(ValueError, match=r"expected 5 landmarks \(5, 2\), got \(68, 2\)"):
        faces.align_points(points, np.zeros((68, 2)))


def test_a_face_is_cut_as_dlib_itself_cuts_it():
    import dlib

    picture = draw_face(empty_scene(), (150, 115), 110)
    (face,) = faces.detect_faces(picture)
    points = dlib.points([dlib.point(int(x), int(y)) for x, y in face.landmarks])
    shape = dlib.full_object_detection(dlib.rectangle(*face.box), points)
    expected = dlib.get_face_chip(picture, shape, size=224, padding=0.25)
    np.testing.assert_array_equal(faces.align_face(picture, face.landmarks), expected)


@pytest.mark.parametrize("wrong", [np.zeros((10, 10), np.uint8), np.zeros((10, 10, 3)), "picture"])
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        faces.detect_faces(wrong)


def test_an_unknown_recogniser_is_refused():
    with pytest.raises(ValueError, match="choose one of dlib"):
        faces.get_recogniser("nobody")


def write_onnx(path, side: int = 112, values: int = 512):
    """A network with ArcFace's ends: averages of 7x7 pixels, the first `values` of them."""
    onnx = pytest.importorskip("onnx")
    helper, ints, floats = onnx.helper, onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[7, 7], strides=[7, 7]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Slice", ["f", "start", "stop", "axis"], ["y"]),
        ],
        "arcface",
        [helper.make_tensor_value_info("x", floats, ["batch", 3, side, side])],
        [helper.make_tensor_value_info("y", floats, [1, values])],  # as insightface exports it
        [
            helper.make_tensor(name, ints, [1], [value])
            for name, value in (("start", 0), ("stop", values), ("axis", 1))
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.mark.parametrize("size", [224, 150])
def test_arcface_is_given_the_points_where_it_wants_them(size):
    for chip_point, wanted in zip(faces.CHIP_POINTS, faces.ARCFACE_POINTS, strict=True):
        dot = draw_dot(np.multiply(chip_point, size - 1), (size, size), size / 60)
        (crop,) = faces.arcface_crops(dot[None])
        assert crop.shape == (3, 112, 112) and crop.dtype == np.float32
        assert crop.min() == -1 and crop.max() > 0.8
        # Two shapes of a face, one similarity: the points meet within some pixels.
        np.testing.assert_allclose(middle_of((crop + 1).transpose(1, 2, 0)), wanted, atol=3)
    red = np.zeros((1, size, size, 3), np.uint8)
    red[..., 0] = 255
    np.testing.assert_array_equal(faces.arcface_crops(red)[0, :, 60, 60], [1, -1, -1])


def test_arcface_embeds_what_it_is_given(tmp_path):
    path = write_onnx(tmp_path / "arcface.onnx")
    recogniser = faces.get_recogniser("arcface-arc2face", path=path, batch_size=2)
    pictures = random_pictures(3)
    averages = faces.arcface_crops(pictures).reshape(3, 3, 16, 7, 16, 7).mean(axis=(3, 5))
    embeddings = recogniser.embed(pictures)
    np.testing.assert_allclose(embeddings, averages.reshape(3, -1)[:, :512], atol=1e-5)
    assert embeddings.dtype == np.float32 and recogniser.embedding_size == 512
    assert recogniser.embed(pictures[:0]).shape == (0, 512)
    with pytest.raises(ValueError, match="has no gradients"):
        recogniser.network  # noqa: B018


def test_what_is_not_arcface_is_refused(tmp_path, monkeypatch):
    (tmp_path / "text.onnx").write_text("no network")
    for path in (tmp_path / "text.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(ValueError, match=f"{path.name} cannot be read as ArcFace: name an"):
            faces.get_recogniser("arcface-arc2face", path=path)
    for ends in ({"side": 224}, {"values": 128}):
        path = write_onnx(tmp_path / "other.onnx", **ends)
        with pytest.raises(ValueError, match=r"other.onnx turns .* not faces \(3, 112, 112\)"):
            faces.get_recogniser("arcface-arc2face", path=path)

    def offline(*_):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(RuntimeError, match="Cannot download arcface.onnx.*connect to the network"):
        faces.get_recogniser("arcface-arc2face")


def test_arcface_is_called_what_arc2face_asks_for():
    from modeling_speech2face.modeling_arc2face import RECOGNISER

    assert faces.RECOGNISERS[RECOGNISER].name == RECOGNISER


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
