"""Pairs from a recording and pictures of its speaker, where no moving picture is to be had.

VoxCeleb is mostly passed on as sound and face crops. That the face speaks the sound cannot be
measured there: the source vouches for it, and `sync_score` stays empty.
"""

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_scripts.extraction import ExtractionConfig, extract_pairs
from dataset_scripts.faces import DetectedFace, align_face, detect_faces, get_recogniser
from dataset_scripts.frame_quality import exposure, frontality
from dataset_scripts.near_duplicates import fingerprint
from dataset_scripts.pair_table import flac_bytes, jpeg_bytes, new_pair, sharpness
from dataset_scripts.records import (
    SAMPLING_RATE,
    Extraction,
    Refusal,
    SourceVideo,
    VideoRefused,
)
from dataset_scripts.sources import SpeechAndCrops
from dataset_scripts.speech_segments import find_speech

MOST_CROPS = 24  # that are looked at, spread over all there are
BEST_FACES = 5  # of which each segment of speech gets one
MOST_PIXELS = 4096 * 4096  # of a crop
SMALL_PX = 160  # a smaller picture is doubled before a face is looked for


@dataclass(frozen=True)
class _Face:
    aligned: np.ndarray  # (224, 224, 3) uint8 RGB
    frontality: float
    sharpness: float
    size_px: float
    place: tuple[float, float]  # of the middle, shares of width and height


def extract_unit(video: SourceVideo, config: ExtractionConfig | None = None) -> Extraction:
    """`extract_pairs` of a video, `pairs_from_crops` of a recording with pictures beside it."""
    if isinstance(video, SpeechAndCrops):
        return pairs_from_crops(video, config)
    return extract_pairs(video, config)


def pairs_from_crops(video: SpeechAndCrops, config: ExtractionConfig | None = None) -> Extraction:
    """Turns a recording and face crops into speech-face pairs.

    Args:
        video: as `sources.list_voxceleb` lists it.
        config: thresholds; those of synchrony and tracking have no use here.

    Returns:
        A pair for each segment of speech, without a `sync_score`, or why there is none. Nothing is
        raised, whatever the files hold.
    """
    config = config or ExtractionConfig()
    try:
        return _pairs_from_crops(video, config)
    except VideoRefused as refused:
        reason, detail = refused.reason, str(refused)
    except Exception as error:
        reason, detail = "failed", f"{type(error).__name__}: {error}"
    return Extraction(refusals=[Refusal(video.video_id, None, None, reason, detail)])


def _pairs_from_crops(video: SpeechAndCrops, config: ExtractionConfig) -> Extraction:
    speech = _read(video.path, config.limits.max_duration_s)
    segments = [s for s in find_speech(speech) if s.end_s - s.start_s >= config.min_pair_s]
    if not segments:
        raise VideoRefused("no_speech", "nobody is heard to speak for a second or more")
    faces = _usable_faces(video.crops, config)
    embeddings = _recogniser(config.face_recogniser).embed(np.stack([f.aligned for f in faces]))
    # A crop that the source filed wrongly is far from the others.
    away = np.linalg.norm(embeddings - np.median(embeddings, axis=0), axis=1)
    same = np.nonzero(away <= config.max_change_in_track)[0]
    if not len(same):
        raise VideoRefused("other_person", "the crops show different persons")
    same = same[:BEST_FACES]
    pairs = [
        _pair(video, segment, speech, faces[k], embeddings[k]) | {"track_embedding": track}
        for number, segment in enumerate(segments)
        for k, track in [(same[number % len(same)], embeddings[same].mean(axis=0))]
    ]
    duration_s = len(speech) / SAMPLING_RATE
    return Extraction(pairs, fingerprint=fingerprint([], speech), duration_s=duration_s)


def _read(path: Path, max_duration_s: float) -> np.ndarray:
    """The whole recording, (samples,)."""
    from modeling_speech2face import load_audio

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is cut is refused below
            speech = load_audio(path, SAMPLING_RATE, max_duration_s + 1)
    except (ValueError, OSError) as error:
        raise VideoRefused("unreadable", str(error)) from error
    if len(speech) > max_duration_s * SAMPLING_RATE:
        raise VideoRefused("too_long", f"the recording is longer than {max_duration_s:g} s")
    if not np.any(speech):
        raise VideoRefused("silent", "all of the sound is silence")
    return speech


def _usable_faces(crops: tuple[Path, ...], config: ExtractionConfig) -> list[_Face]:
    """Faces good enough for a pair, the best first."""
    chosen = np.unique(np.linspace(0, len(crops) - 1, min(len(crops), MOST_CROPS)).astype(int))
    faces, problem = [], ("no_face", "there is no crop that can be read and shows a face")
    for index in chosen:
        picture = _open(crops[index])
        found = None if picture is None else _main_face(picture)
        if found is None:
            continue
        face = _look_at(picture, found)
        reason = _problem(face, config)
        if reason is None:
            faces.append(face)
        else:
            problem = reason, f"no crop is good enough; the last one: {reason.replace('_', ' ')}"
    if not faces:
        raise VideoRefused(*problem)
    best_first = sorted(faces, key=lambda face: -face.frontality * min(face.size_px, 150))
    return best_first


def _open(path: Path) -> np.ndarray | None:
    """(height, width, 3) uint8 RGB; None for what is no picture, or a huge one."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                return None
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _main_face(picture: np.ndarray) -> DetectedFace | None:
    faces = detect_faces(picture, upsample=int(min(picture.shape[:2]) < SMALL_PX))
    return faces[0] if faces else None


def _look_at(picture: np.ndarray, found: DetectedFace) -> _Face:
    height, width = picture.shape[:2]
    left, top, right, bottom = found.box
    aligned = align_face(picture, found.landmarks)
    return _Face(
        aligned,
        frontality(found.landmarks),
        sharpness(aligned),
        float(right - left),
        ((left + right) / 2 / width, (top + bottom) / 2 / height),
    )


def _problem(face: _Face, config: ExtractionConfig) -> str | None:
    light = exposure(face.aligned)
    if face.size_px < config.min_face_px:
        return "face_too_small"
    if face.frontality < config.min_frontality:
        return "not_frontal"
    if face.sharpness < config.min_sharpness:
        return "blurred"
    if light.contrast < config.min_contrast or light.lost > config.max_lost:
        return "badly_lit"
    return None


def _pair(video: SpeechAndCrops, segment, speech: np.ndarray, face: _Face, embedding) -> dict:
    """A row of the data contract."""
    start_s, end_s = round(segment.start_s, 3), round(segment.end_s, 3)
    clip = speech[round(start_s * SAMPLING_RATE) : round(end_s * SAMPLING_RATE)]
    return {
        **new_pair(video, start_s, end_s, flac_bytes(clip), jpeg_bytes(face.aligned)),
        "face_embedding": embedding,
        "face_time_s": None,  # the crops say nothing of the clip's own time
        "face_position": list(face.place),  # in the crop
        "sync_score": None,
        "frontality": face.frontality,
        "sharpness": face.sharpness,
        "speech_ratio": segment.speech_ratio,
        "face_size_px": face.size_px,
        "track": 0,
    }


@functools.cache
def _recogniser(name: str):
    return get_recogniser(name)
