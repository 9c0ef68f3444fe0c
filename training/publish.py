"""Publishes a checkpoint on the Hugging Face Hub, and if asked its Space and its data set.

`python -m training.publish CHECKPOINT REPO --licence ID --trained-on "..." [--private]
[--remote-code] [--space] [--dataset FOLDER --rights "..."]`

All are pushed under one name, each in one commit. The same command can be run again: what has not
changed is not pushed anew.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from inspect import signature
from pathlib import Path

from training.configuration import TRAINING_FILE
from training.hub import check_can_push, first_line, push_files
from training.model_card import (
    checkpoint_facts,
    is_written_by_hand,
    named_results,
    render_card,
    template_of,
    weights_of,
)

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_SEED = 0
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5"}
WEIGHTS = PICKLES | {".safetensors", ".onnx", ".gguf"}
# What else `save_pretrained` writes into a part's folder, and `from_pretrained` reads.
PART_FILES = re.compile(
    r"(config|(preprocessor|scheduler|tokenizer|generation)_config|tokenizer|vocab|added_tokens"
    r"|special_tokens_map|(model|diffusion_pytorch_model)\.safetensors\.index)\.json|merges\.txt"
)
SPACE_FILES = re.compile(
    r"app\.py|__init__\.py|README\.md|requirements\.txt|packages\.txt|page/\w+\.(py|css)"
    r"|gallery/(gallery\.safetensors|faces\.jpg|README\.md)"
    r"|examples/(librispeech-\d+\.flac|README\.md)"  # no recording that somebody tried
)
MOST_NAMED = 5  # of the files that are left out
# What earlier commands may have pushed: it goes when a checkpoint has it no more.
SAMPLES = "samples/*"
OURS = ("training.json", "results.json", "results_*.json", SAMPLES)  # and parts, and code
OURS_OF_A_SPACE = ("modeling_speech2face/*", "page/*", "gallery/*", "examples/*")
LEAST_WORDS = 20  # characters: a sentence, not a tick
CHECKPOINT_VARIABLE = "SPEECH2FACE_CHECKPOINT"  # from which the Space knows what to load


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a checkpoint that are published: its parts, its figures, how it was trained.

    Args:
        folder: of the pipeline.

    Returns:
        Files by their paths in the repository.

    Raises:
        FileNotFoundError: if it is no pipeline's folder, or a part is missing.
        ValueError: if a part has weights, and not as safetensors.
    """
    parts = checkpoint_facts(folder)["parts"]  # refuses what is no pipeline
    files = {path.name: path for path in [folder / "model_index.json", folder / TRAINING_FILE]}
    files |= {path.name: path for path in sorted(folder.glob("results*.json"))}
    files = {name: path for name, path in files.items() if path.is_file()}
    for part, _, _ in parts:
        there = sorted((folder / part).glob("*"))
        weights = weights_of(folder / part)
        found = [path for path in there if PART_FILES.fullmatch(path.name)] + weights
        pickles = [path for path in there if path.suffix in PICKLES]
        if pickles and not weights:
            raise ValueError(
                f"{pickles[0]} may hold code: publish safetensors only, as save_pretrained writes"
            )
        if not found:
            raise FileNotFoundError(f"{folder / part} is missing: assemble the checkpoint again")
        files |= {f"{part}/{path.name}": path for path in found}
    return files


def left_out(folder: Path, published: Iterable[str]) -> str:
    """A sentence about the files of a folder that are not published; "" if all are.

    Args:
        folder: from which it is published.
        published: paths in it.
    """
    there = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    names = {path.as_posix() for path in there if "__pycache__" not in path.parts}
    names = sorted(names - {*published})
    if not names:
        return ""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"left out of what is pushed from {folder}: {', '.join(names[:MOST_NAMED])}{more}"


def load(folder: Path):
    """The pipeline as a user will load it, and its fingerprint.

    Raises:
        ValueError: if it does not load.
    """
    from training.evaluation.generation import load_checkpoint

    try:
        return load_checkpoint(str(folder))
    except Exception as error:  # of several libraries, which know many ways to be broken
        line = first_line(error.__cause__ or error)
        raise ValueError(
            f"{folder} does not load, so it is not published: assemble it again ({line})"
        ) from error


def check_results(folder: Path, fingerprint: str) -> None:
    """Refuses figures of other weights.

    Raises:
        ValueError: if there are any.
    """
    for name, results in named_results(folder).items():
        if isinstance(results, list):
            continue
        if fingerprint not in {row["fingerprint"] for row in results.about["checkpoints"]}:
            raise ValueError(
                f"the figures {name!r} in {folder} are of other weights: evaluate these, python -m "
                "training.evaluation --checkpoint, and python -m training.model_card --results"
            )


def card_of(folder: Path, repo: str, **said) -> str:
    """The card to publish: the one written by hand, or rendered anew.

    Args:
        folder: of the pipeline.
        repo: its name on the Hub.
        said: licence, trained_on, fingerprint, samples and with_code, for the template.

    Raises:
        ValueError: if the card does not say under which licence the checkpoint may be used, or on
            whose voices and faces it was trained.
    """
    from huggingface_hub import ModelCard

    card, template = folder / "README.md", template_of(folder)
    if is_written_by_hand(card):
        text = card.read_text(encoding="utf-8")
        if not ModelCard(text).data.license:
            raise ValueError(f"{card} names no licence: write `license: ...` into its head")
        return text
    if template.name == "checkpoint.md":
        if not said["licence"]:
            raise ValueError("say under which licence it may be used: --licence apache-2.0")
        if len((said["trained_on"] or "").strip()) < LEAST_WORDS:
            raise ValueError(
                'voices and faces are biometric data: state with --trained-on "..." whose they '
                "were, and by what right they were used"
            )
    facts = checkpoint_facts(folder) | {"repo": repo} | said
    return render_card(template, named_results(folder), **facts)


def published_samples(repo: str, fingerprint: str) -> list[str]:
    """The sample images that are there already, if these very weights drew them.

    Raises:
        ValueError: if another model is there, whose weights would be taken for ours.
    """
    import yaml
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    api, files, published = HfApi(), [], None
    try:
        files = api.list_repo_files(repo)
        card = Path(api.hf_hub_download(repo, "README.md")).read_text(encoding="utf-8")
        published = yaml.safe_load(card.split("---\n")[1])["speech2face"]["fingerprint"]
    except (HTTPError, OSError, LookupError, TypeError, ValueError, yaml.YAMLError):
        pass  # nothing there, or nothing that says what drew it: they are drawn
    if published is None and any(Path(file).suffix in WEIGHTS for file in files):
        raise ValueError(f"{repo} holds another model: name another repository")
    if published != fingerprint:
        return []
    return sorted(file for file in files if file.startswith("samples/"))


def draw_samples(pipeline, voices: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Draws a sheet of faces for each recording.

    Args:
        pipeline: what draws them.
        voices: recordings that may be published with what is drawn from them.
        folder: where to.

    Returns:
        The sheets by their paths in the repository.
    """
    import torch

    from modeling_speech2face import contact_sheet, save_image

    sheets = {}
    for voice in voices:
        generator = torch.Generator().manual_seed(SAMPLE_SEED)
        sheet = contact_sheet(pipeline(voice, num_images_per_prompt=4, generator=generator))
        save_image(sheet, folder / f"{voice.stem}.png")
        sheets[f"samples/{voice.stem}.png"] = folder / f"{voice.stem}.png"
    return sheets


def checkpoint_files(
    folder: Path, repo: str, options: argparse.Namespace, work: Path
) -> tuple[dict[str, Path | str], list[str]]:
    """All that is pushed of a checkpoint: its files, its card, sample images, perhaps its code.

    Args:
        folder: of the pipeline.
        repo: OWNER/NAME on the Hub.
        options: licence, trained_on and remote_code, as the command line has them.
        work: where images are drawn.

    Returns:
        A file or a text by its path; and patterns of what else goes, if it is there.

    Raises:
        FileNotFoundError, ValueError: if it is not whole, or not fit to be published.
    """
    from modeling_speech2face import code_of

    files = files_of(folder)
    index = json.loads(files["model_index.json"].read_text(encoding="utf-8"))
    if not (options.remote_code or isinstance(index["_class_name"], str)):
        raise ValueError(f"{folder} was saved with code: add --remote-code")
    said = {"licence": options.licence, "trained_on": options.trained_on}
    said["with_code"] = options.remote_code
    card_of(folder, repo, **said)  # refused before anything takes time
    pipeline, fingerprint = load(folder)
    check_results(folder, fingerprint)
    samples = published_samples(repo, fingerprint)
    parts = [f"{part}/*" for part in signature(type(pipeline).__init__).parameters]
    code = [path.name for path in sorted((ROOT / "modeling_speech2face").glob("*.py"))]
    delete = [pattern for pattern in OURS if not (samples and pattern == SAMPLES)] + parts + code
    if not samples:
        sheets = draw_samples(pipeline, sorted((ROOT / "samples").glob("*.flac")), work)
        files, samples = files | sheets, list(sheets)
    if options.remote_code:
        files |= code_of(folder)
    card = card_of(folder, repo, fingerprint=fingerprint, samples=samples, **said)
    return files | {"README.md": card}, delete


def publish_space(repo: str, private: bool) -> tuple[str, bool]:
    """Pushes the web page, which loads the checkpoint of the same name.

    Args:
        repo: OWNER/NAME on the Hub, of both.
        private: whether only its owner is to see it.

    Returns:
        The address, and whether anything was new.

    Raises:
        RuntimeError: if the Hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    api, files = HfApi(), space_files(repo)
    tell(left_out(ROOT / "space", files))
    try:
        api.create_repo(repo, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        told = api.get_space_variables(repo).get(CHECKPOINT_VARIABLE)
        if told is None or told.value != repo:  # telling it anew would start it anew
            api.add_space_variable(repo, CHECKPOINT_VARIABLE, repo)
    except (HTTPError, OSError) as error:
        raise RuntimeError(f"the Hub refused the Space {repo} ({first_line(error)})") from error
    return push_files(repo, files, "The web page of Speech2Face", "space", private, OURS_OF_A_SPACE)


def space_files(repo: str) -> dict[str, Path | str]:
    """What belongs to the page in the folder `space/`, and the package without its weights.

    Args:
        repo: the checkpoint that the Space's head names.

    Returns:
        A file or a text by its path in the Space.
    """
    space, package = ROOT / "space", ROOT / "modeling_speech2face"
    names = [path.relative_to(space).as_posix() for path in sorted(space.rglob("*"))]
    files = {name: space / name for name in names if SPACE_FILES.fullmatch(name)}
    files |= {f"{package.name}/{path.name}": path for path in sorted(package.glob("[!.]*.py"))}
    _, head, text = files["README.md"].read_text(encoding="utf-8").split("---\n", 2)
    return files | {"README.md": f"---\n{head}models:\n- {repo}\n---\n{text}"}


def publish_dataset(folder: Path, repo: str, rights: str | None) -> None:
    """Pushes a data set, private, by its own command, which says what it does.

    Args:
        folder: of the data set.
        repo: OWNER/NAME on the Hub.
        rights: by what right it may be passed on; None leaves what its card says.

    Raises:
        RuntimeError: if it was not pushed.
    """
    command = [sys.executable, "-m", "dataset_scripts.publishing", str(folder), repo]
    command += ["--rights", rights] if rights else []
    if subprocess.run(command, cwd=ROOT).returncode:
        raise RuntimeError("the data set was not pushed, and so nothing was")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.publish",
        description="Publish a checkpoint, its Space and its data set on the Hugging Face Hub.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="its folder")
    parser.add_argument("repo", metavar="REPO", help="OWNER/NAME on the Hub")
    parser.add_argument("--licence", metavar="ID", help="of the weights, for example apache-2.0")
    parser.add_argument(
        "--trained-on", metavar="TEXT", help="on whose voices and faces, and by what right"
    )
    parser.add_argument("--private", action="store_true", help="only its owner is to see it")
    parser.add_argument(
        "--remote-code",
        action="store_true",
        help="with the code that loads it where this package is not installed",
    )
    parser.add_argument("--space", action="store_true", help="also the web page, which loads it")
    parser.add_argument("--dataset", type=Path, metavar="FOLDER", help="also its data set, private")
    parser.add_argument(
        "--rights", metavar="TEXT", help="by what right the data set may be passed on"
    )
    options = parser.parse_args(arguments)
    try:
        if options.rights and not options.dataset:
            raise ValueError("--rights are those of a data set: add --dataset FOLDER")
        repo, private = check_can_push(options.repo, options.private), options.private
        with tempfile.TemporaryDirectory() as work:
            files, gone = checkpoint_files(options.checkpoint, repo, options, Path(work))
            tell(left_out(options.checkpoint, files))
            if options.dataset:
                publish_dataset(options.dataset.resolve(), repo, options.rights)
            say(*push_files(repo, files, "Speech2Face checkpoint", "model", private, gone))
        if options.space:
            say(*publish_space(repo, private))
            if private:
                print("The Space cannot read a private checkpoint: give it a secret HF_TOKEN.")
    except KeyError as error:  # a template names a figure that the results do not have
        parser.exit(2, f"{error.args[0]}\n")
    except (OSError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    except RuntimeError as error:
        parser.exit(1, f"{error}\n")


def tell(sentence: str) -> None:
    if sentence:
        print(sentence, file=sys.stderr, flush=True)


def say(address: str, is_new: bool) -> None:
    print(f"{address}: {'pushed' if is_new else 'nothing has changed'}", flush=True)


if __name__ == "__main__":
    main()
