"""The truth about a film, as it lies beside it: who speaks and who is seen, when and where."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from .film_renderer import View
from .film_script import FACE_SHARE, FilmScript, Speech
from .voices import BaseVoice

FRONTAL_DEGREES = 20.0  # a face turned less is near enough to frontal
BUILDABLE_S = 1.0  # of frontal speech, at least
PATH_STEP_S = 0.2
# Films in which the mouth that is seen does not say what is heard.
UNMOVED_KINDS = ("static_jaw", "dubbed", "off_screen")


def describe_film(
    script: FilmScript,
    base_voices: dict[str, BaseVoice],
    spoken: Sequence[Speech],
    times_s: np.ndarray,
    views: Sequence[dict[int, View]],
) -> dict:
    """Says what a film shows and what is heard in it.

    Args:
        script: of the film.
        base_voices: voice_id -> base voice, of its people.
        spoken: what was heard, without pauses between recordings, before the sound was moved.
        times_s: (frames,) of its pictures.
        views: of each picture: index of a person -> how the person was drawn.

    Returns:
        What JSON can hold. `segments` are stretches of one voice in one shot, at the times at
        which they are heard in the file; `offset_s` is by how much the sound is late.
    """
    return {
        "film_id": script.film_id,
        "kind": script.kind,
        "is_control": script.is_control,
        "fps": round(float(script.rate), 3),
        "is_variable_rate": script.is_variable,
        "width": script.size[0],
        "height": script.size[1],
        "duration_s": round(script.duration_s, 3),
        "encoding": asdict(script.encoding),
        "offset_s": round(script.offset_s, 4),
        "people": [_person(member, base_voices) for member in script.people],
        "segments": [
            segment
            for speech in spoken
            for segment in _segments(script, speech, np.asarray(times_s), views)
        ],
        "appearances": _appearances(script, np.asarray(times_s), views),
    }


def _person(member, base_voices: dict[str, BaseVoice]) -> dict:
    return {
        "speaker_id": member.speaker_id,
        "split": member.split,
        "voice_id": member.voice.voice_id,
        "licence": base_voices[member.voice.voice_id].licence,
        "gender": member.traits.gender,
        "age": member.traits.age,
        "traits": asdict(member.traits),
        "voice_parameters": asdict(member.voice),
    }


def _segments(script: FilmScript, speech: Speech, times_s, views) -> list[dict]:
    """What is heard of one recording, a segment a shot."""
    segments = []
    for shot in script.shots:
        start_s, end_s = max(speech.start_s, shot.start_s), min(speech.end_s, shot.end_s)
        if end_s <= start_s:
            continue
        frames = np.flatnonzero((times_s >= start_s) & (times_s < end_s))
        seen = [views[k][speech.person] for k in frames if speech.person in views[k]]
        is_moving = bool(seen) and script.kind not in UNMOVED_KINDS
        frontal = np.mean([abs(v.yaw - v.azimuth) < FRONTAL_DEGREES for v in seen]) if seen else 0.0
        heard_s = np.clip(np.array([start_s, end_s]) + script.offset_s, 0, script.duration_s)
        is_buildable = is_moving and frontal * (heard_s[1] - heard_s[0]) >= BUILDABLE_S
        middle = seen[len(seen) // 2].place if seen else None
        segments.append(
            {
                "start_s": round(float(heard_s[0]), 3),
                "end_s": round(float(heard_s[1]), 3),
                "speaker_id": script.people[speech.person].speaker_id,
                "visible": is_moving,
                "buildable": bool(is_buildable),
                "face_position": [round(share, 3) for share in middle] if middle else None,
            }
        )
    return segments


def _appearances(script: FilmScript, times_s, views) -> list[dict]:
    appearances = []
    for shot in script.shots:
        for placement in shot.placements:
            frames = np.flatnonzero((times_s >= shot.start_s) & (times_s < shot.end_s))
            step = max(1, round(PATH_STEP_S * float(script.rate)))
            path = [_point(script, times_s[k], views[k][placement.person]) for k in frames[::step]]
            appearances.append(
                {
                    "speaker_id": script.people[placement.person].speaker_id,
                    "start_s": round(shot.start_s, 3),
                    "end_s": round(shot.end_s, 3),
                    "path": path,
                }
            )
    return appearances


def _point(script: FilmScript, time_s: float, view: View) -> list[float]:
    """Time (s), x and y (shares), the face's width (pixels), its yaw as the camera sees it."""
    size_px = FACE_SHARE * view.head_share * script.size[1]
    yaw = view.yaw - view.azimuth
    numbers = (time_s, *view.place, size_px, yaw)
    return [round(float(n), d) for n, d in zip(numbers, (3, 3, 3, 1, 1), strict=True)]
