"""Floors, ceilings, groups and differences, on people whose answers are known."""

import argparse
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from tests.evaluated import AGE, GENDER, labels_of, make_subjects, readings_of, true_landmarks_of
from training.evaluation import controls, run, tables
from training.evaluation.chart_data import chart_data
from training.evaluation.results import WITH_TRUTH, Results
from training.evaluation.systems import (
    Donors,
    System,
    embedding_ceilings,
    embedding_floors,
    face_floors,
    faces_system,
)
from training.evaluation.tables import BY_GROUP, FEWEST_IN_A_GROUP


@pytest.fixture(scope="module")
def subjects():
    return make_subjects()


@pytest.fixture(scope="module")
def systems(subjects):
    """Floors, a voice that tells gender and age a little, ceilings; and faces of all of them."""
    rng = np.random.default_rng(5)
    labels = labels_of(subjects)
    heard = []
    for seconds, noise in ((3.0, 0.5), (6.0, 0.2)):
        centred = noise * rng.standard_normal(subjects.embeddings.shape)
        for direction in (GENDER, AGE):
            centred[:, direction] += (subjects.embeddings - subjects.centre)[:, direction]
        raw = centred + subjects.centre
        heard.append(
            System(f"voice, {seconds:g} s", "system", "embeddings", raw, centred, "", seconds)
        )
    embeddings = embedding_floors(subjects, labels.genders, labels.age_groups)
    embeddings += [*heard, *embedding_ceilings(subjects)]
    decoded = subjects.embeddings + 0.1 * rng.standard_normal(subjects.embeddings.shape) + 0.4
    from_true = faces_system(
        "diffusion from true embedding",
        "ceiling",
        readings_of(subjects, decoded),
        conditions=subjects.embeddings - subjects.centre,
    )
    from_voice = faces_system(
        "diffusion from voice, 6 s",
        "system",
        readings_of(subjects, heard[1].raw + 0.4, seed=1),
        conditions=heard[1].centred,
        from_true=from_true,
        seconds=6.0,
    )
    return embeddings, [from_voice, from_true]


@pytest.fixture(scope="module")
def results(subjects, systems):
    original = faces_system("original", "ceiling", readings_of(subjects, subjects.embeddings))
    bench = SimpleNamespace(subjects=subjects, original=original)
    results = Results(about={"rounds": 200, "seed": 0})
    run.measure(results, bench, labels_of(subjects), *systems)
    results.charts = chart_data(subjects, labels_of(subjects), sum(systems, []), original)
    return results


def value(results, system, measure, **where):
    return results.find(system=system, measure=measure, **where).value


def test_a_constant_knows_nothing_and_the_truth_everything(results):
    def auc(system, suffix=""):
        return value(results, system, f"auc{suffix}", table="association")

    assert auc("constant") == 0.5 and auc("true embedding") > 0.999
    assert auc("gender oracle") > 0.7
    # Not exactly: the genders' scores are pooled, and the genders are not equally many.
    assert auc("gender oracle", "_same_gender") == pytest.approx(0.5, abs=0.02)
    both = "_same_gender_and_age_group"
    assert auc("gender-and-age oracle") > auc("gender oracle")
    assert auc("gender-and-age oracle", both) == pytest.approx(0.5, abs=0.05)
    assert auc("another picture of the speaker") > auc("voice, 6 s") > auc("voice, 3 s")
    cosine = value(results, "constant", "cosine_raw", table="feature_similarity")
    assert 0.5 < cosine < 1
    assert value(results, "constant", "cosine_centred", table="feature_similarity") == 0


def test_faces_are_centred_by_their_own_set(results):
    # Both decoders' faces are off by 0.4 everywhere: that is no identity.
    kept = results.find(table="identity_kept", system="diffusion from true embedding")
    assert kept.kind == "faces" and kept.value > 0.9
    auc = value(results, "diffusion from true embedding", "auc", table="association")
    assert auc > 0.999


def test_every_group_of_five_is_measured_and_smaller_ones_are_not(subjects, results):
    found = {
        (record.by, record.group)
        for record in results.records
        if record.table == "association" and record.by
    }
    assert {("gender", "female"), ("gender", "male"), ("age group", "60 and over")} <= found
    assert {("hair cut", "bob"), ("skin tone", "low third"), ("ancestry", "asian")} <= found
    names = np.unique(subjects.speakers)[: FEWEST_IN_A_GROUP - 1]
    few = dataclasses.replace(subjects)
    few.traits = [
        {"kind": "rare" if speaker in names else "usual"} for speaker in subjects.speakers
    ]
    groups = {(by, group) for by, group, _ in tables.groups_of(few, labels_of(few))}
    assert ("kind", "usual") in groups and ("kind", "rare") not in groups


def test_a_group_is_its_members(subjects, results):
    figure = results.find(
        table="feature_similarity",
        system="voice, 6 s",
        measure="cosine_centred",
        by="gender",
        group="male",
    )
    assert figure.samples == (subjects.genders == "male").sum()
    whole = results.find(table="feature_similarity", system="voice, 6 s", measure="cosine_centred")
    other = results.find(
        table="feature_similarity",
        system="voice, 6 s",
        measure="cosine_centred",
        by="gender",
        group="female",
    )
    together = (figure.value * figure.samples + other.value * other.samples) / whole.samples
    assert together == pytest.approx(whole.value, rel=1e-5)  # records have six digits


def test_embeddings_and_faces_share_no_table_and_every_figure_has_a_floor(results):
    for table in ("feature_similarity", "retrieval", "association"):
        kinds = {record.kind for record in results.select(table=table)}
        assert kinds == {"embeddings", "faces"}
        for kind in kinds:
            roles = {record.role for record in results.select(table=table, kind=kind)}
            assert "ceiling" in roles and "system" in roles
    for record in results.records:
        assert record.interval is None or record.interval[0] <= record.interval[1]
        assert record.by is None or record.measure in BY_GROUP[record.table]


def test_differences_are_paired_and_of_one_kind(results):
    def difference(other, measure):
        where = {"table": "differences", "system": "voice, 6 s", "kind": "embeddings"}
        return results.find(**where, other=other, measure=measure)

    above = difference("voice, 3 s", "association: auc")
    six = results.find(table="association", system="voice, 6 s", measure="auc")
    three = results.find(table="association", system="voice, 3 s", measure="auc")
    assert above.value == pytest.approx(six.value - three.value, abs=1e-5) and above.interval[0] > 0
    assert difference("constant", "association: auc").interval[0] > 0
    assert difference("gender-and-age oracle", "association: auc").interval[1] < 0.2
    kinds = {(r.kind, r.system, r.other) for r in results.select(table="differences")}
    assert not [k for k in kinds if "diffusion" in k[1] and "voice, 3 s" == k[2]]


def test_faces_are_measured_against_the_true_ones_where_these_are_known(subjects, systems, results):
    assert not results.select(table=WITH_TRUTH)
    truth = true_landmarks_of(subjects)
    exchanged = np.roll(truth, 2 * 7, axis=0)  # of the seventh speaker before

    def faces(name: str, role: str, landmarks: np.ndarray) -> System:
        readings = readings_of(subjects, subjects.embeddings)
        return faces_system(name, role, dataclasses.replace(readings, landmarks=landmarks))

    noisy = truth + 12 * np.random.default_rng(1).standard_normal(truth.shape)
    original = faces("original", "ceiling", noisy)
    others = [
        faces("right from voice", "system", truth),
        faces("of others from voice", "system", exchanged),
        faces("average face", "floor", np.broadcast_to(truth[0], truth.shape)),
    ]
    known = dataclasses.replace(subjects, true_landmarks=truth)
    found = Results(about={"rounds": 200, "seed": 0})
    bench = SimpleNamespace(subjects=known, original=original)
    run.measure(found, bench, labels_of(known), systems[0][:1], others)
    beside = {record.system for record in found.select(table=WITH_TRUTH)}
    assert beside == {"original", *(system.name for system in others)}
    right = found.select(table=WITH_TRUTH, system="right from voice")
    assert len(right) == 14 and {r.value for r in right if "permuted" not in r.measure} == {1.0}
    low, high = found.find(
        table=WITH_TRUTH, system="right from voice", measure="permuted_mean_r"
    ).interval
    assert low < 0 < high < 0.15
    low, high = found.find(
        table=WITH_TRUTH, system="of others from voice", measure="mean_r"
    ).interval
    assert low < 0 < high < 0.15
    assert 0.7 < value(found, "original", "mean_r", table=WITH_TRUTH) < 0.99
    assert value(found, "average face", "mean_r", table=WITH_TRUTH) is None
    of_men = {"system": "right from voice", "measure": "mean_r", "by": "gender", "group": "male"}
    assert found.find(table=WITH_TRUTH, **of_men).value == 1
    pair = {"system": "right from voice", "other": "average face"}
    assert f"{WITH_TRUTH}: mean_r" in {r.measure for r in found.select(table="differences", **pair)}


def test_equals_differ_in_one_thing_alone():
    def system(family, seconds, decoder):
        empty, name = np.zeros((1, 2)), f"{family}: {decoder} from voice, {seconds} s"
        return System(name, "system", "faces", empty, empty, family, seconds, decoder)

    folder = System("theirs: faces", "system", "faces", *[np.zeros((1, 2))] * 2, "theirs")
    systems = [
        system("A", 3.0, "diffusion"),
        system("A", 6.0, "diffusion"),
        system("A", 6.0, "normalized"),
        system("B", 6.0, "normalized"),
        folder,
    ]
    pairs = [(systems.index(one), systems.index(other)) for one, other in run.rivals(systems)]
    assert pairs == [(1, 0), (2, 1), (3, 2), (4, 0), (4, 1), (4, 2), (4, 3)]


def test_systems_of_two_checkpoints_are_compared_at_the_same_length():
    def system(family, seconds, name):
        empty = np.zeros((1, 2))
        return System(name, "system", "embeddings", empty, empty, family, seconds)

    systems = [
        system("A", 3.0, "A: voice, 3 s"),
        system("A", 6.0, "A: voice, 6 s"),
        system("B", 3.0, "B: voice, 3 s"),
        system("B", 6.0, "B: voice, 6 s"),
    ]
    pairs = {(one.name, other.name) for one, other in run.rivals(systems)}
    assert pairs == {
        ("A: voice, 6 s", "A: voice, 3 s"),
        ("B: voice, 6 s", "B: voice, 3 s"),
        ("B: voice, 3 s", "A: voice, 3 s"),
        ("B: voice, 6 s", "A: voice, 6 s"),
    }


def test_charts_say_what_the_tables_say(results):
    for curve in results.charts["recall"]:
        assert curve["recall"][0] == pytest.approx(
            value(results, curve["system"], "recall_at_1", table="retrieval"), rel=1e-5
        )
        assert curve["chance"][-1] <= 1 and len(curve["k"]) == len(curve["recall"])
    for curve in results.charts["roc"]:
        suffix = f"_{curve['restriction']}" if curve["restriction"] else ""
        expected = value(results, curve["system"], f"auc{suffix}", table="association")
        assert curve["auc"] == pytest.approx(expected, abs=0.003)
    (gender,) = [
        table
        for table in results.charts["confusions"]
        if table["attribute"] == "gender" and table["system"] == "original"
    ]
    right = np.trace(gender["counts"]) / np.sum(gender["counts"])
    accuracy = value(results, "original", "gender_accuracy", table="attribute_agreement")
    assert right == pytest.approx(accuracy, rel=1e-5)
    assert len(results.charts["craniofacial"]) == 12
    assert len(results.charts["tsne"]["x"]) == 120


def test_the_judge_is_believed_where_the_data_set_is_silent(subjects):
    silent = dataclasses.replace(
        subjects,
        genders=np.full(len(subjects), ""),
        ages=np.full(len(subjects), np.nan),
    )
    readings = readings_of(subjects, subjects.embeddings)
    labels = run.labels_of(
        SimpleNamespace(subjects=silent, original=SimpleNamespace(readings=readings))
    )
    assert labels.gender_source == labels.age_source == "judge"
    assert np.array_equal(labels.genders, readings.genders)
    silent.genders[:10] = "female"  # where some are stated, the judge is not asked for the others
    labels = run.labels_of(
        SimpleNamespace(subjects=silent, original=SimpleNamespace(readings=readings))
    )
    assert labels.gender_source == "label" and (labels.genders != "").sum() == 10


def test_an_oracle_of_a_rare_group_is_the_genders(subjects):
    labels = labels_of(subjects)
    donors = Donors.of(subjects, labels.genders, labels.age_groups)
    assert np.array_equal(donors.rows("male", "no such group"), donors.rows("male", ""))
    rows = donors.rows("female", "30 to 44")
    assert (subjects.genders[rows] == "female").all() and len(rows) < len(donors.rows("female", ""))
    weights = donors.mean_embedding(np.asarray([0, 1, 2]))  # two pictures of one, one of another
    expected = (subjects.embeddings[[0, 1]].mean(0) + subjects.embeddings[2]) / 2
    assert weights == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("unstated", ["genders", "ages"])
def test_an_oracle_of_gender_and_age_is_told_both(subjects, unstated):
    labels, training = labels_of(subjects), dataclasses.replace(subjects.training)
    blank = {"genders": np.full(len(subjects), ""), "ages": np.full(len(subjects), np.nan)}
    setattr(training, unstated, blank[unstated])
    silent = dataclasses.replace(subjects, training=training)
    _, gender, both = embedding_floors(silent, labels.genders, labels.age_groups)
    assert len(np.unique(gender.raw, axis=0)) == 2 and len(np.unique(both.raw, axis=0)) == 8


def test_average_faces_are_read_once_and_given_to_all_of_the_group(subjects):
    labels = labels_of(subjects)
    bare = dataclasses.replace(subjects, training=None)
    seen = []

    def read(images, name):
        seen.append(len(images))
        size = images.reshape(len(images), -1)[:, :8].astype(np.float32)
        zeros = np.zeros(len(images))
        landmarks = np.zeros((len(images), 68, 2))
        genders = np.full(len(images), "female")
        return type(readings_of(subjects, subjects.embeddings))(
            size, genders, zeros, zeros > 1, landmarks, zeros
        )

    floors = face_floors(bare, labels.genders, labels.age_groups, read)
    assert seen == [1, 2, 8] and [len(floor.raw) for floor in floors] == [len(subjects)] * 3
    assert np.ptp(floors[0].raw, axis=0).max() == 0 and not floors[0].centred.any()
    men = labels.genders == "male"
    assert np.ptp(floors[1].raw[men], axis=0).max() == 0
    assert floors[1].readings.landmarks.shape == (len(subjects), 68, 2)


def test_two_checkpoints_of_one_name_are_refused(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place / "final").mkdir(parents=True)
    with pytest.raises(ValueError, match="called alike .final, final.: rename a folder"):
        run.load_checkpoints([str(tmp_path / place / "final") for place in ("one", "two")])


def test_a_checkpoint_of_another_embedding_size_is_refused(subjects):
    config = SimpleNamespace(face_recogniser="dlib", face_embedding_size=512)
    pipeline = SimpleNamespace(voice_encoder=SimpleNamespace(config=config))
    checkpoint = SimpleNamespace(pipeline=pipeline, source="other")
    with pytest.raises(ValueError, match="other predicts 512 values, .* have 32: use two"):
        run._check_teachers(subjects, [checkpoint])


def test_intervals_are_over_base_voices_where_members_share_them(subjects, results):
    figure = results.find(table="feature_similarity", system="voice, 6 s", measure="cosine_centred")
    assert figure.speakers == 120
    alone = dataclasses.replace(
        subjects, voice_parameters=[{} for _ in range(len(subjects))], traits=subjects.traits
    )
    assert len(np.unique(controls.base_voices(subjects))) == 50
    assert len(np.unique(controls.base_voices(alone))) == 120


def test_options_are_checked_before_anything_is_loaded(tmp_path):
    from training.evaluation.__main__ import check

    good = {
        "faces": [],
        "true_faces": [],
        "voices": None,
        "checkpoints": [],
        "rounds": 100,
        "limit": None,
        "dataset": "somebody/pairs",
        "seconds": [6, 3, 6],
        "output": str(tmp_path),
    }
    options = argparse.Namespace(**good)
    check(options)
    assert options.seconds == [3, 6]
    for wrong, sentence in [
        ({"true_faces": ["x"]}, "a folder for each of --faces"),
        ({"voices": str(tmp_path)}, "name one with --checkpoint"),
        ({"rounds": 10}, "at least 100"),
        ({"limit": 1}, "--limit must be at least 2"),
        ({"dataset": str(tmp_path)}, "holds no data set"),
        ({"dataset": "/nowhere/pairs"}, "is no folder: name one with pairs"),
        ({"seconds": [0.1]}, "from 0.5 to 60"),
        ({"faces": [str(tmp_path / "nothing")]}, "is no folder"),
        ({"output": __file__}, "name a folder"),
        ({"faces": ["a/voice", "b/voice"]}, "called alike .voice, voice.: rename one"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            check(argparse.Namespace(**good | wrong))
