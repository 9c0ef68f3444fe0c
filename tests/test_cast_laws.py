"""The cast's laws hold, and what they call independent is: on drawn members, without rendering."""

from dataclasses import dataclass, fields

import numpy as np
import pytest

from dataset_scripts.synthetic_cast.laws import draw_member, mean_pitch_hz
from dataset_scripts.synthetic_cast.traits import (
    BEARDS,
    EYE_COLOURS,
    GLASSES,
    HAIR_COLOURS,
    HAIR_CUTS,
    Traits,
)

MEMBERS = 2000
VOICE_COLUMNS = ("pitch_hz", "formant_ratio", "rate_ratio", "breathiness")
TIED_TO_THE_VOICE = {"gender", "age", "lower_face"}


@dataclass(frozen=True)
class FakeVoice:
    voice_id: str
    split: str
    gender: str
    is_real: bool
    median_pitch_hz: float
    formant_ratio: float


@pytest.fixture(scope="module")
def base_voices() -> list[FakeVoice]:
    rng = np.random.default_rng(0)
    voices = []
    for number in range(160):
        gender = ("female", "male")[number % 2]
        pitch = (205 if gender == "female" else 115) * np.exp(0.15 * rng.standard_normal())
        split = ("train", "train", "train", "validation", "test")[number % 5]
        formants = np.exp(0.04 * rng.standard_normal())
        voices.append(FakeVoice(f"v{number}", split, gender, number % 3 > 0, pitch, formants))
    return voices


@pytest.fixture(scope="module")
def members(base_voices):
    return [draw_member(7, index, base_voices) for index in range(MEMBERS)]


def one_hot(values: list[str], names: tuple[str, ...], prefix: str) -> dict[str, np.ndarray]:
    return {f"{prefix}={name}": np.array([v == name for v in values], float) for name in names}


def columns(members, independent_of_gender: bool) -> dict[str, np.ndarray]:
    """The traits that the laws call independent of the voice: outright, or given gender and age."""
    traits = [m.traits for m in members]
    if independent_of_gender:
        ancestry = {f"ancestry{k}": np.array([t.ancestry[k] for t in traits]) for k in range(3)}
        plain = {n: np.array([getattr(t, n) for t in traits]) for n in ("skin_tone", "skin_hue")}
        return ancestry | plain | one_hot([t.eye_colour for t in traits], EYE_COLOURS, "eye_colour")
    names = ("masculinity", "weight", "muscle", "hair_grey", "hair_recession")
    names += ("brow_thickness", "make_up", "seed")
    plain = {n: np.array([getattr(t, n) for t in traits], float) for n in names}
    shape = np.array([t.shape for t in traits])
    plain |= {f"shape{k}": shape[:, k] for k in range(shape.shape[1])}
    plain |= one_hot([t.beard for t in traits], BEARDS, "beard")
    plain |= one_hot([t.hair_cut for t in traits], HAIR_CUTS, "hair_cut")
    plain |= one_hot([t.glasses for t in traits], GLASSES, "glasses")
    return plain | one_hot([t.hair_colour for t in traits], HAIR_COLOURS, "hair_colour")


def voice_columns(members, base_voices) -> dict[str, np.ndarray]:
    is_real = {voice.voice_id: float(voice.is_real) for voice in base_voices}
    parameters = {n: np.array([getattr(m.voice, n) for m in members]) for n in VOICE_COLUMNS}
    return parameters | {"is_real": np.array([is_real[m.voice.voice_id] for m in members])}


def standardised_within(values: np.ndarray, strata: np.ndarray, age: np.ndarray) -> np.ndarray:
    """Values with each stratum's mean and linear trend in age taken out, then scaled."""
    rest = values.astype(float).copy()
    for stratum in np.unique(strata):
        inside = strata == stratum
        design = np.stack([np.ones(inside.sum()), age[inside]], 1)
        rest[inside] -= design @ np.linalg.lstsq(design, rest[inside], rcond=None)[0]
    return rest / max(rest.std(), 1e-12)


def assert_uncorrelated(traits: dict, voices: dict, strata: np.ndarray, age: np.ndarray) -> None:
    """|r| < 0.08, or inside what shuffled members reach (99 % of the largest |r| of all pairs)."""
    x = np.stack([standardised_within(v, strata, age) for v in traits.values()])
    y = np.stack([standardised_within(v, strata, age) for v in voices.values()])
    correlation = x @ y.T / x.shape[1]
    rng = np.random.default_rng(1)
    shuffled = [np.abs(x @ y[:, rng.permutation(y.shape[1])].T).max() for _ in range(500)]
    limit = max(0.08, np.quantile(shuffled, 0.99) / x.shape[1])
    for row, trait in enumerate(traits):
        for column, voice in enumerate(voices):
            assert abs(correlation[row, column]) < limit, (trait, voice, correlation[row, column])


def test_what_is_independent_of_the_voice_is(members, base_voices):
    everyone = np.zeros(MEMBERS, int)
    traits, voices = columns(members, True), voice_columns(members, base_voices)
    voices["is_male"] = np.array([m.traits.gender == "male" for m in members], float)
    assert_uncorrelated(traits, voices, everyone, np.zeros(MEMBERS))


@pytest.mark.parametrize("gender", ["either", "female", "male"])
def test_what_is_independent_given_gender_and_age_is(members, base_voices, gender):
    """Each gender also alone: what holds for men's beards must not drown among the women."""
    members = [m for m in members if gender in ("either", m.traits.gender)]
    age = np.array([m.traits.age for m in members])
    male = np.array([m.traits.gender == "male" for m in members], int)
    strata = male * 100 + (age // 10).astype(int)
    voices = voice_columns(members, base_voices)
    assert_uncorrelated(columns(members, False), voices, strata, age)


def test_every_trait_is_tied_to_the_voice_or_tested_not_to_be(members):
    tested = [*columns(members, True), *columns(members, False)]
    names = {field.name for field in fields(Traits)}
    untested = {name for name in names if not any(column.startswith(name) for column in tested)}
    assert untested == TIED_TO_THE_VOICE


def test_the_laws_are_there_to_be_learnt(members, base_voices):
    male = np.array([m.traits.gender == "male" for m in members])
    age = np.array([m.traits.age for m in members])
    lower_face = np.array([m.traits.lower_face for m in members])
    voice = voice_columns(members, base_voices)
    assert np.median(voice["pitch_hz"][male]) < 0.65 * np.median(voice["pitch_hz"][~male])
    assert np.corrcoef(age, voice["rate_ratio"])[0, 1] < -0.5
    assert np.corrcoef(age, voice["breathiness"])[0, 1] > 0.5
    assert np.corrcoef(age[~male], voice["pitch_hz"][~male])[0, 1] < -0.2
    for gender in (male, ~male):
        r = np.corrcoef(lower_face[gender], voice["formant_ratio"][gender])[0, 1]
        assert -0.75 < r < -0.4


def test_people_not_caricatures(members):
    men = [m.traits for m in members if m.traits.gender == "male"]
    women = [m.traits for m in members if m.traits.gender == "female"]
    assert np.mean([t.beard == "none" for t in men]) >= 0.5
    assert all(t.beard == "none" for t in women)
    long_cuts, short_cuts = ("bob", "long", "tied_back"), ("shaved", "buzz", "short")
    assert np.mean([t.hair_cut in long_cuts for t in men]) > 0.05
    assert np.mean([t.hair_cut in short_cuts for t in women]) > 0.05


def test_a_member_is_the_same_whatever_the_size_of_the_cast(base_voices, members):
    assert draw_member(7, 41, base_voices) == members[41]
    assert draw_member(8, 41, base_voices) != members[41]


def test_voices_stay_in_their_split_and_shifts_within_limits(base_voices, members):
    by_id = {voice.voice_id: voice for voice in base_voices}
    for member in members:
        base = by_id[member.voice.voice_id]
        assert (base.split, base.gender) == (member.split, member.traits.gender)
        assert 1 / 1.19 < member.voice.pitch_hz / base.median_pitch_hz < 1.19
        assert 1 / 1.09 < member.voice.formant_ratio / base.formant_ratio < 1.09


def test_a_split_without_voices_is_refused(base_voices):
    women = [voice for voice in base_voices if voice.gender == "female"]
    with pytest.raises(ValueError, match="no male base voice"):
        [draw_member(7, index, women) for index in range(10)]


def test_pitch_falls_with_age_in_women_and_rises_again_in_men():
    assert mean_pitch_hz("female", 70) < mean_pitch_hz("female", 20)
    assert mean_pitch_hz("male", 75) > mean_pitch_hz("male", 45) < mean_pitch_hz("male", 20)
