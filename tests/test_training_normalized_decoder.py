"""The paper's decoder in training: its targets, its batches, its three losses, its validation."""

import dataclasses
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from modeling_speech2face import warp
from tests.tiny import tiny_normalized_decoder
from tests.training_cast import write_cast
from training.checkpoints import averaged
from training.configuration import NormalizedDecoderTraining, load_configuration
from training.face_targets import FaceTargets, load_targets
from training.face_teacher import look_again
from training.train_normalized_decoder import (
    DecoderLoss,
    TargetBatches,
    mean_landmarks,
    validate,
)

SIZE = 56


def write_normalized_cast(folder):
    """A cast whose speakers each have a normalized face of one grey, and landmarks of their own."""
    import datasets

    write_cast(folder, speakers=6)
    for file in folder.glob("*.parquet"):
        rows = datasets.Dataset.from_parquet(str(file), cache_dir=str(folder / "read")).to_list()
        for row in rows:
            speaker = int(row["speaker_id"].rsplit("-", 1)[1])
            picture = io.BytesIO()
            Image.new("RGB", (224, 224), (40 * speaker,) * 3).save(picture, "PNG")
            row["normalized_face"] = {"bytes": picture.getvalue(), "path": None}
            points = np.random.default_rng(speaker).uniform(20, 200, (68, 2))
            row["normalized_landmarks"] = points.tolist()
        datasets.Dataset.from_list(rows).to_parquet(str(file))
    return folder


@pytest.fixture(scope="module")
def normalized(tmp_path_factory):
    folder = tmp_path_factory.mktemp("normalized")
    write_normalized_cast(folder / "cast")
    return load_targets(str(folder / "cast"), "train", str(folder / "cache"), SIZE)


def test_the_casts_targets_are_the_truth_about_each_person(normalized):
    pairs, targets = normalized
    assert targets.normalized and targets.faces.shape == (6, 3, SIZE, SIZE)
    assert len(pairs) == 12 and targets.of_pair.shape == (12,)
    for row in range(12):
        speaker = int(pairs.speaker_names[pairs.speakers[row]].rsplit("-", 1)[1])
        target = targets.of_pair[row]
        assert np.unique(targets.faces[target]).tolist() == [40 * speaker]
        points = np.random.default_rng(speaker).uniform(20, 200, (68, 2))
        # A pixel of 56 covers four of 224: its middle lies at 1.5 of them.
        np.testing.assert_allclose(targets.landmarks[target], (points - 1.5) / 4, atol=1e-4)


def test_other_data_sets_give_the_pairs_own_faces(tmp_path):
    write_cast(tmp_path / "cast", speakers=3)
    places = str(tmp_path / "cast"), "train", str(tmp_path / "cache")
    pairs, targets = load_targets(*places, SIZE)
    assert not targets.normalized
    np.testing.assert_array_equal(targets.faces, pairs.faces)
    np.testing.assert_array_equal(targets.of_pair, np.arange(6))
    again = load_targets(*places, SIZE)[1]
    np.testing.assert_array_equal(again.landmarks, targets.landmarks)
    assert 0 < targets.landmarks.mean() < SIZE


def config(**changes) -> NormalizedDecoderTraining:
    tiny = load_configuration(
        "training/configs/tiny_normalized_decoder.yaml", NormalizedDecoderTraining
    )
    return dataclasses.replace(tiny, batch_size=8, **changes)


def test_a_batch_shows_each_embedding_its_own_persons_face(normalized):
    pairs, targets = normalized
    batches = TargetBatches(config(embedding_noise=0, blended=0), pairs, targets)
    batch = batches(3, torch.device("cpu"))
    centred = torch.from_numpy(pairs.embeddings - pairs.embeddings.mean(0))
    for row in range(8):
        distances = (centred - batch["embeddings"][row]).norm(dim=1)
        pair = int(distances.argmin())
        assert distances[pair] < 1e-5
        target = targets.of_pair[pair]
        torch.testing.assert_close(
            batch["faces"][row] * 255, torch.from_numpy(targets.faces[target]).float()
        )
        torch.testing.assert_close(
            batch["landmarks"][row], torch.from_numpy(targets.landmarks[target])
        )
    again = batches(3, torch.device("cpu"))
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(batches(4, torch.device("cpu"))["embeddings"], batch["embeddings"])


def test_blends_lie_between_two_persons_and_have_no_face(normalized):
    pairs, targets = normalized
    whole = TargetBatches(config(embedding_noise=0, blended=0), pairs, targets)
    blended = TargetBatches(config(embedding_noise=0, blended=0.5), pairs, targets)
    plain, mixed = (b(0, torch.device("cpu")) for b in (whole, blended))
    assert len(mixed["faces"]) == len(mixed["landmarks"]) == 4 and len(mixed["embeddings"]) == 8
    torch.testing.assert_close(mixed["embeddings"][:4], plain["embeddings"][:4])
    centred = torch.from_numpy(pairs.embeddings - pairs.embeddings.mean(0))
    for own, blend in zip(plain["embeddings"][4:], mixed["embeddings"][4:], strict=True):
        to_others = nn.functional.cosine_similarity(centred - own, (blend - own)[None])
        assert torch.equal(blend, own) or to_others.max() > 0.999  # on the way to somebody


def test_noise_is_bounded_by_the_spread_of_the_embeddings(normalized):
    pairs, targets = normalized
    spread = (pairs.embeddings - pairs.embeddings.mean(0)).std()
    plain, noisy = (
        TargetBatches(config(embedding_noise=noise, blended=0), pairs, targets)(
            0, torch.device("cpu")
        )["embeddings"]
        for noise in (0, 0.5)
    )
    deviation = (noisy - plain).std(dim=1)
    assert 0 < deviation.min() and deviation.max() < 0.6 * spread


def test_a_view_is_less_sharp_and_a_little_elsewhere():
    torch.manual_seed(0)
    faces = torch.zeros(2, 3, 64, 64)
    faces[:, :, 20:24, 8:12] = 1
    for _ in range(20):
        view = look_again(faces)
        coarse = view.shape[-1]
        assert view.shape[:2] == (2, 3) and 16 <= coarse < 64
        assert torch.equal(view[0], view[1])
        light = view[0, 0]
        places = (torch.arange(coarse) + 0.5) * 64 / coarse
        middle_y = (light.sum(1) * places).sum() / light.sum()
        middle_x = (light.sum(0) * places).sum() / light.sum()
        assert abs(middle_y - 22) < 4
        assert min(abs(middle_x - 10), abs(middle_x - 54)) < 4  # or its mirror image


def test_gradients_pass_a_view():
    faces = torch.rand(1, 3, 32, 32, requires_grad=True)
    look_again(faces).sum().backward()
    assert (faces.grad != 0).float().mean() > 0.8


class MeanColour(nn.Module):
    """A teacher that sees nothing but colour: (B, 3, S, S) to (B, 3)."""

    def forward(self, faces):
        return faces.mean((2, 3))


def colours_and_targets():
    """Two persons who are their colour, with faces and landmarks."""
    colours = np.array([[0.2, 0.4, 0.6], [0.8, 0.4, 0.2]], np.float32)
    faces = (colours[:, :, None, None] * 255 * np.ones((1, 1, SIZE, SIZE))).round().astype(np.uint8)
    landmarks = np.random.default_rng(0).uniform(5, 50, (2, 68, 2)).astype(np.float32)
    pairs = SimpleNamespace(embeddings=colours)
    return pairs, FaceTargets(faces, landmarks, np.arange(2), True)


class Knows(nn.Module):
    """A decoder that answers with given faces, textures and landmarks."""

    def __init__(self, faces, textures, landmarks):
        super().__init__()
        self.answer = SimpleNamespace(faces=faces, textures=textures, landmarks=landmarks)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, embeddings):
        return SimpleNamespace(**{k: v[: len(embeddings)] for k, v in vars(self.answer).items()})


def test_who_knows_the_answer_has_no_loss():
    pairs, targets = colours_and_targets()
    faces = torch.from_numpy(targets.faces).float() / 255
    landmarks = torch.from_numpy(targets.landmarks)
    mean = torch.from_numpy(mean_landmarks(targets)).expand(2, -1, -1)
    loss_of = DecoderLoss(config(), MeanColour(), pairs, targets, mean[0])
    batch = {
        "embeddings": torch.from_numpy(pairs.embeddings - pairs.embeddings.mean(0)),
        "faces": faces,
        "landmarks": landmarks,
    }
    losses = loss_of(Knows(faces, warp(faces, landmarks, mean), landmarks), batch)
    assert {name: round(value.item(), 4) for name, value in losses.items()} == {
        "loss": 0,
        "texture": 0,
        "landmarks": 0,
        "embedding": 0,
    }
    # Exchanged persons: opposite embeddings; the mean shape scores one by definition.
    losses = loss_of(Knows(faces.flip(0), faces.flip(0), mean), batch)
    assert losses["embedding"].item() == pytest.approx(2, abs=1e-3)
    assert losses["landmarks"].item() == pytest.approx(1, abs=1e-4)
    assert losses["texture"].item() == pytest.approx(1.0 / 3, abs=0.01)  # (0.6 + 0 + 0.4) / 3
    weights = config().losses
    expected = weights.texture / 3 + weights.landmarks + 2 * weights.embedding
    assert losses["loss"].item() == pytest.approx(expected, abs=0.02 * expected)


def test_a_validation_of_who_knows_and_of_who_does_not():
    pairs, targets = colours_and_targets()
    pairs.pairs_of_speakers = lambda: [np.array([0]), np.array([1])]
    faces = torch.from_numpy(targets.faces).float() / 255
    landmarks = torch.from_numpy(targets.landmarks)
    right = validate(Knows(faces, faces, landmarks), MeanColour(), pairs, targets, pairs)
    assert right["validation/cosine"] == pytest.approx(1, abs=1e-3)
    assert right["validation/recall_at_1_of_2"] == 1
    assert right["validation/landmarks_off_px"] == 0
    wrong = Knows(faces.flip(0), faces, landmarks + torch.tensor([3.0, 4.0]))
    wrong = validate(wrong, MeanColour(), pairs, targets, pairs)
    assert wrong["validation/cosine"] == pytest.approx(-1, abs=1e-3)
    assert wrong["validation/recall_at_1_of_2"] == 0
    assert wrong["validation/landmarks_off_px"] == pytest.approx(5, abs=1e-4)


def test_averaged_weights_are_lent_and_given_back():
    from diffusers.training_utils import EMAModel

    decoder = tiny_normalized_decoder()
    average = EMAModel(decoder.parameters(), decay=0.9)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight += 1
    own = [weight.clone() for weight in decoder.parameters()]
    with averaged(decoder, average):
        assert not any(map(torch.equal, decoder.parameters(), own))
    assert all(map(torch.equal, decoder.parameters(), own))
