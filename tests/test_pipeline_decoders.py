"""Both decoders in one pipeline: faces to faces, exaggeration, the way between two voices."""

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_speech2face import (
    DlibFaceRecogniser,
    Speech2FacePipeline,
    load_audio,
    read_provenance,
)
from tests.tiny import tiny_normalized_decoder, tiny_pipeline

RATE = 16000
MAN, WOMAN = "samples/librispeech-2414.flac", "samples/librispeech-3080.flac"
BOTH = ["diffusion", "normalized"]


@pytest.fixture(scope="module")
def pipe() -> Speech2FacePipeline:
    return tiny_pipeline(face_embedding_size=128, with_normalized_decoder=True)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prediction(pipe, voice) -> torch.Tensor:
    return pipe.voice_encoder.embed_recording(load_audio(voice), RATE)


def picture(seed: int, size: int = 150) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return coarse.repeat(size // 5, 0).repeat(size // 5, 1)


def test_the_normalized_decoder_shows_the_prediction_itself(pipe):
    out = pipe(MAN, decoder="normalized", output_type="pt")
    assert out.images.shape == (1, 3, 56, 56) and out.certainty.shape == (56, 56)
    torch.testing.assert_close(out.face_embeddings, prediction(pipe, MAN)[None])
    torch.testing.assert_close(out.images, pipe.normalized_decoder(out.face_embeddings).faces)


def test_several_normalized_faces_are_of_draws(pipe):
    out = pipe(MAN, decoder="normalized", num_images_per_prompt=3, generator=seeded())
    diffused = pipe(MAN, num_images_per_prompt=3, generator=seeded())
    torch.testing.assert_close(out.face_embeddings, diffused.face_embeddings)
    assert out.certainty.size == (56, 56)


def test_the_average_is_of_draws_that_the_normalized_decoder_aligns(pipe):
    out = pipe(MAN, num_images_per_prompt=2, generator=seeded(), output_type="pt")
    assert out.average_face.shape == (3, 56, 56) and out.certainty.shape == (56, 56)
    # However many images there are and whatever decodes them, it is the average of the voice.
    for options in ({"num_images_per_prompt": 1}, {"decoder": "normalized"}):
        other = pipe(MAN, generator=seeded(), output_type="pt", **options)
        assert torch.equal(other.average_face, out.average_face)
        assert torch.equal(other.certainty, out.certainty)
    again, *others = (
        pipe(voice, generator=seeded(seed), output_type="pt", num_images_per_prompt=1).average_face
        for voice, seed in ((MAN, 0), (MAN, 1), (WOMAN, 0))
    )
    assert torch.equal(again, out.average_face)
    assert not any(torch.equal(other, again) for other in others)
    exaggerated = pipe(MAN, generator=seeded(), output_type="pt", exaggeration=2.0)
    assert exaggerated.certainty.mean() < out.certainty.mean()  # faces farther apart


def test_averaging_leaves_the_images_and_the_generator_alone(pipe):
    plain = Speech2FacePipeline(**pipe.components | {"normalized_decoder": None})
    plain.register_to_config(num_inference_steps=pipe.config.num_inference_steps)
    plain.set_progress_bar_config(disable=True)
    one, other = seeded(), seeded()
    for _ in range(2):  # the second time the generator goes on where the first call left it
        out = pipe(MAN, generator=one, output_type="pt", num_images_per_prompt=2)
        expected = plain(MAN, generator=other, output_type="pt", num_images_per_prompt=2)
        assert torch.equal(out.images, expected.images)
    assert torch.equal(expected.average_face, expected.images.mean(dim=0))


def test_a_list_of_voices_has_an_average_each(pipe):
    together = pipe([WOMAN, MAN], generator=seeded(), num_images_per_prompt=1)
    assert len(together.average_face) == len(together.certainty) == 2
    alone = pipe(MAN, generator=seeded(), num_images_per_prompt=1)
    for one, other in (
        (together.average_face[1], alone.average_face),
        (together.certainty[1], alone.certainty),
    ):
        assert one.size == (56, 56)
        np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float), atol=1)


def test_a_face_s_own_embedding_is_not_drawn_for_an_average(pipe):
    raw = pipe.voice_encoder.face_embedding_mean + 0.1
    out = pipe(face_embedding=raw, num_images_per_prompt=2, output_type="pt")
    torch.testing.assert_close(out.average_face, out.images.mean(dim=0))
    assert out.told is None and out.certainty.shape == (16, 16)
    single = pipe(face_embedding=raw, decoder="normalized", output_type="pt")
    assert single.certainty is None and torch.equal(single.average_face, single.images[0])


@pytest.mark.parametrize("decoder", BOTH)
def test_exaggeration_moves_away_from_the_mean_face(pipe, decoder):
    options = {"decoder": decoder, "num_images_per_prompt": 1, "output_type": "pt"}
    plain = pipe(MAN, **options, generator=seeded())
    more = pipe(MAN, exaggeration=2.5, **options, generator=seeded())
    torch.testing.assert_close(more.face_embeddings, 2.5 * plain.face_embeddings)
    assert not torch.equal(more.images, plain.images)
    raw = pipe.voice_encoder.face_embedding_mean + more.face_embeddings[0]
    if decoder == "normalized":
        torch.testing.assert_close(pipe(face_embedding=raw, **options).images, more.images)


@pytest.mark.parametrize("decoder", BOTH)
def test_the_way_between_two_voices(pipe, decoder):
    def way(num_images=5, seed=0, **options):
        options = {"decoder": decoder, "output_type": "pt", **options}
        return pipe.interpolate([MAN, WOMAN], num_images, generator=seeded(seed), **options)

    out = way()
    assert len(out.images) == 5 and out.certainty is None
    steps = out.face_embeddings.diff(dim=0)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=1e-5, rtol=0)
    apart = prediction(pipe, WOMAN) - prediction(pipe, MAN)
    torch.testing.assert_close(steps.sum(0), apart, atol=1e-5, rtol=0)
    # The ends are alike however many faces lie between, and come again with the seed alone.
    torch.testing.assert_close(way(2).images, out.images[[0, -1]], atol=1e-5, rtol=0)
    assert torch.equal(way().images, out.images)
    other = way(seed=1)
    if decoder == "normalized":
        torch.testing.assert_close(out.face_embeddings[0], prediction(pipe, MAN))
        assert torch.equal(other.images, out.images)
    else:
        assert not torch.equal(other.images, out.images)
        noise_alone = (out.images[0] - out.images[4]).abs().mean()
        assert noise_alone < (out.images[0] - other.images[0]).abs().mean()
    exaggerated = way(exaggeration=2.0)
    torch.testing.assert_close(exaggerated.face_embeddings, 2 * out.face_embeddings)
    image = pipe.interpolate([MAN, WOMAN], 2, decoder=decoder).images[0]
    assert "between two voices" in read_provenance(image)["content"]


def test_a_face_picture_is_embedded_by_the_teacher(pipe, tmp_path):
    one, other = picture(0), picture(1)
    teacher = DlibFaceRecogniser.from_dlib()
    with torch.no_grad():
        raw = teacher(torch.tensor(np.stack([one, other])).permute(0, 3, 1, 2) / 255)
    Image.fromarray(other).save(tmp_path / "other.png")
    options = {"decoder": "normalized", "output_type": "pt"}
    from_pictures = pipe(face_image=[Image.fromarray(one), tmp_path / "other.png"], **options)
    expected = pipe(face_embedding=raw, **options)
    torch.testing.assert_close(from_pictures.images, expected.images, atol=2e-3, rtol=0)
    torch.testing.assert_close(
        from_pictures.face_embeddings, expected.face_embeddings, atol=1e-4, rtol=0
    )
    diffused = pipe(face_image=one, num_images_per_prompt=2)  # an array; no draw, two noises
    assert torch.equal(diffused.face_embeddings[0], diffused.face_embeddings[1])
    assert "a face's embedding" in read_provenance(diffused.images[0])["content"]


def test_a_foreign_teacher_is_not_guessed():
    pipe = tiny_pipeline()
    pipe.voice_encoder.config.face_recogniser = "arcface"
    with pytest.raises(ValueError, match="without its face recogniser 'arcface'.*face_embedding"):
        pipe(face_image=picture(0))


def test_saved_and_loaded_with_and_without_the_new_parts(tmp_path):
    pipe = tiny_pipeline(face_embedding_size=128, with_normalized_decoder=True)
    pipe.register_modules(face_recogniser=DlibFaceRecogniser.from_dlib())
    pipe.save_pretrained(tmp_path / "whole")
    loaded = Speech2FacePipeline.from_pretrained(tmp_path / "whole")
    options = {"decoder": "normalized", "output_type": "pt"}
    expected = pipe(face_image=picture(0), **options).images
    torch.testing.assert_close(loaded(face_image=picture(0), **options).images, expected)
    pipe.register_modules(face_recogniser=None, normalized_decoder=None)
    pipe.save_pretrained(tmp_path / "plain")
    loaded = Speech2FacePipeline.from_pretrained(tmp_path / "plain")
    assert loaded.normalized_decoder is None and loaded.face_recogniser is None
    with pytest.raises(ValueError, match="no normalized decoder"):
        loaded(MAN, decoder="normalized")
    with pytest.raises(ValueError, match="no normalized decoder"):
        loaded.interpolate([MAN, WOMAN], decoder="normalized")


def test_a_decoder_of_another_teacher_is_refused():
    pipe = tiny_pipeline()
    decoder = tiny_normalized_decoder()
    decoder.register_to_config(face_recogniser="arcface")
    with pytest.raises(ValueError, match="'dlib'.*'arcface'.*same face recogniser"):
        Speech2FacePipeline(**pipe.components | {"normalized_decoder": decoder})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"voice": MAN, "face_image": picture(0)}, "one of voice, face_embedding and face_image"),
        ({"voice": MAN, "decoder": "gan"}, "one of diffusion, normalized"),
        ({"voice": MAN, "exaggeration": 0}, "above 0"),
        ({"voice": MAN, "exaggeration": float("nan")}, "above 0"),
        ({"voice": MAN, "decoder": "normalized", "num_inference_steps": 2}, "one pass"),
        ({"voice": MAN, "decoder": "normalized", "guidance_scale": 2.0}, "one pass"),
        ({"face_image": []}, "empty"),
        ({"face_image": picture(0)[:100]}, "square.*align"),
        ({"face_image": picture(0)[..., 0]}, "array \\(S, S, 3\\)"),
        ({"face_image": picture(0) / 255}, "uint8"),
        ({"face_image": "nowhere.png"}, "nowhere.png cannot be read"),
        ({"face_image": MAN}, "cannot be read as a picture"),
    ],
)
def test_what_is_refused(pipe, kwargs, message):
    with pytest.raises(ValueError, match=message):
        pipe(**kwargs)


@pytest.mark.parametrize(
    ("voices", "kwargs", "message"),
    [
        ([MAN], {}, "two voices"),
        ([MAN, WOMAN], {"num_images": 1}, "at least 2"),
        ([MAN, WOMAN], {"decoder": "gan"}, "one of diffusion"),
    ],
)
def test_no_way_between(pipe, voices, kwargs, message):
    with pytest.raises(ValueError, match=message):
        pipe.interpolate(voices, **kwargs)
