"""A checkpoint goes to a Hub with its Space and its data set, and others get it from there."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dataset_scripts.speech_face_pairs import main as build_pairs
from modeling_speech2face import code_of
from tests.conftest import ROOT
from tests.fake_extraction import fake_extract
from tests.fake_results import results
from tests.local_hub import READ_TOKEN, TOKEN, HubSession, LocalHub
from tests.space_server import started
from tests.test_remote_code import NO_PACKAGE
from tests.test_speech_face_pairs import make_films
from tests.tiny import tiny_pipeline
from tests.training_cast import write_cast
from training.model_card import DEMO
from training.publish import card_of, files_of, left_out, space_files

REPO = "somebody/faces"
SAID = ["--licence", "mit", "--trained-on", "Random numbers, of nobody, by nobody's right."]


def keep_results(folder: Path):
    """Puts figures beside a pipeline, as if they were measured of it; returns them."""
    from training.model_card import fingerprint_of

    found = results()
    found.about["checkpoints"][0]["fingerprint"] = fingerprint_of(folder)
    found.save(folder)
    (folder / "charts.json").unlink()  # of a report
    return found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A pipeline, evaluated, and how a part of it was trained."""
    from training.configuration import VoiceEncoderTraining

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    tiny_pipeline(with_normalized_decoder=True, with_face_traits=True).save_pretrained(folder)
    keep_results(folder)
    trained = folder.parent / "voice"
    trained.mkdir()
    VoiceEncoderTraining(dataset=str(folder.parent / "pairs"), steps=7).keep_beside(trained)
    told = json.loads((trained / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps({"voice_encoder": told}))
    return folder


@pytest.fixture
def hub():
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def session(hub, tmp_path):
    with HubSession(hub, tmp_path / "home") as session:
        yield session


@pytest.mark.slow
def test_a_checkpoint_is_published_once_and_a_broken_upload_changes_nothing(
    hub, session, checkpoint, tmp_path
):
    status, out, _ = session.command("training.publish", checkpoint, REPO, *SAID)
    assert status == 0 and out == f"{hub.url}/{REPO}: pushed\n"
    repo = hub.repos["model", REPO]
    assert not repo.private and len(repo.versions) == 2  # it began empty
    pushed = {p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file()}
    sheets = {f"samples/{voice.stem}.png" for voice in (ROOT / "samples").glob("*.flac")}
    assert repo.files() == pushed | sheets | {"README.md"}

    card = hub.read("model", REPO, "README.md").decode()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "mit" and head["model-index"][0]["results"]
    assert f'from_pretrained("{REPO}")' in card and "Random numbers, of nobody" in card
    assert "| `voice_encoder` | `" in card and "/pairs` | 7 x 32 | 0.001 |" in card
    assert str(checkpoint.parent) not in card  # where it was made is nobody's business
    assert "By gender, as labelled or judged:" in card and "| female | male |" in card
    assert all(f"]({sheet})" in card for sheet in sheets)

    # The same again makes no commit, and draws nothing.
    status, out, _ = session.command("training.publish", checkpoint, REPO, *SAID)
    assert status == 0 and out == f"{hub.url}/{REPO}: nothing has changed\n"
    assert len(repo.versions) == 2

    # Other weights, without a part; and an upload that breaks in each of its places.
    other = tmp_path / "other"
    tiny_pipeline(seed=1).save_pretrained(other)
    before = (repo.revision, dict(repo.versions[-1]))
    for request in ("PUT /lfs/.*", "POST .*/commit/main", "POST .*/objects/batch"):
        hub.breaks = {request: 403}
        status, out, error = session.command("training.publish", other, REPO, *SAID)
        assert status == 1 and not out, request
        assert error.startswith(f"the Hub refused {REPO}, and what was published there is as it")
        assert (repo.revision, repo.versions[-1]) == before
    hub.breaks = {}
    status, out, _ = session.command("training.publish", other, REPO, *SAID)
    assert status == 0 and "pushed" in out and len(repo.versions) == 3
    gone = pushed - {p.relative_to(other).as_posix() for p in other.rglob("*") if p.is_file()}
    assert "normalized_decoder/config.json" in gone and not gone & repo.files()
    card = hub.read("model", REPO, "README.md").decode()
    assert "Not evaluated yet" in card and "model-index" not in card


def test_what_cannot_be_published_is_one_sentence(hub, session, checkpoint, tmp_path):
    def broken(name: str) -> Path:
        return Path(shutil.copytree(checkpoint, tmp_path / name))

    pickled = broken("pickled")
    weights = pickled / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    headless = broken("headless")
    shutil.rmtree(headless / "voice_encoder")
    partless = broken("partless")
    shutil.rmtree(partless / "scheduler")
    truncated = broken("truncated")
    weights = truncated / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    others = broken("others")
    results().save(others)
    coded = broken("coded")
    for name, text in code_of(coded).items():
        (coded / name).write_text(text)
    assert code_of(coded) == {name: (coded / name).read_text() for name in code_of(coded)}
    by_hand = broken("by_hand")
    (by_hand / "README.md").write_text("---\ntags:\n- mine\n---\n# Mine\n")
    for arguments, token, words in (
        ([checkpoint, REPO, *SAID], None, "nobody is logged in to the Hub: run `hf auth login`"),
        ([checkpoint, REPO, *SAID], READ_TOKEN, "your token may only read: make one that may"),
        (
            [checkpoint, REPO, *SAID],
            "hf_wrong",
            "the Hub does not answer as it should: Invalid user token",
        ),
        ([checkpoint, "else/faces", *SAID], TOKEN, "'else' is not yours to push to: name it some"),
        ([checkpoint, "some body/x!", *SAID], TOKEN, "'some body/x!' is no name for a repository"),
        ([checkpoint, REPO], TOKEN, "say under which licence it may be used: --licence"),
        ([checkpoint, REPO, *SAID[:2]], TOKEN, 'state with --trained-on "..." whose they were'),
        ([checkpoint, REPO, *SAID, "--rights", "x"], TOKEN, "add --dataset FOLDER"),
        ([tmp_path / "no", REPO, *SAID], TOKEN, "is no pipeline: make one with"),
        ([pickled, REPO, *SAID], TOKEN, "may hold code: publish safetensors only"),
        ([headless, REPO, *SAID], TOKEN, "voice_encoder"),
        ([partless, REPO, *SAID], TOKEN, "scheduler is missing: assemble the checkpoint again"),
        ([truncated, REPO, *SAID], TOKEN, "does not load, so it is not published: assemble it"),
        ([others, REPO, *SAID], TOKEN, "the figures 'cast' in"),
        ([coded, REPO, *SAID], TOKEN, "was saved with code: add --remote-code"),
        ([by_hand, REPO, *SAID], TOKEN, "names no licence: write `license: ...` into its head"),
    ):
        status, out, error = session.command("training.publish", *arguments, token=token)
        assert status == 2 and words in error and not out, (arguments, error)
    assert not hub.repos


def test_what_does_not_belong_there_stays_and_is_named(checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "littered"
    shutil.copytree(checkpoint, folder)
    belongs = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(files_of(folder)) == belongs and left_out(folder, belongs) == ""
    litter = [".env", "optimizer.bin", "unet/.config.json.swp", "unet/config.json~"]
    litter += ["unet/diffusion_pytorch_model.bin", "unet/model.bak.safetensors"]
    litter += ["unet/old/config.json", "voice_encoder/random_states_0.pkl"]
    for name in litter:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    assert set(files_of(folder)) == belongs
    said = left_out(folder, files_of(folder))
    assert said.endswith(f": {', '.join(litter[:5])} and 3 more") and str(folder) in said

    root = tmp_path / "clone"
    ignored = shutil.ignore_patterns("__pycache__", "demo_checkpoint")
    for part in ("space", "modeling_speech2face"):
        shutil.copytree(ROOT / part, root / part, ignore=ignored)
    monkeypatch.setattr("training.publish.ROOT", root)
    files = space_files(REPO)
    assert left_out(root / "space", files) == ""  # nothing that is in this folder is missing there
    for name in (".env", "app.py~", "examples/me.flac", "page/.texts.py.swp", "page/__pycache__/a"):
        (root / "space" / name).parent.mkdir(exist_ok=True)
        (root / "space" / name).write_text("mine")
    (root / "modeling_speech2face" / ".#audio.py").write_text("mine")
    assert set(space_files(REPO)) == set(files)
    said = left_out(root / "space", files)
    assert said.endswith(": .env, app.py~, examples/me.flac, page/.texts.py.swp")


def test_the_demos_card_says_where_it_is():
    card = card_of(DEMO, REPO, licence=None, trained_on=None, with_code=True, samples=["a.png"])
    assert f'Speech2FacePipeline.from_pretrained("{REPO}")' in card and "from_demo" not in card
    assert "![faces of nobody](a.png)" in card and f'"{REPO}", {{"trust_remote_code"' in card
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "apache-2.0"


WITHOUT_THE_PACKAGE = (
    NO_PACKAGE
    + """
import torch
from diffusers import DiffusionPipeline
from transformers import AutoFeatureExtractor, AutoModel

repo, voice, result = sys.argv[1:]
trust = {"trust_remote_code": True}
try:
    DiffusionPipeline.from_pretrained(repo)
except ValueError as error:
    assert "trust_remote_code" in str(error), error
else:
    raise SystemExit("its code was run without being trusted")
pipe = DiffusionPipeline.from_pretrained(repo, dtype=torch.float32, **trust)
parts = pipe.components.values()
assert {part.dtype for part in parts if hasattr(part, "dtype")} == {torch.float32}
faces = pipe(voice, generator=torch.Generator().manual_seed(0), output_type="pt")
encoder = AutoModel.from_pretrained(repo, subfolder="voice_encoder", dtype=torch.float32, **trust)
extractor = AutoFeatureExtractor.from_pretrained(repo, subfolder="feature_extractor", **trust)
speech = torch.sin(torch.arange(8000) / 9)
inputs = extractor(speech, sampling_rate=16000, return_tensors="pt")
embedding = encoder(**inputs).face_embeddings.detach()
torch.save({"faces": faces.images, "told": faces.told, "embedding": embedding}, result)
"""
)
WITH_THE_PACKAGE = """
import sys, torch
from modeling_speech2face import Speech2FacePipeline
repo, voice, result = sys.argv[1:]
pipe = Speech2FacePipeline.from_pretrained(repo)
assert type(pipe.voice_encoder).__module__ == "modeling_speech2face.modeling_speech2face"
foreign = ("diffusers_modules", "transformers_modules")
assert not [name for name in sys.modules if name.startswith(foreign)]
faces = pipe(voice, generator=torch.Generator().manual_seed(0), output_type="pt")
torch.save({"faces": faces.images, "told": faces.told}, result)
"""


@pytest.mark.slow
def test_others_load_it_without_the_package_and_its_space_starts(
    hub, session, tmp_path, sample_recording
):
    import torch

    from modeling_speech2face import Speech2FacePipeline

    folder = tmp_path / "tiny"
    kept = tiny_pipeline(
        face_embedding_size=128, with_normalized_decoder=True, with_face_traits=True
    )
    for part in kept.components.values():
        if isinstance(part, torch.nn.Module):
            part.half()  # as `training.assemble_checkpoint` keeps it
    kept.save_pretrained(folder)
    measured = keep_results(folder)
    publish = [folder, REPO, *SAID, "--remote-code", "--space", "--private"]
    status, out, _ = session.command("training.publish", *publish)
    assert status == 0 and "give it a secret HF_TOKEN" in out
    assert out.count(": pushed\n") == 2 and f"{hub.url}/spaces/{REPO}: pushed" in out
    model, space = hub.repos["model", REPO], hub.repos["space", REPO]
    assert model.private and space.private and space.variables == {"SPEECH2FACE_CHECKPOINT": REPO}
    revisions = model.revision, space.revision
    assert session.command("training.publish", *publish)[1].count("nothing has changed") == 2
    assert (model.revision, space.revision) == revisions
    model.private = False
    status, _, error = session.command("training.publish", *publish)
    assert status == 2 and f"{REPO} is public already: make it private" in error
    model.private = True

    results = {}
    for name, script, isolated in (
        ("without", WITHOUT_THE_PACKAGE, ["-I"]),
        ("with", WITH_THE_PACKAGE, []),
    ):
        (tmp_path / f"{name}.py").write_text(script)
        arguments = [tmp_path / f"{name}.py", REPO, sample_recording, tmp_path / f"{name}.pt"]
        run = subprocess.run(
            [sys.executable, *isolated, *arguments],
            cwd=tmp_path,
            env=hub.environment(tmp_path / name) | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        results[name] = torch.load(tmp_path / f"{name}.pt")
    here = Speech2FacePipeline.from_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    expected = here(sample_recording, generator=generator, output_type="pt")
    for found in results.values():
        torch.testing.assert_close(found["faces"], expected.images)
        assert found["told"] == expected.told
    inputs = here.feature_extractor(torch.sin(torch.arange(8000) / 9), 16000, return_tensors="pt")
    embedding = here.voice_encoder(**inputs).face_embeddings
    torch.testing.assert_close(results["without"]["embedding"], embedding.detach())

    page = tmp_path / "page"  # as the Hub lays it out, and alone
    for path in space.files():
        (page / path).parent.mkdir(parents=True, exist_ok=True)
        (page / path).write_bytes(hub.read("space", REPO, path))
    head = yaml.safe_load((page / "README.md").read_text().split("---\n")[1])
    assert head["models"] == [REPO] and head["sdk"] == "gradio"
    assert not list((page / "modeling_speech2face").rglob("*.safetensors"))  # but what was pushed
    hub.requests.clear()
    environment = hub.environment(tmp_path / "space") | space.variables
    environment.pop("PYTHONPATH", None)
    weights = f"GET /{REPO}/resolve/[0-9a-f]+/unet/diffusion_pytorch_model.safetensors"
    with started([head["app_file"]], page, environment) as (_, answer):
        components = json.loads(answer)["components"]
        patience = time.monotonic() + 300  # seconds: it answers before it loads
        while not any(re.fullmatch(weights, request) for request in list(hub.requests)):
            assert time.monotonic() < patience, hub.requests
            time.sleep(0.5)
    texts = [str(part["props"].get("value")) for part in components]
    (table,) = [text for text in texts if "<caption>" in text]
    auc = measured.find(table="association", kind="embeddings", system="voice, 6 s", measure="auc")
    low, high = auc.interval
    assert f"<td>{auc.value:.0%} ({low:.0%} to {high:.0%})</td>" in table
    assert f"Measured on {auc.speakers} speakers of the data" in table


CAST_HEAD = "speech2face:\n  builder: dataset_scripts.synthetic_cast\n"
LOAD_DATASET = """
import json, datasets
whole = datasets.load_dataset("somebody/faces")
parts = datasets.load_dataset("somebody/faces", split="train", streaming=True)
rows = [(row["pair_id"], row["face"].size, len(row["audio"]["bytes"])) for row in parts]
print(json.dumps([{split: len(whole[split]) for split in whole}, rows]))
"""


@pytest.mark.slow
def test_a_data_set_is_pushed_by_its_own_command_and_loads(hub, checkpoint, tmp_path):
    films = make_films(tmp_path / "films", {f"{k}.mp4": f"person:p{k}" for k in range(9)})
    pairs = tmp_path / "pairs"
    arguments = ["folder", str(films), "--output", str(pairs), "--workers", "1"]
    assert build_pairs(arguments, extract=fake_extract) == 0
    cast = write_cast(tmp_path / "cast")
    card = (cast / "README.md").read_text().replace("speech2face:\n", CAST_HEAD)
    (cast / "README.md").write_text(card)

    def run(*command):
        return subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=hub.environment(tmp_path / "home"),
            capture_output=True,
            text=True,
        )

    publish = ["-m", "training.publish", checkpoint, REPO, *SAID, "--dataset"]
    for folder, words in ((tmp_path, "holds no finished data set"), (pairs, "state with --rights")):
        refused = run(*publish, folder)
        assert refused.returncode == 1 and not hub.repos
        said = refused.stderr.strip().splitlines()[-2:]
        assert words in said[0] and said[1] == "the data set was not pushed, and so nothing was"
    done = run(*publish, pairs, "--rights", "Everybody in it agreed, in writing.")
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/datasets/{REPO}\n" in done.stdout
    dataset = hub.repos["dataset", REPO]
    assert dataset.private and not hub.repos["model", REPO].private
    loaded = run("-c", LOAD_DATASET)
    assert loaded.returncode == 0, loaded.stderr
    counts, rows = json.loads(loaded.stdout.splitlines()[-1])
    assert set(counts) == {"train", "validation", "test"} and len(rows) == counts["train"]
    assert all(size == [224, 224] and length > 1000 for _, size, length in rows)

    # A cast states its rights itself.
    push = ["-m", "dataset_scripts.publishing", cast, "somebody/cast"]
    refused = run(*push, "--rights", "Everybody in it was invented.")
    assert refused.returncode == 1 and "a cast's card states its rights itself" in refused.stderr
    assert run(*push).returncode == 0
    repo = hub.repos["dataset", "somebody/cast"]
    assert repo.private and repo.files() == {path.name for path in cast.iterdir()}
