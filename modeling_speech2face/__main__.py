"""The `speech2face` command: recordings in, pictures of imagined faces out.

`speech2face verify` reads what such a picture carries.
"""

import argparse
import math
import sys
import textwrap
import warnings
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv (`list[str]`, *optional*): its arguments; those of the process if None.

    Returns:
        `int`: 0 if there are pictures for every voice, 1 if one or more voices failed; of
        `speech2face verify`, what its help says.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["verify"]:
        return _verify(argv[1:])
    arguments = _parse(argv)
    try:
        if not arguments.interpolate:
            _refuse_equal_names(arguments.voices, arguments.num_images or 4)
        _make_folder(arguments.output)
        arguments.signing_key = _load_signing_key(arguments)
        pipeline = _load_pipeline(arguments)
    except (OSError, ValueError) as error:
        print(f"speech2face: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1

    from tqdm import tqdm

    from .audio import AudioCutWarning

    tasks = [arguments.voices] if arguments.interpolate else [[v] for v in arguments.voices]
    failures = 0
    for task in tqdm(tasks, unit="voice", disable=len(tasks) == 1):
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("ignore")  # the libraries' are not for the user
                warnings.simplefilter("always", AudioCutWarning)
                _imagine(pipeline, task, arguments)
            for warning in caught:
                tqdm.write(f"speech2face: {warning.message}", file=sys.stderr)
        except (OSError, ValueError, ImportError) as error:
            failures += 1
            message, names = str(error), " and ".join(map(str, task))
            message = (
                message if message.startswith(tuple(map(str, task))) else f"{names}: {message}"
            )
            tqdm.write(f"speech2face: {message}", file=sys.stderr)
    return 1 if failures else 0


def _verify(argv: list[str]) -> int:
    """Says of images what they carry and what it proves."""
    parser = argparse.ArgumentParser(
        prog="speech2face verify",
        description="Reads what images say about their making, as text and as a C2PA signature, "
        "and says what it proves. Nothing is fetched from the network.",
        epilog="Exit status: 0 if every image has a valid signature which says that Speech2Face "
        "made it (with --trust: by a certificate that you trust); 1 if an image or --trust cannot "
        "be read; 3 if a signature is broken: the file was changed after it, or it is invalid; 4 "
        "if an image has no such signature, whatever its text says; of several images, the lowest "
        "of these above 0. 2 for wrong options.",
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="PNG, JPEG, WebP...")
    parser.add_argument(
        "--trust",
        metavar="PEM",
        help="certificates that you trust, of signers or of authorities; none is trusted otherwise",
    )
    arguments = parser.parse_args(argv)
    from .verification import WHAT_IT_PROVES, verify_image

    statuses, is_any_read = set(), False
    for path in arguments.images:
        try:
            found = verify_image(path, arguments.trust)
        except ValueError as error:
            print(f"speech2face: {error}", file=sys.stderr)
            statuses.add(1)
            continue
        is_any_read = True
        print(f"{path}:", *found.sentences(), sep="\n  ")
        if found.signature in ("changed", "invalid"):
            statuses.add(3)
        elif not found.signed or (arguments.trust and found.trust != "trusted"):
            statuses.add(4)
    if is_any_read:
        print("", *textwrap.wrap(WHAT_IT_PROVES, 100), sep="\n")
    return min(statuses, default=0)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="speech2face",
        description="Imagines faces that a listener could expect behind a voice. They are the "
        "faces of nobody, and nothing to identify or to judge anyone by.",
        epilog="`speech2face verify IMAGE...` says what a picture carries about its making, and "
        "what that proves.",
    )
    parser.add_argument(
        "voices", nargs="+", type=Path, metavar="VOICE", help="audio or video file with speech"
    )
    parser.add_argument(
        "--face-images",
        action="store_true",
        help="the files are pictures of aligned faces instead: decode each face's own embedding",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="where the pictures go"
    )
    parser.add_argument(
        "--num-images",
        type=_at_least(1),
        metavar="N",
        help="faces a voice (default: 4, or the single one of --decoder normalized)",
    )
    parser.add_argument(
        "--interpolate",
        type=_at_least(2),
        metavar="N",
        help="N faces on the way from the first of two voices to the second",
    )
    parser.add_argument(
        "--decoder",
        choices=("diffusion", "normalized"),
        default="diffusion",
        help="normalized is the paper's: frontal and neutral, in one pass (default: diffusion)",
    )
    parser.add_argument(
        "--exaggeration",
        type=_above_zero,
        default=1.0,
        metavar="X",
        help="moves faces away from the average one, or below 1 towards it (default: 1)",
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, help="the same seed gives the same faces (default: 0)"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="PATH_OR_REPO",
        help="folder or Hub repository (default: the demo checkpoint that comes with the package)",
    )
    parser.add_argument(
        "--steps", type=_at_least(1), help="denoising steps (default: the checkpoint's)"
    )
    parser.add_argument(
        "--guidance-scale",
        type=float,
        help="at least 1; more follows the voice more closely (default: the checkpoint's)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps (default: cpu)")
    parser.add_argument(
        "--certificate",
        metavar="PEM",
        help="sign the pictures (C2PA) by your certificate, its issuers after it (default: "
        "$SPEECH2FACE_CERTIFICATE, or a self-signed one that is made at first use)",
    )
    parser.add_argument(
        "--key", metavar="PEM", help="its private key (default: $SPEECH2FACE_KEY, or that one's)"
    )
    parser.add_argument(
        "--unsigned",
        action="store_true",
        help="leave the signature out: it shows which pictures were signed by the same key",
    )
    arguments = parser.parse_args(argv)
    if arguments.unsigned and (arguments.certificate or arguments.key):
        parser.error("argument --unsigned: contradicts --certificate and --key")
    if arguments.guidance_scale is not None and not 1 <= arguments.guidance_scale < math.inf:
        parser.error("argument --guidance-scale: must be at least 1, and finite")
    if arguments.decoder == "normalized":
        for option, value in (
            ("--steps", arguments.steps),
            ("--guidance-scale", arguments.guidance_scale),
        ):
            if value is not None:
                parser.error(f"argument {option}: the normalized decoder takes one pass")
    if arguments.interpolate:
        if len(arguments.voices) != 2 or arguments.face_images:
            parser.error("argument --interpolate: name two voices")
        if arguments.num_images:
            parser.error("argument --interpolate: takes the place of --num-images")
    return arguments


def _seed(text: str) -> int:
    if not 0 <= int(text) < 2**63:
        raise argparse.ArgumentTypeError("must be from 0 to 2^63 - 1")
    return int(text)


def _above_zero(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError("must be above 0, and finite")
    return float(text)


def _at_least(least: int):
    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return int(text)

    return number


def _refuse_equal_names(voices: list[Path], num_images: int) -> None:
    """Two voices of which one would overwrite a picture of the other: a.wav and a_0.wav."""
    seen = {}
    for voice in voices:
        for suffix in ("", "_average", "_certainty", *(f"_{i}" for i in range(num_images))):
            name = f"{voice.stem}{suffix}".casefold()  # not every file system tells a from A
            if name in seen:
                raise ValueError(
                    f"{seen[name]} and {voice} would write pictures of the same names: "
                    "rename one, or run the command once for each with another --output."
                )
            seen[name] = voice


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{output} cannot be made ({error.strerror}): name another folder with --output."
        ) from error


def _load_signing_key(arguments: argparse.Namespace):
    """The key to sign with, or None where there can be none and the user did not ask for one."""
    from .signing import is_configured, load_signing_key

    if arguments.unsigned:
        return None
    try:
        return load_signing_key(arguments.certificate, arguments.key)
    except (ImportError, ValueError) as error:
        if is_configured(arguments.certificate, arguments.key):
            raise ValueError(error) from error
        print(f"speech2face: the pictures are not signed: {error}", file=sys.stderr)
        return None


def _load_pipeline(arguments: argparse.Namespace):
    """The pipeline, on its device, without progress bars of its own."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from .pipeline_speech2face import Speech2FacePipeline

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    if arguments.checkpoint is None:
        pipeline = Speech2FacePipeline.from_demo()
    else:
        import torch
        from huggingface_hub.errors import HFValidationError

        from .checkpoints import CheckpointError

        dtype = torch.float32 if arguments.device == "cpu" else None  # half is slow on a CPU
        try:
            pipeline = Speech2FacePipeline.from_pretrained(arguments.checkpoint, dtype=dtype)
        except CheckpointError:
            raise
        except (OSError, HFValidationError, UnicodeError) as error:  # the Hub's are long
            raise ValueError(
                f"{arguments.checkpoint} cannot be loaded: name a folder that holds a "
                "model_index.json and whole weights, or a Hub repository that can be reached."
            ) from error
    pipeline.set_progress_bar_config(disable=True)
    try:
        return pipeline.to(arguments.device)
    except (RuntimeError, AssertionError) as error:  # torch raises either
        raise ValueError(
            f"the device {arguments.device!r} is not available here: use --device cpu."
        ) from error


def _imagine(pipeline, files: list[Path], arguments: argparse.Namespace) -> None:
    """Writes the pictures of one voice or face, or of the way between two; says what it tells."""
    import torch
    from tqdm import tqdm

    from .pictures import contact_sheet, enlarge, with_scale
    from .signing import sign

    options = {
        "decoder": arguments.decoder,
        "exaggeration": arguments.exaggeration,
        "num_inference_steps": arguments.steps,
        "guidance_scale": arguments.guidance_scale,
        "generator": torch.Generator().manual_seed(arguments.seed),
    }
    if arguments.interpolate:
        output = pipeline.interpolate(files, arguments.interpolate, **options)
    else:
        source = "face_image" if arguments.face_images else "voice"
        options |= {source: files[0], "num_images_per_prompt": arguments.num_images}
        output = pipeline(**options)
    pictures = {f"_{index}": enlarge(image) for index, image in enumerate(output.images)}
    pictures["_average"] = enlarge(output.average_face)
    if output.certainty is not None:
        pictures["_certainty"] = with_scale(enlarge(output.certainty))
    pictures[""] = contact_sheet(output)
    name = "_to_".join(file.stem for file in files)
    for suffix, picture in pictures.items():
        path = arguments.output / f"{name}{suffix}.png"
        picture.save(path)
        if arguments.signing_key is not None:
            sign(path, arguments.signing_key)
    if output.told is not None:
        tqdm.write(f"{files[0]}: {output.told}")


if __name__ == "__main__":
    sys.exit(main())
