"""Arc2Face behind a voice encoder: the same classes and folders, tiny and random."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.masking_utils import create_causal_mask

from modeling_speech2face import (
    Arc2FaceProjection,
    GeneratedImage,
    Speech2FacePipeline,
    modeling_arc2face,
    read_provenance,
)
from tests.test_readme import blocks
from tests.tiny import FACE_EMBEDDING_SIZE, tiny_model

RECOGNISER = modeling_arc2face.RECOGNISER
ARC2FACE, BASE = "FoivosPar/Arc2Face", "stable-diffusion-v1-5/stable-diffusion-v1-5"
MAN = "samples/librispeech-2414.flac"
WIDTH, TOKENS = 16, 20  # of the text encoder
START, END = "<|startoftext|>", "<|endoftext|>"
# Letters, those that end a word, and the one word that is not spelt.
VOCABULARY = [*"abcdefghijklmnopqrstuvwxyz", *(f"{x}</w>" for x in "adfon"), "id</w>", START, END]
PROMPT = [START, *"phot", "o</w>", "o", "f</w>", "a</w>", "id</w>", *"perso", "n</w>"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Arc2Face and its base, laid out as their repositories are."""
    root = tmp_path_factory.mktemp("hub")
    arc2face, base = root / "Arc2Face", root / "base"
    torch.manual_seed(0)
    text_config = CLIPTextConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=VOCABULARY.index(START),
        eos_token_id=VOCABULARY.index(END),
    )
    text_encoder = CLIPTextModel(text_config)
    for parameter in text_encoder.parameters():  # as random as trained weights are: no zeros
        torch.nn.init.normal_(parameter, std=0.3)
    text_encoder.save_pretrained(arc2face / "encoder")
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
    ).save_pretrained(arc2face / "arc2face")
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    ).save_pretrained(base / "vae")
    for part in ("scheduler", "tokenizer"):
        (base / part).mkdir()
    scheduler = {  # says no more than that of Stable Diffusion 1.5: the rest is each class's own
        "_class_name": "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    }
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
    (base / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary))
    (base / "tokenizer" / "merges.txt").write_text("#version: 0.2\ni d</w>\n")
    (base / "tokenizer" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS})
    )
    return arc2face, base


@pytest.fixture(scope="module")
def pipe(folders) -> Speech2FacePipeline:
    return assembled(folders)


def assembled(folders, **options) -> Speech2FacePipeline:
    voice_encoder = tiny_model(face_recogniser=RECOGNISER)
    pipe = Speech2FacePipeline.from_arc2face(voice_encoder, *folders, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centred(rows: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, FACE_EMBEDDING_SIZE, generator=seeded(seed))


@torch.no_grad()
def encoded(folders, words: list[str], face: torch.Tensor | None = None) -> torch.Tensor:
    """Through the stored text model's own layers, (T, H), `face` (D,) in the place of "id"."""
    model = CLIPTextModel.from_pretrained(folders[0] / "encoder")
    padded = words + [END] * (TOKENS - len(words))
    embedded = model.embeddings.token_embedding.weight[
        [VOCABULARY.index(w) for w in padded]
    ].clone()
    if face is not None:
        embedded[padded.index("id</w>")] = torch.cat([face, torch.zeros(WIDTH - len(face))])
    hidden = model.embeddings(inputs_embeds=embedded[None])
    mask = create_causal_mask(
        config=model.config, inputs_embeds=hidden, attention_mask=None, past_key_values=None
    )
    hidden = model.encoder(hidden, mask, is_causal=True).last_hidden_state
    return model.final_layer_norm(hidden)[0]


def test_the_face_stands_in_the_place_of_the_word(pipe, folders):
    """With the recogniser's mean added again, at unit length, padded with zeros."""
    embeddings = centred()
    with torch.no_grad():
        tokens = pipe.embedding_projection(embeddings)
    assert tokens.shape == (2, TOKENS, WIDTH)
    mean = torch.tensor(pipe.voice_encoder.config.face_embedding_mean)
    for row, embedding in zip(tokens, embeddings, strict=True):
        face = (embedding + mean) / torch.linalg.vector_norm(embedding + mean)
        torch.testing.assert_close(row, encoded(folders, PROMPT, face))


def test_the_words_before_the_face_do_not_see_it(pipe):
    """The text encoder looks back only: the face changes its own token and all that follow."""
    with torch.no_grad():
        one, other = pipe.embedding_projection(centred())
    place = PROMPT.index("id</w>")
    torch.testing.assert_close(one[:place], other[:place])
    assert ((one - other)[place:].abs().amax(dim=-1) > 1e-3).all()


def test_only_the_direction_counts(pipe):
    projection, embeddings = pipe.embedding_projection, centred()
    mean = projection.face_embedding_mean
    with torch.no_grad():
        further = projection(3 * (embeddings + mean) - mean)
        torch.testing.assert_close(further, projection(embeddings))


def test_no_face_in_particular_is_the_empty_prompt(pipe, folders):
    with torch.no_grad():
        nobody = pipe.embedding_projection.unconditional(3)
        some = pipe.embedding_projection(centred(), torch.tensor([True, False]))
        both = pipe.embedding_projection(centred())
    torch.testing.assert_close(nobody, encoded(folders, [START]).expand(3, -1, -1))
    torch.testing.assert_close(some, torch.stack([nobody[0], both[1]]))


def test_it_is_drawn_as_its_authors_draw_it(pipe, folders):
    assert pipe.config.num_inference_steps == 25 and pipe.config.guidance_scale == 3.0
    theirs = PNDMScheduler.from_pretrained(folders[1] / "scheduler").config
    theirs = DPMSolverMultistepScheduler.from_config(theirs)
    theirs.set_timesteps(25)
    pipe.scheduler.set_timesteps(25)
    assert torch.equal(pipe.scheduler.timesteps, theirs.timesteps)
    assert torch.equal(pipe.scheduler.sigmas, theirs.sigmas)
    seen = []
    unet = pipe.unet.forward

    def watch(latents, timestep, encoder_hidden_states, **others):
        seen.append((latents, encoder_hidden_states))
        return unet(latents, timestep, encoder_hidden_states, **others)

    pipe.unet.forward = watch
    embedding = np.zeros(FACE_EMBEDDING_SIZE, np.float32)
    embedding[0] = 30.0  # as the recogniser gives it: neither centred nor of unit length
    pipe(face_embedding=embedding, num_images_per_prompt=1, generator=seeded())
    pipe.unet.forward = unet
    assert len(seen) == 25
    latents, (nobody, face) = seen[0]
    torch.testing.assert_close(latents[0], latents[1])
    torch.testing.assert_close(nobody, pipe.embedding_projection.unconditional(1)[0])
    mean = torch.tensor(pipe.voice_encoder.config.face_embedding_mean)
    with torch.no_grad():
        expected = pipe.embedding_projection(torch.tensor(embedding)[None] - mean)[0]
    torch.testing.assert_close(face, expected)


def test_a_voice_gives_faces_and_every_one_says_so(pipe, folders, tmp_path):
    options = {"num_images_per_prompt": 2, "num_inference_steps": 2}
    out = pipe(MAN, generator=seeded(5), **options)
    assert out.images[0].size == (16, 16) and out.face_embeddings.shape == (2, FACE_EMBEDDING_SIZE)
    way = pipe.interpolate([MAN, MAN], 2, num_inference_steps=2, generator=seeded(5))
    own = pipe(face_embedding=np.ones(FACE_EMBEDDING_SIZE), generator=seeded(5), **options)
    for image in [*out.images, out.average_face, out.certainty, *way.images, *own.images]:
        assert isinstance(image, GeneratedImage)
        for name in ("image.png", "image.jpg"):
            image.save(tmp_path / name)
            provenance = read_provenance(tmp_path / name)
            assert provenance["checkpoint"] == "Arc2Face" and provenance["seed"] == 5
            assert str(folders[0].parent) not in str(provenance)


def test_the_same_seed_gives_the_same_faces(pipe):
    def images(seed):
        options = {"num_images_per_prompt": 2, "num_inference_steps": 2, "output_type": "pt"}
        return pipe(MAN, generator=seeded(seed), **options).images

    assert torch.equal(images(0), images(0))
    assert not torch.allclose(images(0), images(1), atol=0.01)


def test_latents_are_scaled_and_shifted_as_the_vae_says(folders):
    pipe = assembled(folders)
    latents = torch.randn(1, 4, 8, 8, generator=seeded())
    for shift in (None, 0.25):
        pipe.vae.register_to_config(scaling_factor=0.5, shift_factor=shift)
        with torch.no_grad():
            expected = pipe.vae.decode(latents / 0.5 + (shift or 0)).sample / 2 + 0.5
            torch.testing.assert_close(pipe._decode_latents(latents), expected.clamp(0, 1))


def test_saved_and_loaded(pipe, folders, tmp_path):
    pipe.save_pretrained(tmp_path / "mine")
    files = [path for path in (tmp_path / "mine").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for path in files:
        assert path.suffix != ".json" or str(folders[0].parent) not in path.read_text()
    loaded = Speech2FacePipeline.from_pretrained(tmp_path / "mine")
    assert isinstance(loaded.embedding_projection, Arc2FaceProjection)
    assert loaded.config.num_inference_steps == 25 and loaded.config.guidance_scale == 3.0
    options = {"num_images_per_prompt": 1, "num_inference_steps": 2, "output_type": "pt"}
    expected = pipe(MAN, generator=seeded(), **options).images
    loaded.set_progress_bar_config(disable=True)
    torch.testing.assert_close(loaded(MAN, generator=seeded(), **options).images, expected)


def test_half_precision(folders):
    pipe = assembled(folders, torch_dtype=torch.bfloat16)
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.embedding_projection.dtype} == {torch.bfloat16}
    assert pipe.voice_encoder.dtype == torch.float32
    out = pipe(MAN, num_images_per_prompt=1, num_inference_steps=2, output_type="pt")
    assert torch.isfinite(out.images).all()


def test_the_text_encoder_as_it_is_published(pipe, folders, tmp_path):
    """Named as older versions of transformers name it, and in torch's format."""
    arc2face = tmp_path / "Arc2Face"
    shutil.copytree(folders[0], arc2face)
    (arc2face / "encoder" / "model.safetensors").unlink()
    weights = pipe.embedding_projection.text_encoder.state_dict()
    weights = {f"text_model.{name.removeprefix('text_model.')}": w for name, w in weights.items()}
    torch.save(weights, arc2face / "encoder" / "pytorch_model.bin")
    published = assembled((arc2face, folders[1]))
    with torch.no_grad():
        tokens = published.embedding_projection(centred())
        torch.testing.assert_close(tokens, pipe.embedding_projection(centred()))
    with pytest.raises(ValueError, match="no CLIPTextModel can be loaded from 'encoder'"):
        assembled((arc2face, folders[1]), use_safetensors=True)


def test_a_voice_encoder_of_another_teacher_is_refused(folders):
    """Before anything is loaded: neither folder exists."""
    with pytest.raises(ValueError, match="'arcface-arc2face'.*'dlib': train one") as refusal:
        Speech2FacePipeline.from_arc2face(tiny_model(), "no/folder", "no/other")
    assert str(refusal.value).count(". ") == 0 and "\n" not in str(refusal.value)


def test_a_decoder_of_another_teacher_is_refused_by_the_pipeline(pipe):
    with pytest.raises(ValueError, match="'dlib'.*'arcface-arc2face'.*same face recogniser"):
        Speech2FacePipeline(**pipe.components | {"voice_encoder": tiny_model()})


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("Arc2Face/arc2face", "no UNet2DConditionModel can be loaded from 'arc2face' of"),
        ("Arc2Face/encoder", "no CLIPTextModel can be loaded from 'encoder' of"),
        ("Arc2Face/encoder/model.safetensors", "no CLIPTextModel can be loaded"),
        ("base/vae", "no AutoencoderKL can be loaded from 'vae' of"),
        ("base/tokenizer", "tokenizer of .*base has no single token for 'id'"),
        ("base/scheduler", "no DPMSolverMultistepScheduler can be loaded from 'scheduler' of"),
    ],
)
def test_a_folder_without_a_part_is_refused(folders, tmp_path, missing, message):
    for folder in folders:
        shutil.copytree(folder, tmp_path / folder.name)
    gone = tmp_path / missing
    gone.unlink() if gone.is_file() else shutil.rmtree(gone)
    with pytest.raises(ValueError, match=message) as refusal:
        assembled((tmp_path / "Arc2Face", tmp_path / "base"))
    assert "\n" not in str(refusal.value)


def test_a_folder_that_is_not_there_is_refused(folders):
    with pytest.raises(ValueError, match="no CLIPTextModel can be loaded from 'encoder' of no"):
        assembled(("nothing", folders[1]), local_files_only=True)


def test_options_for_the_hub_reach_every_part(folders, monkeypatch):
    given, part = {}, modeling_arc2face._part

    def watch(part_class, repository, subfolder, **options):
        given[subfolder] = options
        return part(part_class, repository, subfolder, **options)

    monkeypatch.setattr(modeling_arc2face, "_part", watch)
    assembled(folders, token="hf_x", revision="a1", use_safetensors=True)
    assert set(given) == {"encoder", "arc2face", "vae", "tokenizer", "scheduler"}
    assert {options["token"] for options in given.values()} == {"hf_x"}
    assert {name for name, options in given.items() if "revision" in options} == {
        "encoder",
        "arc2face",
    }
    assert {name for name, options in given.items() if "use_safetensors" in options} == {
        "encoder",
        "arc2face",
        "vae",
    }


def test_the_readme_shows_how(folders, tmp_path, monkeypatch):
    """Run where folders are called what it calls the Hub's repositories."""
    samples = Path("samples").resolve()
    (snippet,) = blocks("python long")
    monkeypatch.chdir(tmp_path)
    Path("samples").symlink_to(samples)
    for folder, name in zip(folders, (ARC2FACE, BASE), strict=True):
        shutil.copytree(folder, name)
    tiny_model(face_recogniser=RECOGNISER).save_pretrained("runs/arcface_voice_encoder/final")
    exec(snippet, {})
    assert read_provenance("photo_like.png")["checkpoint"] == "Arc2Face"


def test_the_space_does_not_offer_it():
    sources = Path("space").glob("*.py")
    assert not [path for path in sources if "arc2face" in path.read_text().lower()]
