"""What is made is made once, continues after a kill, and each recording's is its own alone."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from tests.tiny import FACE_EMBEDDING_SIZE, tiny_pipeline
from training.evaluation import generation
from training.evaluation.store import Store, fingerprint, key_of, seed_of
from training.evaluation.subjects import Voices


class Killed(Exception):
    pass


def random_rows(start: int, stop: int) -> dict[str, np.ndarray]:
    """Rows that depend on their chunk, too, as a network's rounding does."""
    rng = np.random.default_rng([start, stop])
    names = np.asarray(["male", "female"])[rng.integers(0, 2, stop - start)]
    return {"numbers": rng.standard_normal((stop - start, 3)), "names": names}


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_killed_run_ends_with_the_same_bytes_and_makes_no_chunk_twice(tmp_path):
    whole = Store(tmp_path / "whole").rows("key", 10, random_rows, chunk=4)
    assert whole["numbers"].shape == (10, 3) and set(whole["names"]) == {"male", "female"}

    made, store = [], Store(tmp_path / "killed")

    def make(start, stop):
        made.append(start)
        if made == [0, 4]:
            raise Killed
        return random_rows(start, stop)

    with pytest.raises(Killed):
        store.rows("key", 10, make, chunk=4)
    assert not (tmp_path / "killed" / "key").exists()  # half of it is not mistaken for it
    store.rows("key", 10, make, chunk=4)
    assert made == [0, 4, 4, 8]
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    store.rows("key", 10, lambda *_: pytest.fail("made again"), chunk=4)


def test_a_run_that_dies_while_it_writes_leaves_no_broken_chunk(tmp_path, monkeypatch):
    store, savez = Store(tmp_path), np.savez

    def die(file, **rows):
        file.write(b"half a chunk")
        raise Killed

    monkeypatch.setattr(np, "savez", die)
    with pytest.raises(Killed):
        store.rows("key", 4, random_rows)
    monkeypatch.setattr(np, "savez", savez)
    rows = store.rows("key", 4, random_rows)
    np.testing.assert_array_equal(rows["numbers"], random_rows(0, 4)["numbers"])


def test_a_store_refuses_nothing_and_rows_of_another_number(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="at least one row"):
        store.rows("key", 0, random_rows)
    with pytest.raises(ValueError, match="expected 5 rows each"):
        store.rows("key", 5, lambda start, stop: {"numbers": np.zeros(2)})


def test_a_key_tells_what_went_in(tmp_path):
    numbers = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "numbers.npy", numbers)
    mapped = np.load(tmp_path / "numbers.npy", mmap_mode="r")
    assert fingerprint(numbers) == fingerprint(mapped) == fingerprint(np.asfortranarray(numbers))
    different = [numbers + 1, numbers.T, numbers.ravel(), numbers.astype(np.float32), "1", 1, b"1"]
    assert len({fingerprint(part) for part in different} | {fingerprint(numbers)}) == 8
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert key_of("voice, 6 s / a", 1).startswith("voice-6-s-a-")


def test_seeds_are_of_their_own():
    seeds = generation.seeds_of(0, ["a", "b", "c"], "draw", 4)
    assert len(set(seeds.ravel().tolist())) == 12 and (seeds >= 0).all()
    np.testing.assert_array_equal(generation.seeds_of(0, ["c", "a"], "draw", 2), seeds[[2, 0], :2])
    np.testing.assert_array_equal(generation.seeds_of(0, ["b"], "draw"), seeds[1:2, 0])
    assert seed_of(0, "a", "draw", 0) == seeds[0, 0] != seed_of(1, "a", "draw", 0)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture
def voices(sample_recording, tmp_path) -> Voices:
    """A person who speaks, hiss, and the person again, later."""
    speech, rate = soundfile.read(sample_recording, dtype="float32")
    hiss = 0.05 * np.random.default_rng(0).standard_normal(48000)
    paths = []
    for name, sound in {"one": speech, "hiss": hiss, "two": speech[16000:]}.items():
        paths.append(tmp_path / f"{name}.wav")
        soundfile.write(paths[-1], sound, rate)
    who = np.asarray(["a", "b", "a"])
    return Voices(who, np.asarray(["female"] * 3), paths, ["one", "hiss", "two"])


def test_predictions_are_of_the_beginning_and_no_recording_is_left_out(pipeline, voices, tmp_path):
    store = Store(tmp_path / "store")
    predictions, heard = generation.predict(pipeline, voices, 3, store)
    assert predictions.shape == (3, FACE_EMBEDDING_SIZE) and heard.tolist() == [True, False, True]
    encoder = pipeline.voice_encoder
    for row, embed in enumerate((encoder.embed_recording, encoder.embed_clip)):
        expected = embed(torch.from_numpy(voices.speech(row)[:48000]), 16000)
        np.testing.assert_allclose(predictions[row], expected.numpy(), atol=1e-6)
    longer, _ = generation.predict(pipeline, voices, 6, store)
    assert np.abs(longer[0] - predictions[0]).max() > 1e-6


def test_leaving_out_a_recording_changes_nothing_for_the_others(pipeline, voices, tmp_path):
    everyone, _ = generation.predict(pipeline, voices, 3, Store(tmp_path / "everyone"))
    kept = [0, 2]
    paths, names = ([part[i] for i in kept] for part in (voices.paths, voices.names))
    fewer = Voices(voices.speakers[kept], voices.genders[kept], paths, names)
    assert fewer.fingerprint != voices.fingerprint
    some, _ = generation.predict(pipeline, fewer, 3, Store(tmp_path / "fewer"))
    np.testing.assert_array_equal(some, everyone[kept])


def test_predictions_are_made_once_a_checkpoint(pipeline, voices, tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    first, _ = generation.predict(pipeline, voices, 3, store)
    other, _ = generation.predict(tiny_pipeline(seed=1), voices, 3, store)
    assert np.abs(other - first).max() > 1e-3
    monkeypatch.setattr(Voices, "speech", lambda *_: pytest.fail("heard again"))
    again, _ = generation.predict(tiny_pipeline(), voices, 3, store)  # the same weights, anew
    np.testing.assert_array_equal(again, first)


def test_draws_have_the_encoders_mean_and_covariance_and_seeds_of_their_own(pipeline):
    encoder = pipeline.voice_encoder
    mean = encoder.face_embedding_mean.numpy()
    predictions = np.random.default_rng(0).standard_normal((3, FACE_EMBEDDING_SIZE))
    seeds = generation.seeds_of(0, ["a", "b", "c"], "draw")
    draws = generation.draw(pipeline, predictions, seeds, 3)
    assert draws.shape == (3, 3, FACE_EMBEDDING_SIZE) and draws.dtype == np.float32
    alone = generation.draw(pipeline, predictions[1:2], seeds[1:2], 2)
    np.testing.assert_array_equal(alone[0], draws[1, :2])
    many = generation.draw(pipeline, predictions[:1], seeds[:1], 4000)[0]
    np.testing.assert_allclose(many.mean(0), predictions[0] + mean, atol=0.01)
    np.testing.assert_allclose(np.cov(many.T), encoder.residual_covariance.numpy(), atol=1.5e-3)


@pytest.fixture(scope="module")
def embeddings():
    return np.random.default_rng(1).standard_normal((6, FACE_EMBEDDING_SIZE)).astype(np.float32)


def test_a_decoded_image_is_the_pipelines_and_depends_on_its_own_seed_alone(pipeline, embeddings):
    decoder = generation.decoders_of(pipeline)["diffusion"]
    seeds = generation.seeds_of(0, list("abcdef"), "image")
    images = decoder(embeddings, seeds)
    assert images.shape == (6, 16, 16, 3) and images.dtype == np.uint8
    for row in range(6):
        generator = torch.Generator().manual_seed(int(seeds[row]))
        expected = pipeline(
            face_embedding=embeddings[row], num_images_per_prompt=1, generator=generator
        ).images[0]
        # A network rounds a batch otherwise than a single image: a grey level, seldom.
        assert np.abs(images[row].astype(int) - np.asarray(expected)).max() <= 1
    assert np.abs(decoder(embeddings[:1], seeds[1:2]).astype(int) - images[0]).max() > 20


def test_decoding_continues_and_is_kept_by_content(pipeline, embeddings, tmp_path):
    seeds = generation.seeds_of(0, list("abcdef"), "image")
    decoder, calls = generation.decoders_of(pipeline)["diffusion"], []

    class Counting:
        name, fingerprint, draws = decoder.name, decoder.fingerprint, decoder.draws

        def __call__(self, embeddings, seeds):
            calls.append(len(seeds))
            if calls == [4, 2]:
                raise Killed
            return decoder(embeddings, seeds)

    store = Store(tmp_path / "store")
    with pytest.raises(Killed):
        generation.decode(Counting(), embeddings, seeds, store, "true")
    images = generation.decode(Counting(), embeddings, seeds, store, "true")
    assert calls == [4, 2, 2]
    whole = generation.decode(decoder, embeddings, seeds, Store(tmp_path / "other"), "true")
    np.testing.assert_array_equal(images, whole)
    generation.decode(Counting(), embeddings, seeds, store, "true")
    assert len(calls) == 3
    more = generation.decoders_of(pipeline, steps=3)["diffusion"]
    assert more.fingerprint != decoder.fingerprint
    generation.decode(Counting(), embeddings, seeds[::-1], store, "true")
    assert len(calls) == 5
    with pytest.raises(ValueError, match="N seeds"):
        generation.decode(decoder, embeddings, seeds[:2], store, "true")


@pytest.fixture(scope="module")
def with_both():
    """Has the paper's decoder, too, in colours that differ by many grey levels between persons."""
    pipeline = tiny_pipeline(with_normalized_decoder=True)
    with torch.no_grad():
        pipeline.normalized_decoder.texture_branch[-1].weight *= 100
    return pipeline


def test_every_decoder_of_a_pipeline_is_found(pipeline, with_both):
    assert list(generation.decoders_of(pipeline)) == ["diffusion"]
    found = generation.decoders_of(with_both)
    assert [(name, decoder.name) for name, decoder in found.items()] == [
        ("diffusion", "diffusion"),
        ("normalized", "normalized"),
    ]
    assert found["diffusion"].draws and not found["normalized"].draws
    other = generation.decoders_of(with_both, steps=3, guidance_scale=1.0)
    assert other["normalized"].fingerprint == found["normalized"].fingerprint
    assert other["diffusion"].fingerprint != found["diffusion"].fingerprint
    retrained = tiny_pipeline(with_normalized_decoder=True)
    with torch.no_grad():
        next(retrained.normalized_decoder.parameters()).view(-1)[0] += 1e-3
    retrained = generation.decoders_of(retrained)["normalized"]
    assert retrained.fingerprint != found["normalized"].fingerprint


def test_a_normalized_face_is_the_pipelines_and_needs_no_seed(with_both, embeddings, tmp_path):
    decoder, calls = generation.decoders_of(with_both)["normalized"], []

    class Counting:
        name, fingerprint, draws = decoder.name, decoder.fingerprint, decoder.draws

        def __call__(self, embeddings, seeds):
            calls.append(len(embeddings))
            return decoder(embeddings, seeds)

    store = Store(tmp_path)
    images = generation.decode(Counting(), embeddings, None, store, "true")
    assert images.shape == (6, 56, 56, 3) and images.dtype == np.uint8 and calls == [4, 2]
    centred = torch.from_numpy(embeddings) - with_both.voice_encoder.face_embedding_mean
    with torch.no_grad():
        faces = with_both.normalized_decoder(centred).faces
    expected = (255 * faces).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(images - expected).max() <= 1
    assert np.abs(expected[0] - expected[1]).max() > 10
    again = generation.decode(Counting(), embeddings, np.arange(6), store, "true")
    assert calls == [4, 2]  # by other seeds they are found again
    np.testing.assert_array_equal(again, images)


def test_a_part_that_is_absent_leaves_a_checkpoints_fingerprint_as_it_was(pipeline, with_both):
    later = ("normalized_decoder", "face_recogniser")
    config, components = (
        {name: value for name, value in known.items() if name not in later}
        for known in (pipeline.config, pipeline.components)
    )
    as_it_was = SimpleNamespace(config=config, components=components)
    before = generation.checkpoint_fingerprint(as_it_was)
    assert generation.checkpoint_fingerprint(pipeline) == before
    assert generation.checkpoint_fingerprint(with_both) != before


def test_who_tells_in_words_changes_no_fingerprint(pipeline):
    telling = tiny_pipeline(with_face_traits=True)
    assert generation.checkpoint_fingerprint(telling) == generation.checkpoint_fingerprint(pipeline)


def test_what_a_decoder_made_stays_valid_when_another_joins_or_leaves(pipeline, with_both):
    plain, both = generation.decoders_of(pipeline), generation.decoders_of(with_both)
    assert plain["diffusion"].fingerprint == both["diffusion"].fingerprint
    assert both["normalized"].fingerprint != both["diffusion"].fingerprint
    with_both.voice_encoder.face_embedding_mean += 0.01  # which both subtract
    changed = generation.decoders_of(with_both)
    with_both.voice_encoder.face_embedding_mean -= 0.01
    for name in both:
        assert changed[name].fingerprint != both[name].fingerprint


def test_a_checkpoint_of_nan_is_refused_in_a_sentence(voices, embeddings, tmp_path):
    broken = tiny_pipeline(with_normalized_decoder=True)
    with torch.no_grad():
        for part in (broken.voice_encoder, broken.unet, broken.normalized_decoder):
            list(part.parameters())[-1].fill_(torch.nan)
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="voice encoder predicts NaN .* earlier checkpoint"):
        generation.predict(broken, voices, 3, store)
    for decoder in generation.decoders_of(broken).values():
        with pytest.raises(ValueError, match="decoder makes NaN: take an earlier checkpoint"):
            generation.decode(decoder, embeddings, np.arange(6), store, "true")
    assert not list(tmp_path.rglob("*.npy"))


def test_a_checkpoint_is_told_by_its_weights_and_not_by_its_place(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "here")
    loaded, here = generation.load_checkpoint(str(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    _, there = generation.load_checkpoint(str(tmp_path / "there"))
    assert here == there == generation.checkpoint_fingerprint(pipeline)
    with torch.no_grad():
        next(loaded.unet.parameters()).view(-1)[0] += 1e-3
    assert generation.checkpoint_fingerprint(loaded) != here
    assert generation.checkpoint_fingerprint(tiny_pipeline(guidance_scale=3.0)) != here


@pytest.mark.parametrize("what", ["nothing", "empty", "cut"])
def test_a_checkpoint_that_cannot_be_had_is_refused_in_a_sentence(what, pipeline, tmp_path):
    if what == "empty":
        (tmp_path / what).mkdir()
    if what == "cut":
        pipeline.save_pretrained(tmp_path / what)
        next((tmp_path / what / "unet").glob("*.safetensors")).write_bytes(b"cut short")
    with pytest.raises(FileNotFoundError, match="cannot be loaded: give demo") as refused:
        generation.load_checkpoint(str(tmp_path / what))
    assert "\n" not in str(refused.value)


def test_demo_is_the_packages_checkpoint():
    from modeling_speech2face.pipeline_speech2face import DEMO_CHECKPOINT

    if not DEMO_CHECKPOINT.exists():
        pytest.skip("needs the demo checkpoint")
    pipeline, fingerprint = generation.load_checkpoint("demo")
    assert pipeline.voice_encoder.config.face_embedding_size == 128
    assert fingerprint == generation.load_checkpoint(str(DEMO_CHECKPOINT))[1]
