"""What checkpoints, and other systems' faces, can do: all figures with 95 % intervals, a report.

`python -m training.evaluation --checkpoint demo --dataset data/demo_cast --output reports/demo`
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

EPILOGUE = """\
A data set is a folder of Parquet files, a name on the Hub, or a folder with voice/ and face/ in
which the files of a pair share their stem; there PAIRS.tsv, with tabs, may say more: name (the
stem), identity (who speaks), gender (female or male), age (years). Such a folder has no splits.
The output folder holds results.json, charts.json, report.md and report.html; faces are shown in the
last only where the data set is the synthetic cast. What takes long (predictions, images, what is
read from them) is kept in the cache: a run that was killed continues, and a second one is fast.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation",
        description="Measure checkpoints, and other systems' faces, on pairs of voice and face.",
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", help="demo, a pipeline folder, or a name on the Hub")
    parser.add_argument("--dataset", required=True, help="pairs: a folder, or a name on the Hub")
    parser.add_argument("--output", required=True, help="folder of the report")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--compare", nargs="+", default=[], metavar="CHECKPOINT", help="more")
    parser.add_argument(
        "--faces",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="faces that other systems made from the voices, a picture a pair, named as the pair",
    )
    parser.add_argument(
        "--true-faces",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="for each of --faces, what the same system makes of the original faces",
    )
    parser.add_argument("--voices", help="LibriSpeech: also judge its test speakers' recordings")
    parser.add_argument("--seconds", type=float, nargs="+", default=[3, 6], help="of speech: 3 6")
    parser.add_argument(
        "--no-decode",
        dest="decode",
        action="store_false",
        help="embeddings alone: no faces of the checkpoints",
    )
    parser.add_argument("--limit", type=int, help="pairs at most, of as many speakers as possible")
    parser.add_argument("--rounds", type=int, default=1000, help="resamples of the speakers: 1000")
    parser.add_argument("--seed", type=int, default=0, help="of draws, images and resamples: 0")
    parser.add_argument(
        "--with-pictures",
        action="store_true",
        help="show faces though they are of real people: only with their consent",
    )
    parser.add_argument("--cache", default=".cache/training", help="for what takes long")
    options = parser.parse_args(arguments)
    options.arguments = [shlex.quote(argument) for argument in arguments]
    options.checkpoints = ([options.checkpoint] if options.checkpoint else []) + options.compare
    return options


def check(options: argparse.Namespace) -> None:
    """Refuses at once what would fail, or be left out, after an hour.

    Raises:
        FileNotFoundError: if a folder is not there.
        ValueError: for options that contradict each other.
    """
    if options.true_faces and len(options.true_faces) != len(options.faces):
        raise ValueError("--true-faces needs a folder for each of --faces, in their order")
    if options.voices and not options.checkpoints:
        raise ValueError("--voices are for a checkpoint to hear: name one with --checkpoint")
    if options.rounds < 100:
        raise ValueError(f"--rounds must be at least 100, got {options.rounds}")
    if any(not 0.5 <= seconds <= 60 for seconds in options.seconds):
        raise ValueError("--seconds must be from 0.5 to 60")
    if options.limit is not None and options.limit < 2:
        raise ValueError("--limit must be at least 2: one pair cannot be told apart from others")
    _check_data_set(Path(options.dataset))
    names = [Path(folder).resolve().name for folder in [*options.faces, *options.true_faces]]
    if len(set(names)) < len(names):
        raise ValueError(f"two folders of faces are called alike ({', '.join(names)}): rename one")
    for folder in [*options.faces, *options.true_faces, *filter(None, [options.voices])]:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder} is no folder: see --help for what it should hold")
    if Path(options.output).is_file():
        raise ValueError(f"{options.output} is a file: name a folder for the report")
    options.seconds = sorted(set(options.seconds))


def _check_data_set(folder: Path) -> None:
    """Whether a folder is a data set at all; whatever is none may be a name on the Hub."""
    if not folder.is_dir():
        if folder.is_absolute() or len(folder.parts) > 2 or folder.is_file():
            raise FileNotFoundError(f"{folder} is no folder: name one with pairs, see --help")
        return
    inside = {path.name for path in folder.iterdir()}
    if "README.md" not in inside and not {"voice", "face"} & inside:
        raise FileNotFoundError(
            f"{folder} holds no data set: neither Parquet files with a README.md, nor voice/ and "
            "face/, see --help"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        check(options)
        from training.evaluation.report import model_index, write_report
        from training.evaluation.run import evaluate

        results, pictures = evaluate(options)
        for checkpoint in results.about["checkpoints"]:
            results.model_index += model_index(results, checkpoint["name"])
        results.save(Path(options.output))
        write_report(Path(options.output), results, pictures)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        print("\nstopped; what was made is kept: the same command continues", file=sys.stderr)
        sys.exit(130)
    print(f"{options.output}/report.html shows it, {options.output}/report.md is for reading here")


if __name__ == "__main__":
    main()
