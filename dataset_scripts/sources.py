"""Where videos come from: a folder, VoxCeleb, AVSpeech, films of the synthetic cast.

Every source gives the same `Listing`, sorted and the same on every run: units of work, and what
could be refused without opening it.
"""

import csv
import json
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset_scripts.records import Refusal, SourceVideo
from dataset_scripts.splits import DEVELOPMENT

NOT_STATED = "not stated"

VIDEO_SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .divx .f4v .flv .m2ts .m2v .m4v .mj2 .mkv .mov .mp4 .mpe .mpeg .mpg .mts "
    ".mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m".split()
)
AUDIO_SUFFIXES = frozenset(".aac .flac .m4a .mp3 .ogg .opus .wav .wma".split())
PICTURE_SUFFIXES = frozenset(".bmp .jpeg .jpg .png .webp".split())


@dataclass(frozen=True)
class SpeechAndCrops(SourceVideo):
    """A recording and pictures of the speaker's face, where a source gives no moving picture.

    `path` is the recording; the face is not checked for synchrony: the source vouches for it.

    Attributes:
        crops: picture files of the speaker, from the same video.
    """

    crops: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Listing:
    """What a source has.

    Attributes:
        videos: units of work, sorted by `video_id`, which is unique.
        refusals: what is known to give nothing without being opened, sorted.
        ignored: how many files are no videos (texts, pictures, hidden files).
    """

    videos: list[SourceVideo] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    ignored: int = 0


def list_folder(
    path: str | Path,
    licence: str = NOT_STATED,
    speaker_folders: bool = False,
    source: str = "folder",
) -> Listing:
    """Lists the videos of a folder, at any depth.

    A file is tried if its suffix is one of audio or video, if it has none, or if it begins like a
    video. Links to folders are followed where they lead out of the folder.

    Args:
        path: a folder, or one video.
        licence: of the videos, as their owner states it.
        speaker_folders: whether each first-level folder holds one person's videos and names him
            or her; what lies beside these folders has no label.
        source: what the pairs' column `source` says.

    Returns:
        A listing; `video_id` is the path below the folder, odd characters escaped.

    Raises:
        ValueError: if there is no such folder, it cannot be read, or it holds no video.
    """


def list_voxceleb(
    path: str | Path,
    metadata: Sequence[str | Path] = (),
    crops: str | Path | None = None,
    licence: str = NOT_STATED,
) -> Listing:
    """Lists VoxCeleb1 or VoxCeleb2, or both, as distributed: `idXXXXX/YOUTUBE/00001.mp4`.

    Args:
        path: a folder above the persons' folders, at any height (`dev/mp4`, `test/wav`, ...).
        metadata: `vox1_meta.csv`, `vox2_meta.csv`; found below `path` if none is named.
        crops: a folder with the face crops (`NAME/1.6/YOUTUBE/*.jpg` or by person's id), for
            recordings without pictures; found below `path` if it is called `unzippedFaces`.
        licence: what the pairs' column `licence` says.

    Returns:
        Videos, and `SpeechAndCrops` where there is only sound; labelled, with gender and the
        official split: "test", or "dev" for what is shared between train and validation.

    Raises:
        ValueError: if the folder or the metadata is missing or has another layout.
    """


def list_avspeech(
    csv_paths: str | Path | Sequence[str | Path],
    videos: str | Path,
    licence: str = NOT_STATED,
) -> Listing:
    """Lists AVSpeech's stretches whose videos are on disk; the others are refused as gone.

    Args:
        csv_paths: `avspeech_train.csv`, `avspeech_test.csv`: YouTube id, start and end in seconds,
            x and y of the face's centre as shares of the frame; no header.
        videos: a folder with whole videos (`ID.mp4`) or clips (`ID_START_END.mp4`,
            `ID_START.mp4`), at any depth, in any container.
        licence: what the pairs' column `licence` says.

    Returns:
        Unlabelled videos with their stretch and the face's position; the official split "test"
        or "dev" if the file's name says which list it is.

    Raises:
        ValueError: if a file is missing or has another format.
    """


def list_cast(path: str | Path) -> Listing:
    """Lists films of the synthetic cast, with what is true of their main persons.

    Args:
        path: the folder that `python -m dataset_scripts.synthetic_cast ... --films` made.

    Returns:
        Videos labelled with their main person. Where a film shows others too, they carry no
        label: their faces are told apart by clustering, as in any film.

    Raises:
        ValueError: if the folder holds no films.
    """


def list_source(kind: str, path: str | Path, **options) -> Listing:
    """Lists any source by name: "folder", "voxceleb", "avspeech" or "cast"; see `list_folder` etc.

    Raises:
        ValueError: for an unknown name, or as the source's own function.
    """
