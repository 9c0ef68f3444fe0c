"""Voice encoders on real pairs, by cross-validation, beside what they must beat.

`python -m training.compare_voice_encoders --dataset data/real_pairs --output runs/real_people`
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

CONFIG = "training/configs/compare_voice_encoders/experiment.yaml"
EPILOGUE = """\
The data set is a folder of Parquet files, a name on the Hub, or a folder with voice/ and face/, as
for training.evaluation. Everybody is held out once, with whatever shares the speaker or the face.
Trainings take long: each continues where it was stopped, and --only runs some of them; the tables
are made from whatever has been run. The output folder holds results.json and report.md, and what
finished trainings predicted and logged: figures, no faces, no voices, and no weights.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.compare_voice_encoders",
        description="Compare voice encoders on pairs of voice and face by cross-validation.",
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default=CONFIG, help=f"what is compared: {CONFIG}")
    parser.add_argument("--dataset", required=True, help="pairs: a folder, or a name on the Hub")
    parser.add_argument("--split", default="train", help="of a data set that has splits: train")
    parser.add_argument("--output", required=True, help="folder of the runs and of the report")
    parser.add_argument("--cache", default=".cache/training", help="for what takes long")
    parser.add_argument("--folds", type=int, help="instead of the configuration's")
    parser.add_argument("--seeds", type=int, help="instead of the configuration's")
    parser.add_argument(
        "--only",
        nargs="*",
        metavar="ENCODER",
        help="train these rows alone, of the others take what there is; without a name: none",
    )
    parser.add_argument("--checkpoint", default="demo", help="whose normalized decoder: demo")
    parser.add_argument(
        "--decode",
        nargs="*",
        metavar="ROW",
        help="make faces of these rows' predictions alone; without a name: of none",
    )
    parser.add_argument("--faces", help="folder: faces that another system made from the voices")
    parser.add_argument("--true-faces", help="folder: what it makes of the original faces")
    parser.add_argument("--rounds", type=int, default=1000, help="resamples of families: 1000")
    options = parser.parse_args(arguments)
    if bool(options.faces) != bool(options.true_faces):
        parser.error("--faces and --true-faces belong together: give both, or neither")
    options.arguments = [shlex.quote(argument) for argument in arguments]
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    from training.checkpoints import TrainingFailed
    from training.compare_voice_encoders.encoders import Stopped
    from training.compare_voice_encoders.run import compare

    try:
        compare(options)
    except (ImportError, OSError, ValueError, TrainingFailed) as error:
        sys.exit(f"{error}")
    except (KeyboardInterrupt, Stopped):
        print("\nstopped; what was run is kept: the same command continues", file=sys.stderr)
        sys.exit(130)
    print(f"{options.output}/report.md")


if __name__ == "__main__":
    main()
