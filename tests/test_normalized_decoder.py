"""The paper's decoder: its two branches, its size, its place in a checkpoint."""

import pytest
import torch

from modeling_speech2face import NormalizedFaceDecoder, warp
from tests.tiny import tiny_normalized_decoder


@pytest.fixture(scope="module")
def decoder() -> NormalizedFaceDecoder:
    return tiny_normalized_decoder()


def test_the_papers_layers_have_the_papers_sizes():
    with torch.device("meta"):
        decoder = NormalizedFaceDecoder()
    assert decoder.size == 224
    assert decoder.first_layer[0].weight.shape == (1000, 128)
    dense = [m for m in decoder.texture_branch if isinstance(m, torch.nn.Linear)]
    assert [m.out_features for m in dense] == [14 * 14 * 256]
    stacked = [m for m in decoder.texture_branch if isinstance(m, torch.nn.ConvTranspose2d)]
    assert [m.out_channels for m in stacked] == [128, 64, 32, 32]  # max(256 / 2^i, 32)
    assert {m.kernel_size for m in stacked} == {(5, 5)} and {m.stride for m in stacked} == {(2, 2)}


def test_what_comes_out(decoder):
    out = decoder(torch.randn(3, 8))
    assert out.faces.shape == out.textures.shape == (3, 3, 56, 56)
    assert out.landmarks.shape == (3, 68, 2)
    assert 0 <= out.faces.min() and out.faces.max() <= 1


def test_the_face_is_the_texture_warped_to_the_landmarks(decoder):
    out = decoder(torch.randn(2, 8))
    mean = decoder.mean_landmarks * 56
    assert not torch.allclose(out.landmarks, mean.expand_as(out.landmarks), atol=0.1)
    torch.testing.assert_close(out.faces, warp(out.textures, mean, out.landmarks))


def test_an_untrained_decoder_has_the_mean_shape():
    torch.manual_seed(0)
    decoder = NormalizedFaceDecoder(8, 16, 8, (8, 4, 4), texture_rank=4)
    mean = torch.rand(68, 2) * 56
    decoder.set_mean_landmarks(mean)
    out = decoder(torch.randn(2, 8))
    torch.testing.assert_close(out.landmarks, mean.expand(2, -1, -1))
    torch.testing.assert_close(out.faces, out.textures, atol=1e-4, rtol=0)


def test_a_texture_may_reach_beyond_the_picture():
    torch.manual_seed(0)
    decoder = NormalizedFaceDecoder(8, 16, 8, (8, 4, 4), texture_rank=4, texture_share=0.75)
    places = torch.meshgrid(*(torch.linspace(4, 51, 9),) * 2, indexing="xy")
    grid = torch.stack(places, -1).flatten(0, 1)[:68]
    decoder.set_mean_landmarks(grid)
    torch.testing.assert_close(decoder.texture_shape - 28, 0.75 * (grid - 28))
    ramp = torch.linspace(0, 1, 56).expand(1, 3, 56, 56)  # each texel holds its column
    faces = warp(ramp, decoder.texture_shape, grid[None])
    column = decoder.texture_shape[:, 0].round() / 55
    seen = faces[0, 0, grid[:, 1].round().long(), grid[:, 0].round().long()]
    torch.testing.assert_close(seen, column, atol=0.02, rtol=0)
    # What the picture's rim shows lies within the texture: nothing is drawn out.
    assert 0.02 < faces[0, 0, 28, 0] < faces[0, 0, 28, 1] and faces[0, 0, 28, -1] < 0.98


def test_rows_of_a_batch_do_not_meet(decoder):
    embeddings = torch.randn(3, 8)
    together = decoder(embeddings).faces
    apart = torch.cat([decoder(row).faces for row in embeddings.split(1)])
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=0)


def test_the_first_layer_is_where_voices_can_be_compared(decoder):
    embeddings = torch.randn(2, 8)
    features = decoder.features(embeddings)
    layer = decoder.first_layer[0]
    by_hand = (embeddings * decoder.config.embedding_scale) @ layer.weight.T + layer.bias
    torch.testing.assert_close(features, by_hand.clamp(min=0))
    assert features.shape == (2, 16)


def test_gradients_reach_every_weight_and_the_embedding():
    decoder = tiny_normalized_decoder()
    embeddings = torch.randn(2, 8, requires_grad=True)
    decoder(embeddings).faces.square().mean().backward()
    assert embeddings.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters())


def test_factorising_saves_weights():
    whole, parts = (
        sum(
            p.numel()
            for p in NormalizedFaceDecoder(8, 64, 8, (8, 4), texture_rank=rank).parameters()
        )
        for rank in (None, 4)
    )
    assert parts < whole / 5


def test_saved_and_loaded_it_makes_the_same_faces(decoder, tmp_path):
    decoder.save_pretrained(tmp_path)
    assert [path.suffix for path in tmp_path.glob("*model*")] == [".safetensors"]
    loaded = NormalizedFaceDecoder.from_pretrained(tmp_path)
    embeddings = torch.randn(2, 8)
    torch.testing.assert_close(loaded(embeddings).faces, decoder(embeddings).faces)
    torch.testing.assert_close(loaded.mean_landmarks, decoder.mean_landmarks)
