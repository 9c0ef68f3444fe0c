"""`python -m dataset_scripts.synthetic_cast OUT --speakers N --seed S` makes a cast.

With `--films K` it makes films of the cast's members instead of a data set of stills.
"""

import argparse
import os
import sys
from pathlib import Path

from dataset_scripts.faces import RECOGNISERS
from dataset_scripts.synthetic_cast.build import CastConfig, build_cast
from dataset_scripts.synthetic_cast.films import FilmsConfig, build_films
from dataset_scripts.synthetic_cast.speech_synthesis import download_kokoro
from dataset_scripts.synthetic_cast.voices import (
    download_librispeech,
    load_librispeech_voices,
    load_synthetic_voices,
)

DEFAULT_CACHE = Path.home() / ".cache" / "speech2face"


def main(arguments: list[str] | None = None) -> int:
    """Makes a cast, or films of it, as the command line asks; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        _check(options)
        config = _config(options)
        librispeech = options.librispeech or download_librispeech(options.cache)
        voices = load_librispeech_voices(librispeech)
        kokoro = options.kokoro or download_kokoro()
        voices += load_synthetic_voices(
            kokoro, options.cache / "speech", options.blends, options.sentences_per_voice
        )
        build = build_films if options.films is not None else build_cast
        print(build(options.out, config, voices, options.workers))
    except KeyboardInterrupt:
        return _refuse("stopped: the same command continues")
    except ModuleNotFoundError as error:
        return _refuse(f"{error}: install the extra `data`, see dataset_scripts/README.md")
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return _refuse(str(error))
    return 0


def _config(options: argparse.Namespace) -> CastConfig | FilmsConfig:
    if options.films is not None:
        return FilmsConfig(films=options.films, speakers=options.speakers, seed=options.seed)
    return CastConfig(
        speakers=options.speakers,
        seed=options.seed,
        images_per_speaker=options.images_per_speaker,
        clips_per_speaker=options.clips_per_speaker,
        face_recogniser=options.recogniser,
    )


def _refuse(sentence: str) -> int:
    print(f"synthetic_cast: {sentence}", file=sys.stderr)
    return 1


def _check(options: argparse.Namespace) -> None:
    """Refuses at once what `CastConfig` does not know, and what would fail after the speech."""
    for name, least in (("blends", 0), ("sentences_per_voice", 1), ("workers", 1)):
        if getattr(options, name) < least:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} must be at least {least}, got {getattr(options, name)}")
    if options.films is not None and options.recogniser != "dlib":
        raise ValueError("--recogniser is for stills: the faces of films are embedded as pairs are")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"{options.out} is a file: name a folder for the data set")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.synthetic_cast",
        description="Makes synthetic speakers: speech-face pairs, or talking films, of nobody.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="folder for the data set; a killed run continues")
    parser.add_argument("--speakers", type=int, required=True, help="how many speakers")
    parser.add_argument("--films", type=int, help="films instead of stills, and how many")
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument("--images-per-speaker", type=int, default=4, help="pictures of each")
    parser.add_argument("--clips-per-speaker", type=int, default=2, help="clips of each")
    parser.add_argument("--blends", type=int, default=46, help="voices between two of Kokoro's")
    parser.add_argument(
        "--sentences-per-voice", type=int, default=2, help="that each synthetic voice reads"
    )
    parser.add_argument(
        "--recogniser", choices=RECOGNISERS, default="dlib", help="the teacher that embeds faces"
    )
    parser.add_argument("--kokoro", type=Path, help="folder with Kokoro-82M instead of the Hub's")
    parser.add_argument("--librispeech", type=Path, help="folder with LibriSpeech, likewise")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="folder for speech")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
