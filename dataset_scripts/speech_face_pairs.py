"""The command `python -m dataset_scripts.speech_face_pairs SOURCE ... --output FOLDER`."""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dataset_scripts.builder import (
    NoPairs,
    SourceConfig,
    SpeechFacePairs,
    build_dataset,
    source_config,
)
from dataset_scripts.data_card import say_figures
from dataset_scripts.extraction import ExtractionConfig
from dataset_scripts.identities import IdentityConfig
from dataset_scripts.publishing import check_can_push, push_dataset, state_rights
from dataset_scripts.removal import finish_removal, read_list, remove_from_dataset
from dataset_scripts.sources import NOT_STATED

__all__ = ["SpeechFacePairs", "main"]


def main(arguments: list[str] | None = None, extract: Callable | None = None) -> int:
    """Does what the command line asks.

    Args:
        arguments: of the command line; None for the real ones.
        extract: another function from a video to what came of it, for tests.

    Returns:
        The exit status: 0, 1 for what cannot be done, 2 for what cannot be asked.
    """
    options = _parser().parse_args(arguments)
    try:
        _check(options)
        if options.push_to_hub:
            check_can_push(options.push_to_hub, options.public, options.rights)
        names = read_list(options.remove) if options.remove else None
        if options.kind == "built":
            output = options.path
            finish_removal(output)
        else:
            finish_removal(options.output)
            config = _config(options, extract)
            output = build_dataset(options.output, config, options.rights, options.contact)
        if names is not None:
            print(remove_from_dataset(output, names))
        if options.rights or options.contact:
            state_rights(output, options.rights, options.contact)
        if options.kind != "built":
            print(say_figures(output), file=sys.stderr)
        print(output)
        if options.push_to_hub:
            print(push_dataset(output, options.push_to_hub, options.public))
    except KeyboardInterrupt:
        return _refuse("stopped: the same command continues")
    except NoPairs as error:
        return _refuse(f"{error}: see {options.output / 'refused.parquet'}")
    except ModuleNotFoundError as error:
        extra = "ray" if error.name == "ray" else "data"
        return _refuse(f"{error}: install the extra `{extra}`, see dataset_scripts/README.md")
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return _refuse(str(error))
    return 0


def _refuse(sentence: str) -> int:
    print(f"speech_face_pairs: {sentence}", file=sys.stderr)
    return 1


def _check(options: argparse.Namespace) -> None:
    """Refuses at once what would fail after hours of work."""
    folder = options.path if options.kind == "built" else options.output
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder for the data set")
    if options.public and not options.push_to_hub:
        raise ValueError("--public says how to push: add --push-to-hub REPO")
    if options.kind == "built":
        if not (options.remove or options.push_to_hub or options.rights or options.contact):
            raise ValueError(
                "nothing to do: add --remove LIST, --push-to-hub REPO or --rights TEXT"
            )
        return
    if options.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {options.workers}")
    if not 0 < options.max_duration < float("inf"):
        finite = " and finite" if options.max_duration > 0 else ""
        raise ValueError(f"--max-duration must be above 0 s{finite}, got {options.max_duration:g}")
    if options.seed < 0:
        raise ValueError(f"--seed must be at least 0, got {options.seed}")
    if options.ray_address and options.engine != "ray":
        raise ValueError("--ray-address is for a cluster: add --engine ray")


def _config(options: argparse.Namespace, extract: Callable | None) -> SourceConfig:
    extraction = ExtractionConfig()
    limits = replace(extraction.limits, max_duration_s=options.max_duration)
    shared = {
        "path": str(options.path.absolute()),  # workers may have another working directory
        "extraction": replace(extraction, limits=limits),
        "identities": IdentityConfig(
            cluster_threshold=options.cluster_threshold,
            # A film of the cast names its main person; the others in it are people of the cast too.
            others="cluster" if options.kind == "cast" else "refuse",
            seed=options.seed,
        ),
        "ignore_labels": options.ignore_labels,
        "known": str(options.known) if options.known else None,
        "workers": options.workers,
        "engine": options.engine,
        "ray_address": options.ray_address,
        "extract": extract,
    }
    return source_config(options.kind, **shared, **_own(options))


def _own(options: argparse.Namespace) -> dict:
    """What only one kind of source has."""
    if options.kind == "folder":
        return {"licence": options.licence, "speaker_folders": options.speaker_folders}
    if options.kind == "voxceleb":
        crops = str(options.crops.absolute()) if options.crops else None
        metadata = [str(path) for path in options.metadata]
        return {"licence": options.licence, "metadata": metadata, "crops": crops}
    if options.kind == "avspeech":
        if options.download:
            _download(options)
        further = [str(path) for path in options.further_lists]
        videos = str(options.videos.absolute())
        return {"licence": options.licence, "videos": videos, "further_lists": further}
    return {}


def _download(options: argparse.Namespace) -> None:
    """Fetches the videos of AVSpeech's lists that are not there yet."""
    from dataset_scripts.sources import read_avspeech
    from dataset_scripts.video_download import DownloadConfig, download_with_progress

    lists = [options.path, *options.further_lists]
    stretches = [stretch for path in lists for stretch in read_avspeech(path)]
    wanted = list(dict.fromkeys(stretch.youtube_id for stretch in stretches))
    config = DownloadConfig(url_template=options.url_template)
    download_with_progress(wanted, options.videos, config)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if not action.default or action.default == argparse.SUPPRESS:
            return action.help
        return super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.speech_face_pairs",
        description="Makes a data set of speech-face pairs from videos of people who speak.",
        epilog="Each source has its own --help.",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="SOURCE", required=True)
    published, building = _shared_options()
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument(
        "--licence",
        default=NOT_STATED,
        metavar="TEXT",
        help="of the videos, for the column `licence`",
    )

    def add(kind: str, words: str, parents: list) -> argparse.ArgumentParser:
        return kinds.add_parser(
            kind,
            help=words,
            description=f"{words[0].upper()}{words[1:]}.",
            parents=parents,
            formatter_class=_Help,
        )

    folder = add("folder", "videos in a folder, at any depth", [own, building, published])
    folder.add_argument("path", type=Path, metavar="FOLDER", help="with the videos")
    folder.add_argument(
        "--speaker-folders",
        action="store_true",
        help="each folder in FOLDER holds one person's videos and names the person",
    )
    voxceleb = add("voxceleb", "VoxCeleb1 or 2, as distributed", [own, building, published])
    voxceleb.add_argument("path", type=Path, metavar="FOLDER", help="with idXXXXX/... below it")
    voxceleb.add_argument(
        "--metadata",
        type=Path,
        nargs="+",
        default=[],
        metavar="CSV",
        help="vox1_meta.csv, vox2_meta.csv; looked for in FOLDER if not named",
    )
    voxceleb.add_argument(
        "--crops", type=Path, metavar="FOLDER", help="face crops, for clips that are sound alone"
    )
    avspeech = add("avspeech", "AVSpeech's lists of videos", [own, building, published])
    avspeech.add_argument("path", type=Path, metavar="CSV", help="avspeech_train.csv or another")
    avspeech.add_argument("further_lists", type=Path, nargs="*", metavar="CSV", help="more lists")
    avspeech.add_argument(
        "--videos", type=Path, required=True, metavar="FOLDER", help="with the videos: ID.mp4, ..."
    )
    avspeech.add_argument(
        "--download", action="store_true", help="first fetch with yt-dlp what is not there yet"
    )
    avspeech.add_argument(
        "--url-template",
        default="https://www.youtube.com/watch?v={id}",
        metavar="URL",
        help="from where; dataset_scripts.video_download has more options",
    )
    cast = add("cast", "films of the synthetic cast", [building, published])
    cast.add_argument(
        "path", type=Path, metavar="FOLDER", help="made by dataset_scripts.synthetic_cast --films"
    )
    built = add("built", "a data set that was built: to take people out, to push it", [published])
    built.add_argument("path", type=Path, metavar="FOLDER", help="of the data set")
    return parser


def _shared_options() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Options for every data set, and for those that are to be built."""
    published = argparse.ArgumentParser(add_help=False)
    published.add_argument(
        "--remove",
        type=Path,
        metavar="LIST",
        help="a text file with a speaker_id or a video_id a line: takes them out",
    )
    published.add_argument(
        "--rights", metavar="TEXT", help="by what right the data may be passed on, for the card"
    )
    published.add_argument(
        "--contact", metavar="TEXT", help="whom people can ask to be taken out, for the card"
    )
    published.add_argument(
        "--push-to-hub", metavar="REPO", help="push to the Hugging Face Hub; needs --rights"
    )
    published.add_argument("--public", action="store_true", help="push for everybody to see")
    building = argparse.ArgumentParser(add_help=False)
    building.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="for the data set; a killed run continues",
    )
    building.add_argument("--seed", type=int, default=0, metavar="S", help="of the splits")
    building.add_argument(
        "--ignore-labels",
        action="store_true",
        help="find persons by their faces even where the source names them",
    )
    building.add_argument(
        "--cluster-threshold",
        type=float,
        metavar="D",
        help="largest mean distance between faces of one person, where no person is named; without "
        "it, a share of the distances in these data that was set on the cast",
    )
    building.add_argument(
        "--known",
        type=Path,
        metavar="FOLDER",
        help="an earlier data set, whose persons keep their names and splits",
    )
    building.add_argument(
        "--max-duration",
        type=float,
        default=ExtractionConfig().limits.max_duration_s,
        metavar="S",
        help="longer videos are refused, seconds",
    )
    building.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="videos that are read at once",
    )
    building.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="processes, or Ray Data"
    )
    building.add_argument(
        "--ray-address",
        metavar="A",
        help="of a Ray cluster, all of whose nodes must see the videos and FOLDER under the same "
        "paths; without it Ray is started on this machine",
    )
    return published, building


if __name__ == "__main__":
    sys.exit(main())
