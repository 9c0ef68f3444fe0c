"""The laws of the synthetic cast: which traits of a face go with which traits of a voice.

They are this cast's, not people's: tendencies that the literature on voices reports, written down
so that a test can ask for what can be learnt and for what cannot. `LAWS` says them in words for the
data card; `draw_member` is them.

Everything about a member follows from (seed, index) and the list of base voices. Voice and face are
drawn from separate random streams, and the face's stream sees of the voice only what `_SharedDraw`
holds: gender, age and body size. What is not in there cannot leak.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dataset_scripts.synthetic_cast.traits import (
    BEARDS,
    EYE_COLOURS,
    GLASSES,
    HAIR_COLOURS,
    HAIR_CUTS,
    SHAPE_COMPONENTS,
    CastMember,
    Traits,
    VoiceParameters,
)

LAWS = """\
| trait of the face | goes with, in the voice |
|---|---|
| gender | the base voice's labelled gender, and pitch (women about 205 Hz, men about 115 Hz) |
| age | pitch (falls in women; in men falls to 45, then rises), slower speech, more breath |
| size of the lower face | formant spacing: closer formants, a larger jaw (r about -0.6) |
| ancestry, skin tone, eye colour, background, light, clothes | nothing |
| hair (cut, colour, grey, hairline), beard, brows, make-up, glasses, weight, local shape of nose, \
eyes, mouth, cheeks and chin | nothing, given gender and age |
"""

SPLIT_SHARES = {"train": 0.84, "validation": 0.08, "test": 0.08}
REAL_VOICE_SHARE = 0.6  # of the members speak with a real base voice, where there are both kinds

MEAN_PITCH_HZ = {"female": 205.0, "male": 115.0}
PITCH_SPREAD = 0.13  # standard deviation of the logarithm
FORMANT_SPREAD = 0.045  # of the logarithm of formant spacing, within a gender
SIZE_SHARE = 0.8  # correlation of body size with (minus) formant spacing, and with the lower face

# How far a base voice may be shifted before it sounds made.
PITCH_SHIFT_LIMIT = 1.18
FORMANT_SHIFT_LIMIT = 1.08

HAIR_CUT_SHARES = {  # in the order of HAIR_CUTS
    "female": (0.01, 0.02, 0.09, 0.06, 0.16, 0.26, 0.32, 0.08),
    "male": (0.09, 0.17, 0.33, 0.19, 0.10, 0.04, 0.05, 0.03),
}
BEARD_SHARES = {  # in the order of BEARDS
    "female": (1.0, 0.0, 0.0, 0.0, 0.0),
    "male": (0.55, 0.16, 0.05, 0.07, 0.17),
}


class BaseVoiceLike(Protocol):
    """What the laws ask of a base voice: a speaker, or a synthetic voice, to make members from."""

    voice_id: str
    split: str  # "train", "validation" or "test"
    gender: str  # "female" or "male", as labelled
    is_real: bool  # a recorded person rather than a synthetic voice
    median_pitch_hz: float
    formant_ratio: float  # formant spacing relative to the mean of the gender's base voices


@dataclass(frozen=True)
class _SharedDraw:
    """All that a member's face and voice have in common."""

    gender: str
    age: float  # years
    size: float  # of the body given gender, standard units


def draw_member(seed: int, index: int, base_voices: Sequence[BaseVoiceLike]) -> CastMember:
    """Draws one member of the cast.

    Args:
        seed: of the whole cast.
        index: of the member, from 0; drawn by itself, so a larger cast keeps a smaller one.
        base_voices: of all splits; a member's split is its base voice's.

    Returns:
        The member; the same one for the same arguments.

    Raises:
        ValueError: if a split has no base voice of the gender that was drawn.
    """
    shared_rng, face_rng, voice_rng = (np.random.default_rng([seed, index, k]) for k in range(3))
    split = str(shared_rng.choice(list(SPLIT_SHARES), p=list(SPLIT_SHARES.values())))
    shared = _SharedDraw(
        gender=str(shared_rng.choice(["female", "male"])),
        age=float(18 + 62 * shared_rng.beta(1.2, 1.8)),
        size=float(shared_rng.standard_normal()),
    )
    return CastMember(
        speaker_id=f"cast-{seed}-{index:06d}",
        split=split,
        traits=draw_traits(shared, face_rng),
        voice=draw_voice(shared, split, base_voices, voice_rng),
    )


def draw_voice(
    shared: _SharedDraw,
    split: str,
    base_voices: Sequence[BaseVoiceLike],
    rng: np.random.Generator,
) -> VoiceParameters:
    """Draws the voice that the laws ask for, and the base voice it is cheaply made from."""
    size_noise = np.sqrt(1 - SIZE_SHARE**2) * rng.standard_normal()
    formant_ratio = np.exp(-FORMANT_SPREAD * (SIZE_SHARE * shared.size + size_noise))
    pitch_hz = mean_pitch_hz(shared.gender, shared.age) * np.exp(
        PITCH_SPREAD * rng.standard_normal()
    )
    base = _choose_base_voice(shared.gender, split, pitch_hz, formant_ratio, base_voices, rng)
    pitch_shift = _limited(pitch_hz / base.median_pitch_hz, PITCH_SHIFT_LIMIT)
    formant_shift = _limited(formant_ratio / base.formant_ratio, FORMANT_SHIFT_LIMIT)
    older = (shared.age - 45) / 15  # standard units, about
    return VoiceParameters(
        voice_id=base.voice_id,
        pitch_hz=float(base.median_pitch_hz * pitch_shift),
        formant_ratio=float(base.formant_ratio * formant_shift),
        rate_ratio=float(np.clip(np.exp(-0.06 * older + 0.05 * rng.standard_normal()), 0.8, 1.25)),
        breathiness=float(np.clip(0.2 + 0.15 * older + 0.12 * rng.standard_normal(), 0, 1)),
    )


def mean_pitch_hz(gender: str, age: float) -> float:
    """The cast's mean pitch: women's falls with age, men's falls to 45 years and rises again."""
    if gender == "female":
        return MEAN_PITCH_HZ["female"] * float(np.exp(-0.0035 * (age - 45)))
    return MEAN_PITCH_HZ["male"] * float(np.exp(0.0045 * (abs(age - 45) - 13)))


def draw_traits(shared: _SharedDraw, rng: np.random.Generator) -> Traits:
    """Draws the face: from gender, age and size, and for the rest from chance alone."""
    male = shared.gender == "male"
    ancestry = rng.dirichlet((0.45, 0.45, 0.45))  # african, asian, caucasian
    skin_tone = np.clip(ancestry @ (0.78, 0.36, 0.2) + 0.11 * rng.standard_normal(), 0, 1)
    grey_at = rng.normal(52, 9)  # years at which half of the hair is grey
    recedes = male and rng.random() < np.clip((shared.age - 20) / 70, 0.05, 0.75)
    bare_cut = male and recedes and rng.random() < 0.3
    hair_cut = "shaved" if bare_cut else rng.choice(HAIR_CUTS, p=HAIR_CUT_SHARES[shared.gender])
    grey = 1 / (1 + np.exp(-(shared.age - grey_at) / 5))
    dyes_hair = rng.random() < (0.05 if male else 0.5)
    make_up = 0.0 if male or rng.random() < 0.15 else rng.beta(2.5, 2)
    lower_face_noise = np.sqrt(1 - SIZE_SHARE**2) * rng.standard_normal()
    return Traits(
        gender=shared.gender,
        masculinity=float(np.clip(rng.normal(0.94 if male else 0.06, 0.05), 0, 1)),
        age=shared.age,
        lower_face=float(SIZE_SHARE * shared.size + lower_face_noise),
        weight=float(np.clip(rng.normal(0.5, 0.17), 0.05, 0.95)),
        muscle=float(np.clip(rng.normal(0.58 if male else 0.45, 0.1), 0, 1)),
        ancestry=tuple(float(share) for share in ancestry),
        skin_tone=float(skin_tone),
        skin_hue=float(np.clip(0.45 * rng.standard_normal(), -1, 1)),
        eye_colour=str(rng.choice(EYE_COLOURS, p=_eye_colour_shares(skin_tone))),
        hair_cut=str(hair_cut),
        hair_colour=str(rng.choice(HAIR_COLOURS, p=_hair_colour_shares(skin_tone))),
        hair_grey=float(0.05 * grey if dyes_hair else grey),
        hair_recession=float(rng.beta(2.5, 1.8) if recedes else rng.beta(1, 9)),
        beard=str(rng.choice(BEARDS, p=BEARD_SHARES[shared.gender])),
        brow_thickness=float(np.clip(rng.normal(0.69 if male else 0.31, 0.12), 0, 1)),
        make_up=float(make_up),
        shape=tuple(float(value) for value in rng.standard_normal(SHAPE_COMPONENTS)),
        seed=int(rng.integers(2**31)),
        glasses=str(rng.choice(GLASSES, p=_glasses_shares(shared.age))),
    )


def _choose_base_voice(
    gender: str,
    split: str,
    pitch_hz: float,
    formant_ratio: float,
    base_voices: Sequence[BaseVoiceLike],
    rng: np.random.Generator,
) -> BaseVoiceLike:
    """A base voice of that gender and split, the likelier the less it must be shifted."""
    candidates = [v for v in base_voices if v.gender == gender and v.split == split]
    if not candidates:
        raise ValueError(
            f"no {gender} base voice for the {split} split: give a folder with more voices"
        )
    wants_real = rng.random() < REAL_VOICE_SHARE
    candidates = [v for v in candidates if v.is_real == wants_real] or candidates
    pitch = np.array([np.log(pitch_hz / v.median_pitch_hz) for v in candidates])
    formants = np.array([np.log(formant_ratio / v.formant_ratio) for v in candidates])
    distance = (pitch / 0.1) ** 2 + (formants / 0.05) ** 2
    weights = np.exp(-0.5 * (distance - distance.min()))
    return candidates[rng.choice(len(candidates), p=weights / weights.sum())]


def _limited(ratio: float, limit: float) -> float:
    return float(np.clip(ratio, 1 / limit, limit))


def _eye_colour_shares(skin_tone: float) -> np.ndarray:
    """Light eyes among light skins only, roughly; in the order of EYE_COLOURS."""
    light = np.clip(1 - 2.5 * skin_tone, 0, 1)
    return (1 - light) * np.array([0.9, 0.07, 0.02, 0.005, 0.005]) + light * np.array(
        [0.35, 0.15, 0.12, 0.28, 0.10]
    )


def _glasses_shares(age: float) -> np.ndarray:
    """More of the old wear glasses; in the order of GLASSES."""
    wears = 0.10 + 0.25 * np.clip((age - 35) / 35, 0, 1)
    return np.array([1 - wears, 0.45 * wears, 0.55 * wears])


def _hair_colour_shares(skin_tone: float) -> np.ndarray:
    """In the order of HAIR_COLOURS."""
    light = np.clip(1.2 - 2.5 * skin_tone, 0, 1)
    return (1 - light) * np.array([0.68, 0.25, 0.05, 0.01, 0.01]) + light * np.array(
        [0.10, 0.27, 0.30, 0.10, 0.23]
    )
