"""Puts a trained voice encoder and trained face decoders into one pipeline folder.

`python -m training.assemble_checkpoint VOICE_ENCODER FACE_DECODER OUTPUT`
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from training.configuration import TRAINING_FILE

MEGABYTE = 10**6
MOST_IN_ALL = 24 * MEGABYTE  # what may come with the package
MOST_IN_A_FILE = 15 * MEGABYTE


def assemble(
    voice_encoder: str | Path,
    face_decoder: str | Path,
    output: str | Path,
    num_inference_steps: int = 12,
    guidance_scale: float = 1.5,
    normalized_decoder: str | Path | None = None,
    face_traits: str | Path | None = None,
    any_size: bool = False,
) -> Path:
    """Writes a folder that `Speech2FacePipeline.from_pretrained` loads, in half precision.

    Args:
        voice_encoder: `final/` of `training.train_voice_encoder`.
        face_decoder: `final/` of `training.train_face_decoder` or `distill_face_decoder`; a `vae/`
            in it comes along.
        output: the folder, new or of an earlier pipeline, which is replaced, with its figures; a
            README.md that was written by hand is kept.
        num_inference_steps: the pipeline's default.
        guidance_scale: the pipeline's default.
        normalized_decoder: `final/` of `training.train_normalized_decoder`; without it, the
            checkpoint has no paper's decoder.
        face_traits: folder of `training.fit_face_traits`; without it, the checkpoint does not say
            in words what a voice tells.
        any_size: also if it is too large to come with the package.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: if a part is missing.
        ValueError: if the parts have different teachers, the folder would be too large, or it holds
            something else than a pipeline.
    """
    import diffusers
    import torch

    from modeling_speech2face import (
        FaceEmbeddingProjection,
        FaceTraitProbe,
        NormalizedFaceDecoder,
        Speech2FaceFeatureExtractor,
        Speech2FaceModel,
        Speech2FacePipeline,
    )
    from training.data import check_same_teacher
    from training.model_card import CARDS, is_written_by_hand, write_card

    voice_encoder, decoder, output = Path(voice_encoder), Path(face_decoder), Path(output)
    parts = (
        "unet/config.json",
        "embedding_projection/config.json",
        "scheduler/scheduler_config.json",
    )
    needed = [voice_encoder / "config.json", *(decoder / name for name in parts)]
    if normalized_decoder is not None:
        normalized_decoder = Path(normalized_decoder) / "normalized_decoder"
        needed.append(normalized_decoder / "config.json")
    if face_traits is not None:
        needed.append(Path(face_traits) / "config.json")
    for part in needed:
        if not part.is_file():
            raise FileNotFoundError(f"no {part}: train it first, or export a checkpoint of it")
    if output.is_dir() and not (output / "model_index.json").is_file():
        if {path.name for path in output.iterdir()} - {"README.md"}:
            raise ValueError(f"{output} holds other files: name a new folder, or a pipeline's")
    model = Speech2FaceModel.from_pretrained(voice_encoder, dtype=torch.float16)
    projection = FaceEmbeddingProjection.from_pretrained(
        decoder / "embedding_projection", torch_dtype=torch.float16
    )
    teachers = {
        "voice_encoder": model.config.face_recogniser,
        "face_decoder": projection.config.face_recogniser,
    }
    normalized = None
    if normalized_decoder is not None:
        normalized = NormalizedFaceDecoder.from_pretrained(
            normalized_decoder, torch_dtype=torch.float16
        )
        teachers["normalized_decoder"] = normalized.config.face_recogniser
    traits = None
    if face_traits is not None:
        traits = FaceTraitProbe.from_pretrained(face_traits)  # a few numbers: not halved
        teachers["face_traits"] = traits.config.face_recogniser
    check_same_teacher(**teachers)
    vae = None
    if (decoder / "vae").is_dir():
        vae = diffusers.AutoencoderKL.from_pretrained(decoder / "vae", torch_dtype=torch.float16)
    scheduler_config = diffusers.DDPMScheduler.load_config(decoder / "scheduler")
    scheduler_class = getattr(diffusers, scheduler_config["_class_name"])
    pipeline = Speech2FacePipeline(
        voice_encoder=model,
        feature_extractor=Speech2FaceFeatureExtractor.from_pretrained(voice_encoder),
        embedding_projection=projection,
        unet=diffusers.UNet2DConditionModel.from_pretrained(
            decoder / "unet", torch_dtype=torch.float16
        ),
        scheduler=scheduler_class.from_pretrained(decoder / "scheduler"),
        vae=vae,
        normalized_decoder=normalized,
        face_traits=traits,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
    )
    work = output.with_name(output.name + ".part")
    shutil.rmtree(work, ignore_errors=True)
    pipeline.save_pretrained(work)
    forget_folders(work)
    trained = {"voice_encoder": voice_encoder, "face_decoder": decoder}
    if normalized_decoder is not None:
        trained["normalized_decoder"] = normalized_decoder.parent
    keep_trainings(trained, work)
    try:
        if not any_size:
            check_size(work)
    except ValueError:
        shutil.rmtree(work)
        raise
    if is_written_by_hand(output / "README.md"):
        shutil.copy(output / "README.md", work)
    else:
        said = {"name": output.name, "trained_on": steps_and_speakers(voice_encoder)}
        write_card(work, {}, CARDS / "checkpoint.md", **said)
    shutil.rmtree(output, ignore_errors=True)
    work.rename(output)
    return output


def keep_trainings(parts: dict[str, Path], folder: Path) -> None:
    """Gathers how the parts were trained, as far as their folders say."""
    told = {
        name: json.loads((part / TRAINING_FILE).read_text())
        for name, part in parts.items()
        if (part / TRAINING_FILE).is_file()
    }
    if told:
        (folder / TRAINING_FILE).write_text(json.dumps(told, indent=2) + "\n")


def steps_and_speakers(voice_encoder: Path) -> str | None:
    """What the training's own validation says of it, for the card; None where there is none."""
    path = voice_encoder / "validation.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    if "steps" not in known or "speakers" not in known:
        return None
    return (
        f"The voice encoder took {known['steps']:,} steps and was calibrated on "
        f"{known['speakers']:,} validation speakers."
    )


def forget_folders(folder: Path) -> None:
    """Takes the training machine's paths out of the parts' configurations."""
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n")


def check_size(folder: Path) -> None:
    """Refuses a checkpoint that is too large to come with the package."""
    sizes = sizes_of(folder)
    largest = max(sizes, key=sizes.get)
    if sizes[largest] > MOST_IN_A_FILE:
        raise ValueError(
            f"{largest.relative_to(folder)} has {sizes[largest] / MEGABYTE:.1f} MB, more than "
            f"{MOST_IN_A_FILE // MEGABYTE}: train a smaller model, or assemble it with --any-size"
        )
    if sum(sizes.values()) > MOST_IN_ALL:
        raise ValueError(
            f"the checkpoint has {sum(sizes.values()) / MEGABYTE:.1f} MB, more than "
            f"{MOST_IN_ALL // MEGABYTE}: train smaller models, or assemble them with --any-size"
        )


def sizes_of(folder: Path) -> dict[Path, int]:
    """Every file of a folder, and its bytes."""
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Join voice encoder and face decoders.")
    parser.add_argument("voice_encoder", help="final/ of the voice encoder")
    parser.add_argument("face_decoder", help="final/ of the face decoder")
    parser.add_argument("output", help="folder of the pipeline")
    parser.add_argument(
        "--normalized-decoder",
        metavar="FOLDER",
        help="final/ of the paper's decoder, if there is one",
    )
    parser.add_argument(
        "--face-traits",
        metavar="FOLDER",
        help="of python -m training.fit_face_traits, if what a voice tells shall be said in words",
    )
    parser.add_argument("--steps", type=int, default=12, help="default denoising steps")
    parser.add_argument("--guidance-scale", type=float, default=1.5, help="default guidance")
    parser.add_argument(
        "--any-size", action="store_true", help="also if it is too large to come with the package"
    )
    options = parser.parse_args(arguments)
    try:
        folder = assemble(
            options.voice_encoder,
            options.face_decoder,
            options.output,
            options.steps,
            options.guidance_scale,
            options.normalized_decoder,
            options.face_traits,
            options.any_size,
        )
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"{error}\n")
    print(f"{folder}: {sum(sizes_of(folder).values()) / MEGABYTE:.1f} MB")


if __name__ == "__main__":
    main()
