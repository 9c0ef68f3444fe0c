"""What happens in a film, drawn from (seed, index): who is seen when, who speaks, how it ends up.

A script holds neither pixels nor samples; `films.make_film` plays it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from .film_writing import Encoding
from .frames import Clothes, Light, draw_clothes, draw_light
from .laws import draw_member
from .traits import CastMember
from .voices import BaseVoice

# One cycle of films: every kind, in shares; 6 of the 25 are controls.
KINDS = (
    *("plain",) * 4,  # one person speaks
    *("turned",) * 2,  # the head is turned far aside for a while
    "turned_away",  # and for the whole film
    *("cuts",) * 3,  # other light, another angle, pictures without the speaker
    "jump_cuts",
    "zoom",
    *("silent_second",) * 2,  # somebody beside the speaker, who only listens
    *("turns",) * 2,  # two speak in turn, beside each other or each in their own shots
    "speech_in_music",
    "speech_in_noise",
    "sound_offset",  # the sound comes early or late
    "static_jaw",  # the person's own voice over a mouth that does not move
    "dubbed",  # somebody else's voice over a mouth that says something else
    "off_screen",  # the speaker is not seen, a listener is
    "music",  # over a mouth that speaks unheard, as are the next two
    "noise",
    "silence",
)
CONTROLS = ("static_jaw", "dubbed", "off_screen", "music", "noise", "silence")
WITHOUT_SPEECH = ("music", "noise", "silence")
WITH_TWO = ("silent_second", "turns", "dubbed", "off_screen", "cuts")

SIZES = ((398, 224), (426, 240), (480, 270), (320, 240), (480, 360), (640, 360), (256, 256))
SIZE_SHARES = (0.20, 0.26, 0.16, 0.10, 0.08, 0.10, 0.10)
WIDE_SIZES = 3  # the first of SIZES, for two people beside each other
RATES = (Fraction(25), Fraction(24), Fraction(30000, 1001), Fraction(30))  # frames a second
RATE_SHARES = (0.76, 0.08, 0.08, 0.08)
VARIABLE_SHARE = 0.08  # of the films have a variable frame rate
DURATION_S = {"cuts": (10.0, 14.0), "turns": (8.0, 14.0), "turned": (7.0, 12.0)}
OTHER_DURATION_S = (5.5, 11.0)
FACE_SHARE = 0.66  # a face's width over the height of its head, crown to chin
FACE_PX = (95, 190)
OFFSET_S = (0.04, 0.12)
SCRIPT_STREAM, KIND_STREAM = 40, 41  # of random numbers


@dataclass(frozen=True)
class Setting:
    """Where a shot is taken.

    Attributes:
        light: as in `Frame`.
        background_seed: of what is painted behind.
        blur: of the lens, pixels.
        noise: of the sensor, grey levels.
        contrast: of the picture, 1 = as drawn.
    """

    light: Light
    background_seed: int
    blur: float
    noise: float
    contrast: float


@dataclass(frozen=True)
class Placement:
    """One person in a shot.

    Attributes:
        person: index into the script's people.
        x, y: of the head's middle, shares of the frame's width and height, from top left.
        head_share: of the frame's height that the head fills, at the shot's beginning and end.
        yaw, pitch: of the head, about which it moves, degrees.
        azimuth: of the camera around the person, degrees.
        distance: of the camera, metres.
    """

    person: int
    x: float
    y: float
    head_share: tuple[float, float]
    yaw: float
    pitch: float
    azimuth: float
    distance: float


@dataclass(frozen=True)
class Shot:
    """A stretch without a cut, seconds from the film's beginning."""

    start_s: float
    end_s: float
    setting: Setting
    placements: tuple[Placement, ...]


@dataclass(frozen=True)
class Turn:
    """A person's head is turned by `yaw` degrees for a while."""

    person: int
    start_s: float
    end_s: float
    yaw: float


@dataclass(frozen=True)
class Speech:
    """A stretch that a person's speech fills, with pauses; an index into the script's people."""

    person: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class FilmScript:
    """All of a film but its pixels and samples.

    Attributes:
        film_id: unique in the cast's films.
        kind: one of KINDS.
        seed: of all random numbers while it is played.
        size: (width, height), pixels.
        rate: frames a second.
        is_variable: frames are missing, and come early or late.
        duration_s: seconds.
        encoding: how it is written.
        people: who plays; the first is the film's main person.
        clothes: of each of the people.
        shots: one after another, without a gap.
        turns: of heads.
        voices: what is heard.
        unheard: what a mouth says that nobody hears.
        offset_s: by which the sound comes late (early, below 0), seconds.
        take: how many films the main person has had before.
    """

    film_id: str
    kind: str
    seed: tuple[int, int]
    size: tuple[int, int]
    rate: Fraction
    is_variable: bool
    duration_s: float
    encoding: Encoding
    people: tuple[CastMember, ...]
    clothes: tuple[Clothes, ...]
    shots: tuple[Shot, ...]
    turns: tuple[Turn, ...]
    voices: tuple[Speech, ...]
    unheard: tuple[Speech, ...]
    offset_s: float
    take: int

    @property
    def is_control(self) -> bool:
        """Whether no pair can be built of it, by design."""
        return self.kind in CONTROLS

    def shot_at(self, time_s: float) -> Shot:
        """Finds the shot that is seen at a time, seconds."""
        return next((s for s in self.shots if time_s < s.end_s), self.shots[-1])


def kind_of(seed: int, index: int) -> str:
    """Tells the kind of film `index`; of every len(KINDS) films from 0 on, each kind has its share.

    Args:
        seed: of the cast.
        index: of the film.

    Returns:
        One of KINDS.
    """
    cycle, place = divmod(index, len(KINDS))
    return KINDS[np.random.default_rng([seed, cycle, KIND_STREAM]).permutation(len(KINDS))[place]]


def draw_script(
    seed: int,
    index: int,
    speakers: int,
    base_voices: Sequence[BaseVoice],
    *,
    kind: str | None = None,
    size: tuple[int, int] | None = None,
    duration_s: float | None = None,
) -> FilmScript:
    """Draws film `index` of a cast: its main person is member `index % speakers`.

    Args:
        seed: of the cast.
        index: of the film, from 0; each is drawn by itself.
        speakers: members of the cast.
        base_voices: of all splits, as for `draw_member`.
        kind: one of KINDS, instead of the film's own.
        size: (width, height) in even pixels, instead of its own.
        duration_s: seconds, instead of its own.

    Returns:
        The script; the same one for the same arguments.

    Raises:
        ValueError: for an unknown kind, or a film of two people in a cast of one.
    """
    kind = kind or kind_of(seed, index)
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}: choose one of {', '.join(dict.fromkeys(KINDS))}")
    rng = np.random.default_rng([seed, index, SCRIPT_STREAM])
    members = [index % speakers]
    if kind in WITH_TWO:
        if speakers < 2:
            raise ValueError(f"a film of kind {kind} needs two speakers, got {speakers}")
        order = np.roll(np.arange(speakers - 1), -int(rng.integers(speakers - 1)))
        others = (members[0] + 1 + order) % speakers
        members.append(_of_the_same_split(seed, members[0], others, base_voices))
    people = tuple(draw_member(seed, member, base_voices) for member in members)
    own_size = SIZES[rng.choice(len(SIZES), p=SIZE_SHARES)]
    wide_size = SIZES[rng.integers(WIDE_SIZES)]
    if kind in ("silent_second", "turns"):
        own_size = wide_size
    size = size or own_size
    own_duration_s = float(rng.uniform(*DURATION_S.get(kind, OTHER_DURATION_S)))
    duration_s = duration_s or own_duration_s
    plan = _Plan(kind, size, duration_s, rng)
    voices, unheard = plan.speeches()
    is_variable = bool(rng.random() < VARIABLE_SHARE)
    offset_s = float(rng.choice((-1, 1)) * rng.uniform(*OFFSET_S))
    return FilmScript(
        film_id=f"film-{seed}-{index:06d}",
        kind=kind,
        seed=(seed, index),
        size=size,
        rate=RATES[rng.choice(len(RATES), p=RATE_SHARES)],
        is_variable=is_variable,
        duration_s=duration_s,
        encoding=draw_encoding(rng, is_variable),
        people=people,
        clothes=tuple(draw_clothes(rng) for _ in people),
        shots=tuple(plan.shots()),
        turns=tuple(plan.turns()),
        voices=tuple(voices),
        unheard=tuple(unheard),
        offset_s=offset_s if kind == "sound_offset" else 0.0,
        take=index // speakers,
    )


def _of_the_same_split(
    seed: int, member: int, others: np.ndarray, base_voices: Sequence[BaseVoice]
) -> int:
    """The first of `others` in the member's split: who is held out is seen in no other film.

    Where nobody is (in a small cast), the first of all.
    """
    split = draw_member(seed, member, base_voices).split
    for other in others:
        if draw_member(seed, int(other), base_voices).split == split:
            return int(other)
    return int(others[0])


def draw_encoding(rng: np.random.Generator, is_variable: bool = False) -> Encoding:
    """Draws container, codecs and qualities.

    Args:
        rng: draws.
        is_variable: the frame rate is, which AVI cannot hold.

    Returns:
        How a film is written.
    """
    suffix = str(rng.choice((".mp4", ".mkv", ".webm", ".avi"), p=(0.60, 0.20, 0.12, 0.08)))
    if suffix == ".avi" and is_variable:
        suffix = ".mkv"
    if suffix == ".webm":
        video, audio = "libvpx-vp9", "libopus"
    elif suffix == ".avi":
        video, audio = "mpeg4", "libmp3lame"
    else:
        video = str(rng.choice(("libx264", "mpeg4"), p=(0.85, 0.15)))
        audio = str(rng.choice(("aac", "libmp3lame", "libopus"), p=(0.8, 0.1, 0.1)))
    rough = {"libx264": (20, 34), "mpeg4": (3, 9), "libvpx-vp9": (28, 46)}[video]
    rates = (48000,) if audio == "libopus" else (16000, 22050, 44100, 48000)  # Hz
    return Encoding(
        suffix=suffix,
        video_codec=video,
        quality=int(rng.integers(*rough)),
        audio_codec=audio,
        audio_rate=int(rng.choice(rates)),
        audio_channels=int(rng.integers(1, 3)),
        audio_bit_rate=int(rng.choice((48000, 64000, 96000, 128000))),
    )


class _Plan:
    """Draws what is seen and heard in a film of one kind."""

    def __init__(
        self, kind: str, size: tuple[int, int], duration_s: float, rng: np.random.Generator
    ) -> None:
        self.kind, self.size, self.duration_s, self.rng = kind, size, duration_s, rng
        self.turn_taking_s = duration_s * float(rng.uniform(0.42, 0.58))

    def speeches(self) -> tuple[list[Speech], list[Speech]]:
        """Return what is heard, and what a mouth says unheard."""
        whole = (float(self.rng.uniform(0.1, 0.7)), self.duration_s)
        if self.kind in WITHOUT_SPEECH:
            return [], [Speech(0, *whole)]
        if self.kind == "dubbed":
            return [Speech(1, *whole)], [Speech(0, *whole)]
        if self.kind == "off_screen":
            return [Speech(1, *whole)], []
        if self.kind == "turns":
            middle = self.turn_taking_s
            return [Speech(0, 0.1, middle - 0.2), Speech(1, middle + 0.2, self.duration_s)], []
        return [Speech(0, *whole)], []

    def turns(self) -> list[Turn]:
        if self.kind != "turned":
            return []
        start = self.rng.uniform(0.1, 0.5) * self.duration_s
        span = self.rng.uniform(0.25, 0.45) * self.duration_s
        return [Turn(0, start, start + span, self._side() * float(self.rng.uniform(32, 60)))]

    def shots(self) -> list[Shot]:
        if self.kind == "cuts":
            return self._cuts()
        if self.kind == "jump_cuts":
            return self._jump_cuts()
        if self.kind == "turns" and self.rng.random() < 0.5:
            middle, end = self.turn_taking_s, self.duration_s
            return [
                Shot(0.0, middle, self._setting(), (self._placement(0),)),
                Shot(middle, end, self._setting(), (self._placement(1),)),
            ]
        if self.kind in ("silent_second", "turns"):
            placements = self._side_by_side()
        else:
            placements = (self._placement(0),)
        if self.kind == "zoom":
            near = float(self.rng.uniform(0.60, 0.78))
            ends = (near * float(self.rng.uniform(0.6, 0.75)), near)
            ends = ends if self.rng.random() < 0.5 else ends[::-1]
            placements = (replace(placements[0], head_share=ends, y=0.52),)
        if self.kind == "turned_away":
            yaw = self._side() * float(self.rng.uniform(42, 60))
            placements = (replace(placements[0], yaw=yaw),)
        return [Shot(0.0, self.duration_s, self._setting(), placements)]

    def _cuts(self) -> list[Shot]:
        """Shots of the speaker, and one of somebody else or of nobody while the voice goes on."""
        times_s = self._cut_times(int(self.rng.integers(3, 5)))
        away = int(self.rng.integers(1, len(times_s) - 1))
        shots = []
        for k, (start_s, end_s) in enumerate(zip(times_s, times_s[1:], strict=False)):
            angle = float(self.rng.uniform(-14, 14))
            placements = (self._placement(0, azimuth=angle),)
            if k == away:
                placements = (self._placement(1),) if self.rng.random() < 0.5 else ()
            shots.append(Shot(start_s, end_s, self._setting(), placements))
        return shots

    def _jump_cuts(self) -> list[Shot]:
        """The same shot, cut and put together: the person jumps a little."""
        times_s, setting, first = self._cut_times(3), self._setting(), self._placement(0)
        shots = []
        for start_s, end_s in zip(times_s, times_s[1:], strict=False):
            share = first.head_share[0] * float(self.rng.uniform(0.88, 1.12))
            moved = replace(
                first,
                x=first.x + float(self.rng.uniform(-0.06, 0.06)),
                head_share=(share, share),
                yaw=first.yaw + float(self.rng.uniform(-7, 7)),
            )
            shots.append(Shot(start_s, end_s, setting, (moved,)))
        return shots

    def _side_by_side(self) -> tuple[Placement, ...]:
        left, right = (int(k) for k in self.rng.permutation(2))
        share = np.clip(self.rng.uniform(95, 125) / FACE_SHARE / self.size[1], 0.42, 0.6)
        places = []
        for person, x, side in ((left, 0.27, 1), (right, 0.73, -1)):
            own = float(share * self.rng.uniform(0.92, 1.08))
            yaw = side * float(self.rng.uniform(0, 11))
            places.append(self._placement(person, x=x, head_share=(own, own), yaw=yaw))
        return tuple(places)

    def _placement(self, person: int, **changes) -> Placement:
        rng = self.rng
        share = np.clip(rng.uniform(*FACE_PX) / FACE_SHARE / self.size[1], 0.45, 0.74)
        share = float(share)
        drawn = Placement(
            person,
            x=float(rng.uniform(0.4, 0.6)),
            y=float(np.clip(0.5 + rng.normal(0, 0.02), 0.1 + share / 2, 0.6)),
            head_share=(share, share),
            yaw=float(np.clip(rng.normal(0, 5), -12, 12)),
            pitch=float(np.clip(rng.normal(0, 3), -7, 7)),
            azimuth=float(np.clip(rng.normal(0, 4), -10, 10)),
            distance=float(rng.uniform(0.9, 1.6)),
        )
        return replace(drawn, **changes)

    def _setting(self) -> Setting:
        rng = self.rng
        return Setting(
            light=draw_light(rng),
            background_seed=int(rng.integers(2**31)),
            blur=float(rng.uniform(0.5, 1.0)),
            noise=float(rng.uniform(0.5, 3.0)),
            contrast=float(rng.uniform(0.9, 1.08)),
        )

    def _cut_times(self, parts: int) -> list[float]:
        inner = (np.arange(1, parts) + self.rng.uniform(-0.2, 0.2, parts - 1)) / parts
        return [0.0, *(inner * self.duration_s).tolist(), self.duration_s]

    def _side(self) -> int:
        return int(self.rng.choice((-1, 1)))
