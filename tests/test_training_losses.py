"""The losses against figures worked out by hand."""

import math

import pytest
import torch

from tests.tiny import tiny_normalized_decoder
from training import losses

X, Y = [1.0, 0.0], [0.0, 1.0]


def test_cosine_loss_is_mean_of_one_minus_cosine():
    predicted = torch.tensor([[2.0, 0.0], [3.0, 3.0]])
    target = torch.tensor([[5.0, 0.0], [0.0, 1.0]])  # cosines 1 and 1 / sqrt(2)
    assert losses.cosine_loss(predicted, target).item() == pytest.approx(
        (0 + 1 - 1 / math.sqrt(2)) / 2, abs=1e-6
    )


def test_cosine_loss_weighs_rows_but_divides_by_all():
    predicted, target = torch.tensor([X, X]), torch.tensor([Y, [-1.0, 0.0]])  # losses 1 and 2
    loss = losses.cosine_loss(predicted, target, torch.tensor([0.5, 0.25]))
    assert loss.item() == pytest.approx((0.5 * 1 + 0.25 * 2) / 2)


def test_cosines_of_every_row_with_every_column():
    rows, columns = torch.tensor([[2.0, 0.0], [3.0, 4.0]]), torch.tensor([[5.0, 0.0], Y, [0, -2]])
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, -0.8]])
    torch.testing.assert_close(losses.cosines(rows, columns), expected)


def test_normalised_l2_is_two_minus_two_cosines():
    predicted, target = torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([Y, Y])
    assert losses.normalised_l2_loss(predicted, target).item() == pytest.approx((2 + 0) / 2)


def test_mse_is_relative_to_the_spread():
    predicted, target = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 4.0], [1, 3]])
    loss = losses.mse_loss(predicted, target, population_variance=2.0)
    assert loss.item() == pytest.approx((25 + 4) / 2 / 2)


def test_mse_of_the_mean_face_is_one():
    target = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    target -= target.mean(0)
    variance = target.square().sum(1).mean().item()
    assert losses.mse_loss(torch.zeros_like(target), target, variance).item() == pytest.approx(1)


def test_info_nce_by_hand():
    # Orthogonal pairs, each right: every row and column is (1 / t, 0), so log(1 + exp(-1 / t)).
    both = torch.tensor([X, Y])
    loss = losses.info_nce_loss(both, both, torch.tensor([0, 1]), temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_info_nce_is_symmetric_and_averages_both_directions():
    voices, faces = torch.tensor([X, X]), torch.tensor([X, Y])
    # rows: (1, 0) right at 0 -> log(1 + e^-1); (1, 0) right at 1 -> log(1 + e).
    # columns: (1, 1) and (0, 0), both log 2.
    rows = (math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 2
    loss = losses.info_nce_loss(voices, faces, torch.tensor([0, 1]), temperature=1.0)
    assert loss.item() == pytest.approx((rows + math.log(2)) / 2, abs=1e-6)


def test_info_nce_leaves_out_other_pairs_of_the_same_speaker():
    vectors = torch.tensor([X, X, Y])
    together = losses.info_nce_loss(vectors, vectors, torch.tensor([7, 7, 8]), temperature=1.0)
    apart = losses.info_nce_loss(vectors, vectors, torch.tensor([6, 7, 8]), temperature=1.0)
    assert together.item() == pytest.approx(
        (2 * math.log(1 + math.exp(-1)) + math.log(1 + 2 * math.exp(-1))) / 3, abs=1e-6
    )
    assert apart > together


def test_distillation_ignores_length():
    student, teacher = torch.tensor([[3.0, 3.0]]), torch.tensor([[0.5, 0.5]])
    assert losses.distillation_loss(student, teacher).item() == pytest.approx(0, abs=1e-6)
    assert losses.distillation_loss(-student, teacher).item() == pytest.approx(2, abs=1e-6)


def test_distillation_by_hand():
    student, teacher = torch.tensor([[3.0, 4.0], X]), torch.tensor([X, Y])  # cosines 0.6 and 0
    assert losses.distillation_loss(student, teacher).item() == pytest.approx((0.4 + 1) / 2)


def test_feature_l1_sums_over_features():
    def features(embeddings: torch.Tensor) -> torch.Tensor:
        return torch.cat([embeddings, 10 * embeddings], dim=1).relu()

    predicted, target = torch.tensor([[1.0, 2.0], [-3.0, 0.0]]), torch.tensor([[3.0, 2.0], [0, 1]])
    # First row: 2 and 20. Second: what is below 0 is cut off, 0 and 1, 0 and 10.
    loss = losses.feature_l1_loss(predicted, target, features)
    assert loss.item() == pytest.approx((22 + 11) / 2)


def test_feature_l1_looks_through_the_decoders_first_layer():
    decoder = tiny_normalized_decoder(face_embedding_size=2).requires_grad_(False)
    layer, scale = decoder.first_layer[0], decoder.config.embedding_scale
    layer.weight.zero_()
    layer.bias.zero_()
    layer.weight[0, 0], layer.weight[5, 1] = 1.0, 2.0
    predicted = torch.tensor([[0.5, 1.0]], requires_grad=True)
    loss = losses.feature_l1_loss(predicted, torch.tensor([[0.25, 3.0]]), decoder.features)
    assert loss.item() == pytest.approx(scale * (0.25 + 2 * 2.0))
    loss.backward()
    torch.testing.assert_close(predicted.grad, scale * torch.tensor([[1.0, -2.0]]))


def test_voice_parameters_by_hand():
    heard, stated = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 0.0], [0.0, -1.0]])
    assert losses.voice_parameters_loss(heard, stated).item() == pytest.approx((1 + 9) / 4)


def test_classifier_distillation_by_hand():
    # At T = 2, logits 2 ln 3 and 0 are probabilities 3/4 and 1/4; two zeros are 1/2 and 1/2.
    sure, unsure = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
    loss = losses.classifier_distillation_loss
    wrong_way = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    assert loss(unsure, sure).item() == pytest.approx(math.log(2))
    assert loss(sure, unsure).item() == pytest.approx(wrong_way)
    entropy = -(3 / 4 * math.log(3 / 4) + 1 / 4 * math.log(1 / 4))
    assert loss(sure, sure).item() == pytest.approx(entropy)
    both = loss(torch.cat([unsure, sure]), torch.cat([sure, unsure]))
    assert both.item() == pytest.approx((math.log(2) + wrong_way) / 2)
    # At T = 1 the same logits are 9/10 and 1/10.
    expected = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert loss(sure, sure, temperature=1.0).item() == pytest.approx(expected, abs=1e-6)


def test_am_softmax_by_hand():
    cosines, speakers = torch.tensor([[1.0, 0.0, 0.5], [0.25, 0.75, 0.25]]), torch.tensor([0, 2])
    loss = losses.am_softmax_loss(cosines, speakers, scale=4.0, margin=0.25)
    # s (c - m) of the right class is 3, beside 0 and 2; then 0, beside 1 and 3.
    first = -math.log(math.exp(3) / (math.exp(3) + 1 + math.exp(2)))
    second = -math.log(1 / (1 + math.exp(1) + math.exp(3)))
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert losses.am_softmax_loss(cosines, speakers, 4.0, margin=0.0) < loss


def test_texture_loss_by_hand():
    dark, light = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.25)
    light[:, :, :2] = 0.75  # half of the pixels
    everywhere, above = torch.ones(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    above[:, :, 2:] = 0
    assert losses.texture_loss(dark, light, everywhere).item() == pytest.approx(0.5)
    assert losses.texture_loss(dark, light, above).item() == pytest.approx(0.75)
    assert losses.texture_loss(dark, light, 0 * above).item() == 0


def test_landmark_loss_by_hand():
    true = torch.rand(2, 68, 2)
    moved = true + torch.tensor([3.0, 4.0])  # five pixels each
    assert losses.landmark_loss(moved, true, 50.0).item() == pytest.approx(0.5, abs=1e-5)
