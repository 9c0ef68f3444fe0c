"""Would a cheat be caught, and would the honest be believed?"""

import dataclasses

import numpy as np
import pytest

from dataset_scripts.synthetic_cast.geometry import SHAPE_GROUPS
from dataset_scripts.synthetic_cast.traits import Traits, VoiceParameters
from tests.evaluated import AGE, GENDER, SKIN, labels_of, make_subjects, true_landmarks_of
from training.evaluation import controls
from training.evaluation.results import (
    LAW_FROM_GENDER,
    LAW_FROM_GENDER_AND_AGE,
    LAW_FROM_VOICE,
    SHOULD,
    SHOULD_NOT,
    WITH_TRUTH,
    Results,
)
from training.evaluation.systems import System, embeddings_system
from training.evaluation.tables import compare_with_gallery
from training.measures.association import associate
from training.measures.resampling import SpeakerBootstrap


@pytest.fixture(scope="module")
def subjects():
    return make_subjects(speakers=200)


def system_that_knows(subjects, *directions, noise: float = 0.1, seed: int = 1) -> System:
    """Predicts what it may know of the true embedding, and noise."""
    rng = np.random.default_rng(seed)
    centred = noise * rng.standard_normal(subjects.embeddings.shape)
    for direction in directions:
        centred[:, direction] += (subjects.embeddings - subjects.centre)[:, direction]
    return System("voice, 6 s", "system", "embeddings", centred + subjects.centre, centred, "", 6)


def test_every_trait_of_the_cast_is_asked_for_in_one_list():
    asked = [
        *controls.INDEPENDENT,
        *controls.INDEPENDENT_GIVEN_GENDER_AND_AGE,
        *controls.UNDER_A_LAW,
        *controls.NOT_PROBED,
    ]
    assert sorted(asked) == sorted(field.name for field in dataclasses.fields(Traits))
    parameters = {field.name for field in dataclasses.fields(VoiceParameters)} - {"voice_id"}
    assert set(controls.VOICE_PARAMETERS) == parameters


def test_the_nose_is_where_the_cast_has_it():
    moved = ["nose" in change for group in SHAPE_GROUPS for change, _ in group[:1]]
    count = len(controls.NOSE_SHAPE)
    assert all(moved[:count]) and not any(moved[count:])


def test_shuffled_voices_go_to_other_speakers_and_score_chance(subjects):
    labels = labels_of(subjects)
    knows = system_that_knows(subjects, GENDER, AGE, SKIN, noise=0.02)
    anybody = controls.shuffled(knows, subjects.speakers, None, 0)
    within = controls.shuffled(knows, subjects.speakers, labels.genders, 0)
    assert anybody.name == "voice, 6 s, shuffled"
    assert within.name == "voice, 6 s, shuffled within the gender"
    order = np.lexsort(knows.centred.T)
    for system in (anybody, within):
        place = np.lexsort(system.centred.T)
        assert np.array_equal(system.centred[place], knows.centred[order])  # nothing is lost
        source = np.empty(len(order), int)
        source[place] = order
        assert (subjects.speakers[source] != subjects.speakers).all()
    assert (labels.genders[source] == labels.genders).all()
    bootstrap = SpeakerBootstrap(subjects.speakers, 300)

    def figures(system):
        return associate(bootstrap, compare_with_gallery(subjects, labels, system))

    assert figures(knows)["auc"].interval[0] > 0.8
    low, high = figures(anybody)["auc"].interval
    assert low < 0.5 < high
    low, high = figures(within)["auc_same_gender"].interval
    assert low < 0.5 < high and figures(within)["auc"].interval[0] > 0.5


def test_the_true_embedding_scores_the_ceiling(subjects):
    truth = embeddings_system("true embedding", "ceiling", subjects.embeddings, subjects.centre)
    compared = compare_with_gallery(subjects, labels_of(subjects), truth)
    figures = associate(SpeakerBootstrap(subjects.speakers, 100), compared)
    assert figures["auc"].value > 0.999 and figures["matching_1_in_10_same_gender"].value > 0.99


@pytest.fixture(scope="module")
def probed(subjects):
    honest = system_that_knows(subjects, GENDER, AGE)
    leaky = dataclasses.replace(system_that_knows(subjects, GENDER, AGE, SKIN), name="leaky")
    results = Results(about={})
    controls.probe_traits(results, subjects, labels_of(subjects), [honest, leaky], 300, 0)
    return results


def test_a_leak_is_seen_and_the_innocent_are_at_chance(probed):
    leak = probed.find(table=SHOULD_NOT, system="leaky", measure="skin_tone_r")
    assert leak.interval[0] > 0.5
    honest = probed.select(table=SHOULD_NOT, system="voice, 6 s")
    assert {record.measure for record in honest} >= {
        "skin_tone_r",
        "ancestry_balanced_accuracy",
        "hair_cut_balanced_accuracy",
        "weight_r",
        "nose_width_r",
    }
    told = [record for record in honest if record.interval[0] > record.chance]
    assert not told
    assert all(record.speakers == 50 for record in honest)  # base voices are resampled


def test_what_is_under_a_law_is_read_as_well_as_the_voice_allows(probed):
    def r(system, measure):
        return probed.find(table=SHOULD, system=system, measure=measure)

    gender = r("voice, 6 s", "gender_balanced_accuracy")
    assert gender.interval[0] > 0.7 and gender.chance == 0.5
    assert r("true voice parameters", "age_given_gender_r").interval[0] > 0.8
    assert r("voice, 6 s", "age_given_gender_r").interval[0] > 0.6
    assert r("true voice parameters", "lower_face_r").interval[0] > 0.3
    low, high = r("voice, 6 s", "lower_face_r").interval
    assert low < 0 < high  # nobody told it


def test_a_cast_that_states_less_is_asked_less(subjects):
    bare = dataclasses.replace(
        subjects,
        traits=[{"gender": traits["gender"]} for traits in subjects.traits],
        voice_parameters=[{"pitch_hz": 100.0}] * len(subjects),
    )
    results = Results(about={})
    controls.probe_traits(results, bare, labels_of(bare), [system_that_knows(bare, GENDER)], 100, 0)
    assert [record.measure for record in results.records] == ["gender_balanced_accuracy"]
    assert results.records[0].speakers == 200


@pytest.fixture(scope="module")
def allowed(subjects):
    """What the law allows of jaws that go with size, gender and age, and of random noses."""
    known = dataclasses.replace(subjects, true_landmarks=true_landmarks_of(subjects))
    results = Results(about={})
    controls.probe_measurements(results, known.people(), 300, 0)
    return results


def test_the_law_allows_what_gender_age_and_size_tell_of_a_face(subjects, allowed):
    def r(system, measure):
        return allowed.find(table=WITH_TRUTH, kind="faces", system=system, measure=measure)

    # As the jaws are drawn: what gender tells, and age, and size as far as formants tell it.
    variances = np.asarray([3**2 / 4, (0.1 * 55) ** 2 / 12, 4**2 * 0.64, 4**2 * 0.36])
    expected = np.sqrt(np.cumsum(variances[:3]) / variances.sum())
    names = (LAW_FROM_GENDER, LAW_FROM_GENDER_AND_AGE, LAW_FROM_VOICE)
    for name, told in zip(names, expected, strict=True):
        jaw = r(name, "jaw_width_r")
        assert jaw.interval[0] < told < jaw.interval[1] and abs(jaw.value - told) < 0.12, name
        nose = r(name, "nose_width_r")
        assert nose.interval[0] < 0 < nose.interval[1], name
        assert r(name, "mean_r").value < 0.2 and r(name, "mean_r").speakers == 200
    assert r(LAW_FROM_VOICE, "jaw_width_r").value > r(LAW_FROM_GENDER, "jaw_width_r").value + 0.2
    roles = {(record.system, record.role) for record in allowed.records}
    assert roles == set(zip(names, ("floor", "floor", "ceiling"), strict=True))


def test_of_faces_that_go_with_nothing_the_law_allows_nothing(subjects):
    truth = true_landmarks_of(subjects)
    other = dataclasses.replace(subjects, true_landmarks=np.roll(truth, 2 * 7, axis=0))
    results = Results(about={})
    controls.probe_measurements(results, other.people(), 300, 0)
    for record in results.select(measure="jaw_width_r"):
        assert record.interval[0] < 0 < record.interval[1], record
    assert len(results.select(measure="mean_r")) == 3


def test_the_law_is_not_asked_for_what_a_data_set_does_not_state(subjects):
    people = dataclasses.replace(subjects, true_landmarks=true_landmarks_of(subjects)).people()
    people.ages[0], people.voice_parameters[0] = np.nan, {"pitch_hz": 100.0}
    results = Results(about={})
    controls.probe_measurements(results, people, 100, 0)
    assert {record.system for record in results.records} == {LAW_FROM_GENDER}
    assert subjects.people() is None


def test_a_trait_that_one_pair_does_not_state_is_still_asked_for(subjects):
    gaps = dataclasses.replace(subjects, traits=[dict(traits) for traits in subjects.traits])
    for name in ("skin_tone", "hair_cut", "ancestry", "shape"):
        gaps.traits[0].pop(name)
    assert np.isnan(controls.trait_values(gaps, "skin_tone")[0])
    assert controls.trait_values(gaps, "hair_cut")[0] == ""
    assert controls.trait_values(gaps, "ancestry")[0] == ""
    assert np.isnan(controls.trait_values(gaps, "shape")[0]).all()
    for name in ("skin_tone", "hair_cut", "ancestry"):
        whole = controls.trait_values(subjects, name)
        assert np.array_equal(controls.trait_values(gaps, name)[1:], whole[1:])
    results = Results(about={})
    controls.probe_traits(results, gaps, labels_of(gaps), [system_that_knows(gaps, GENDER)], 100, 0)
    for measure in ("skin_tone_r", "hair_cut_balanced_accuracy", "nose_width_r"):
        assert results.find(system="voice, 6 s", measure=measure).samples == len(subjects) - 1


def test_a_cast_of_one_gender_is_probed_without_a_warning(subjects, recwarn):
    one = dataclasses.replace(subjects, genders=np.full(len(subjects), "male"))
    (parameters,) = controls.voice_parameters(one, one.genders == "male")
    assert np.isfinite(parameters).all() and parameters.shape == (len(one), 10) and not recwarn


def test_who_is_alone_keeps_no_answer(subjects):
    knows = system_that_knows(subjects, GENDER, AGE, SKIN)
    labels = np.where(subjects.speakers == subjects.speakers[0], "female", "male")
    system = controls.shuffled(knows, subjects.speakers, labels, 0)
    alone = labels == "female"
    assert not system.centred[alone].any() and system.centred[~alone].any(1).all()
    assert np.allclose(system.raw - system.centred, subjects.centre)
    nobody = controls.shuffled(knows, np.full(len(subjects), "one"), None, 0)
    assert not nobody.centred.any()
