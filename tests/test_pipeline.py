"""Speech2FacePipeline: what goes in, what comes out, and what the same seed gives again."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from modeling_speech2face import (
    AudioError,
    GeneratedImage,
    NoSpeechError,
    Speech2FacePipeline,
    contact_sheet,
    faces_to_latents,
    load_audio,
    read_provenance,
)
from modeling_speech2face.pictures import certainty_of
from tests.tiny import FACE_EMBEDDING_SIZE, tiny_pipeline

RATE = 16000
MAN, WOMAN = "samples/librispeech-2414.flac", "samples/librispeech-3080.flac"


@pytest.fixture(scope="module")
def pipe() -> Speech2FacePipeline:
    return tiny_pipeline()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images_of(pipe, voice=MAN, seed=0, **kwargs) -> np.ndarray:
    return pipe(voice, generator=seeded(seed), output_type="np", **kwargs).images


def test_what_comes_out(pipe):
    out = pipe(MAN, num_images_per_prompt=3, generator=seeded())
    assert len(out.images) == 3 and all(image.size == (16, 16) for image in out.images)
    assert out.face_embeddings.shape == (3, FACE_EMBEDDING_SIZE)
    assert out.average_face.size == out.certainty.size == (16, 16)
    pixels = np.stack([np.asarray(image, dtype=float) for image in out.images])
    np.testing.assert_allclose(np.asarray(out.average_face), pixels.mean(axis=0), atol=1.01)


def test_output_types(pipe):
    arrays = pipe(MAN, generator=seeded(), output_type="np")
    tensors = pipe(MAN, generator=seeded(), output_type="pt")
    pictures = pipe(MAN, generator=seeded())
    assert arrays.images.shape == (4, 16, 16, 3) and tensors.images.shape == (4, 3, 16, 16)
    assert arrays.average_face.shape == (16, 16, 3) and arrays.certainty.shape == (16, 16)
    assert 0 <= arrays.images.min() and arrays.images.max() <= 1
    np.testing.assert_array_equal(tensors.images.permute(0, 2, 3, 1), arrays.images)
    np.testing.assert_allclose(np.asarray(pictures.images[2]) / 255, arrays.images[2], atol=0.003)
    as_tuple = pipe(MAN, generator=seeded(), output_type="np", return_dict=False)
    assert len(as_tuple) == 5 and as_tuple[4] is None  # nothing puts it into words
    for place, field in ((0, "images"), (2, "average_face"), (3, "certainty")):
        np.testing.assert_array_equal(as_tuple[place], arrays[field])


def test_the_same_seed_gives_the_same_and_another_another(pipe):
    assert np.array_equal(images_of(pipe), images_of(pipe))
    assert not np.allclose(images_of(pipe), images_of(pipe, seed=1), atol=0.05)


def test_each_image_has_its_own_draw(pipe):
    draws = pipe(MAN, generator=seeded()).face_embeddings
    assert torch.pdist(draws).min() > 0.05


def test_draws_lie_around_the_prediction(pipe):
    prediction = pipe.voice_encoder.embed_recording(load_audio(MAN), RATE)
    draws = pipe(MAN, generator=seeded(), num_images_per_prompt=64).face_embeddings
    torch.testing.assert_close(draws.mean(dim=0), prediction, atol=0.06, rtol=0)


def test_streamed_faces_are_those_of_a_call(pipe):
    whole = pipe(MAN, num_images_per_prompt=3, generator=seeded())
    outputs = list(pipe.stream(MAN, num_images_per_prompt=3, generator=seeded()))
    assert [len(out.images) for out in outputs] == [1, 2, 3, 3]
    assert all(out.average_face is None and out.certainty is None for out in outputs[:-1])
    last = outputs[-1]
    torch.testing.assert_close(last.face_embeddings, whole.face_embeddings)
    for ours, theirs in zip(
        [*last.images, last.average_face, last.certainty],
        [*whole.images, whole.average_face, whole.certainty],
        strict=True,
    ):
        assert read_provenance(ours) == read_provenance(theirs)
        np.testing.assert_allclose(np.asarray(ours, float), np.asarray(theirs, float), atol=1)


@pytest.mark.parametrize("n", [1, 2])
def test_streamed_faces_of_the_papers_decoder_and_what_the_voice_tells(n):
    pipe = tiny_pipeline(with_normalized_decoder=True, with_face_traits=True)
    options = {"decoder": "normalized", "exaggeration": 1.5, "num_images_per_prompt": n}
    whole = pipe(MAN, generator=seeded(), **options)
    *_, last = pipe.stream(MAN, generator=seeded(), **options)
    torch.testing.assert_close(last.face_embeddings, whole.face_embeddings)
    assert last.told == whole.told
    np.testing.assert_array_equal(np.asarray(last.average_face), np.asarray(whole.average_face))


def test_more_images_leave_the_first_ones_alone(pipe):
    few, many = images_of(pipe, num_images_per_prompt=2), images_of(pipe, num_images_per_prompt=5)
    np.testing.assert_allclose(few, many[:2], atol=1e-5)


def test_other_voices_in_the_batch_leave_a_voice_alone(pipe):
    together = pipe([WOMAN, MAN], generator=seeded(), output_type="np")
    assert together.images.shape == (8, 16, 16, 3) and len(together.average_face) == 2
    np.testing.assert_allclose(together.images[4:], images_of(pipe), atol=1e-5)
    np.testing.assert_allclose(together.images[:4], images_of(pipe, WOMAN), atol=1e-5)
    each = pipe([WOMAN, MAN], generator=[seeded(1), seeded(0)], output_type="np")
    np.testing.assert_allclose(each.images[4:], images_of(pipe), atol=1e-5)


def test_a_stochastic_scheduler_repeats_itself_too():
    from diffusers import DDPMScheduler

    pipe = tiny_pipeline()
    pipe.scheduler = DDPMScheduler(prediction_type="v_prediction", clip_sample=False)
    assert np.array_equal(images_of(pipe), images_of(pipe))
    few, many = images_of(pipe, num_images_per_prompt=2), images_of(pipe, num_images_per_prompt=3)
    np.testing.assert_allclose(few, many[:2], atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"],
)
def test_other_schedulers_work(name):
    import diffusers

    pipe = tiny_pipeline()
    pipe.scheduler = getattr(diffusers, name)()
    images = images_of(pipe, num_images_per_prompt=1, num_inference_steps=3)
    assert np.isfinite(images).all() and images.std() > 0.01


def test_a_voice_may_be_a_path_bytes_an_array_or_a_tensor(pipe):
    waveform = load_audio(MAN)
    expected = images_of(pipe)
    with open(MAN, "rb") as file:
        content = file.read()
    assert np.array_equal(images_of(pipe, content), expected)
    assert np.array_equal(images_of(pipe, waveform, sampling_rate=RATE), expected)
    assert np.array_equal(images_of(pipe, torch.from_numpy(waveform), sampling_rate=RATE), expected)


def test_the_feature_extractor_of_the_pipeline_is_the_one_that_is_used():
    pipe = tiny_pipeline()
    before = images_of(pipe)
    pipe.feature_extractor.clip_seconds = 2.0
    assert not np.array_equal(images_of(pipe), before)


def test_a_waveform_of_another_rate_is_resampled(pipe):
    fast = np.repeat(load_audio(MAN), 2)
    a = pipe(fast, sampling_rate=2 * RATE, generator=seeded()).face_embeddings
    b = pipe(MAN, generator=seeded()).face_embeddings
    torch.testing.assert_close(a, b, atol=0.01, rtol=0)


def test_a_face_embedding_is_centred_and_not_drawn(pipe):
    raw = np.linspace(0, 1, FACE_EMBEDDING_SIZE).astype(np.float32)
    out = pipe(face_embedding=raw, num_images_per_prompt=2, generator=seeded(), output_type="np")
    mean = np.array(pipe.voice_encoder.config.face_embedding_mean)
    np.testing.assert_allclose(out.face_embeddings, np.stack([raw - mean] * 2), atol=1e-6)
    assert not np.allclose(out.images[0], out.images[1], atol=0.01)  # another noise for each
    batch = pipe(face_embedding=np.stack([raw, raw]), num_images_per_prompt=2, generator=seeded())
    assert len(batch.images) == 4 and len(batch.average_face) == 2


def test_the_embedding_and_the_guidance_reach_the_picture(pipe):
    def face(embedding, scale):
        return pipe(
            face_embedding=embedding, guidance_scale=scale, generator=seeded(), output_type="np"
        ).images

    low, high = -2 * np.ones(FACE_EMBEDDING_SIZE), 2 * np.ones(FACE_EMBEDDING_SIZE)
    weak, strong = (np.abs(face(low, s) - face(high, s)).mean() for s in (1, 6))
    assert 0 < weak < strong


def test_guidance_is_the_formula():
    """One step of guidance 3 equals the mixture of the steps without and with condition."""
    pipe = tiny_pipeline(num_inference_steps=1)
    latents = {}

    def keep(pipe, step, timestep, tensors):
        latents[pipe.mode] = tensors["latents"]

    def run(mode, scale):
        pipe.mode = mode
        raw = np.ones(FACE_EMBEDDING_SIZE)
        pipe(
            face_embedding=raw,
            guidance_scale=scale,
            generator=seeded(),
            callback_on_step_end=keep,
        )

    run("conditional", 1)
    run("guided", 3)
    project = pipe.embedding_projection.forward
    pipe.embedding_projection.forward = lambda x: pipe.embedding_projection.unconditional(len(x))
    run("unconditional", 1)
    pipe.embedding_projection.forward = project
    expected = latents["unconditional"] + 3 * (latents["conditional"] - latents["unconditional"])
    torch.testing.assert_close(latents["guided"], expected, atol=1e-4, rtol=1e-3)


def test_the_callback_sees_every_step_and_may_change_the_latents(pipe):
    steps = []

    def blank(pipe, step, timestep, tensors):
        steps.append(step)
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 2 else None

    out = pipe(MAN, num_inference_steps=3, callback_on_step_end=blank, output_type="np")
    assert steps == [0, 1, 2]
    np.testing.assert_allclose(out.images, 0.5)


def test_one_image_has_no_certainty(pipe):
    out = pipe(MAN, num_images_per_prompt=1, generator=seeded())
    assert out.certainty is None
    assert np.array_equal(np.asarray(out.average_face), np.asarray(out.images[0]))


def test_certainty_is_high_where_images_agree():
    faces = torch.full((1, 4, 3, 8, 8), 0.5)
    faces[0, :2, :, :4], faces[0, 2:, :, :4] = 0.0, 1.0
    certainty = certainty_of(faces)[0]
    assert (certainty[:3] == 0).all() and (certainty[5:] == 1).all()
    slight = torch.full((1, 2, 3, 8, 8), 0.5)
    slight[0, 0] += 0.125  # unbiased standard deviation 0.0884
    torch.testing.assert_close(
        certainty_of(slight), torch.full((1, 8, 8), 1 - 0.0884 / 0.2), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_of_pixels(patch):
    assert images_of(tiny_pipeline(patch=patch)).shape == (4, 16, 16, 3)


def test_latent_space():
    pipe = tiny_pipeline(with_vae=True)
    assert images_of(pipe).shape == (4, 16, 16, 3)
    assert np.array_equal(images_of(pipe), images_of(pipe))


@pytest.mark.parametrize(("steps", "places"), [(1, [1000]), (4, [1000, 750, 500, 250])])
def test_a_flow_is_followed_to_its_end(steps, places):
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipe, seen = tiny_pipeline(guidance_scale=1.0), []
    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    face = 2 * torch.rand(3, 16, 16, generator=seeded()) - 1

    def knows_the_face(noisy, timestep, **_):
        seen.append(timestep.item())
        velocity = (noisy - faces_to_latents(face[None], 2)) / (timestep / 1000)  # noise - face
        return SimpleNamespace(sample=velocity)

    pipe.unet.forward = knows_the_face
    images = pipe(MAN, num_inference_steps=steps, output_type="pt").images
    assert seen == places  # no step from hardly any noise to none
    torch.testing.assert_close(images, (face / 2 + 0.5).expand(4, -1, -1, -1), atol=1e-4, rtol=0)


def test_latents_are_scaled_and_shifted_back_as_the_vae_says():
    pipe = tiny_pipeline(with_vae=True)
    pipe.vae.register_to_config(scaling_factor=0.5, shift_factor=0.25)
    latents = torch.randn(2, 4, 8, 8, generator=seeded())
    with torch.no_grad():
        expected = (pipe.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
        decoded = pipe._decode_latents((latents - 0.25) * 0.5)
    torch.testing.assert_close(decoded, expected)


@pytest.mark.parametrize("with_vae", [False, True])
def test_save_and_load_give_the_same_images(tmp_path, with_vae):
    pipe = tiny_pipeline(with_vae=with_vae, num_inference_steps=3, guidance_scale=1.5)
    pipe.save_pretrained(tmp_path)
    loaded = Speech2FacePipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert np.array_equal(images_of(pipe), images_of(loaded))
    assert (loaded.config.num_inference_steps, loaded.config.guidance_scale) == (3, 1.5)
    assert (loaded.vae is not None) == with_vae
    assert not list(tmp_path.rglob("*.bin")) and list(tmp_path.rglob("*.safetensors"))


def test_images_carry_their_provenance(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "mine")
    pipe = Speech2FacePipeline.from_pretrained(tmp_path / "mine")
    pipe.set_progress_bar_config(disable=True)
    out = pipe(MAN, generator=seeded(5))
    for image in [*out.images, out.average_face, out.certainty, contact_sheet(out)]:
        assert isinstance(image, GeneratedImage)
        image.save(tmp_path / "image.png")
        provenance = read_provenance(tmp_path / "image.png")
        assert provenance["checkpoint"] == "mine" and provenance["seed"] == 5
        assert str(tmp_path) not in str(provenance)
    assert "average" in read_provenance(out.average_face)["content"]


def test_modules_of_different_teachers_are_refused():
    pipe = tiny_pipeline()
    components = dict(pipe.components)
    pipe.voice_encoder.config.face_recogniser = "arcface"
    with pytest.raises(ValueError, match="'arcface'.*'dlib'.*same face recogniser"):
        Speech2FacePipeline(**components)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({}, ValueError, "one of voice, face_embedding and face_image"),
        ({"voice": MAN, "face_embedding": np.zeros(8)}, ValueError, "one of voice"),
        ({"voice": 3.5}, ValueError, "must be a path"),
        ({"voice": []}, ValueError, "empty"),
        ({"voice": np.zeros(16000)}, AudioError, "sampling_rate"),
        ({"voice": "nowhere.wav"}, AudioError, "does not exist"),
        ({"voice": np.zeros(32000), "sampling_rate": RATE}, NoSpeechError, "silent"),
        ({"face_embedding": np.zeros(9)}, ValueError, "8 values"),
        ({"face_embedding": np.full(8, np.nan)}, ValueError, "NaN"),
        ({"voice": MAN, "num_images_per_prompt": 0}, ValueError, "at least 1"),
        ({"voice": MAN, "num_inference_steps": 0}, ValueError, "at least 1"),
        ({"voice": MAN, "guidance_scale": 0.5}, ValueError, "at least 1"),
        ({"voice": MAN, "guidance_scale": float("nan")}, ValueError, "finite"),
        ({"voice": MAN, "output_type": "jpg"}, ValueError, "output_type"),
        ({"voice": MAN, "generator": [seeded(), seeded()]}, ValueError, "each of 1"),
    ],
)
def test_what_is_refused(pipe, kwargs, error, message):
    with pytest.raises(error, match=message):
        pipe(**kwargs)


def test_without_a_demo_checkpoint_there_is_a_sentence(monkeypatch, tmp_path):
    from modeling_speech2face import pipeline_speech2face

    monkeypatch.setattr(pipeline_speech2face, "DEMO_CHECKPOINT", tmp_path)
    with pytest.raises(FileNotFoundError, match="no demo checkpoint"):
        Speech2FacePipeline.from_demo()


@pytest.mark.slow
def test_compiled_parts_draw_the_same():
    pipe = tiny_pipeline()
    expected = images_of(pipe)
    pipe.voice_encoder.compile()
    pipe.unet.compile()
    np.testing.assert_allclose(images_of(pipe), expected, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # they were compiled


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    pipe = tiny_pipeline(with_normalized_decoder=True, with_face_traits=True)
    expected = pipe([MAN, WOMAN], generator=seeded(), output_type="np")
    found = pipe.to("cuda")([MAN, WOMAN], generator=seeded(), output_type="np")
    np.testing.assert_allclose(found.images, expected.images, atol=1e-3)
    np.testing.assert_allclose(found.average_face, expected.average_face, atol=1e-3)
    assert found.told == expected.told
    assert pipe(MAN, decoder="normalized").images[0].size == (56, 56)
