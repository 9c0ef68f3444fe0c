"""Retrieval against cases worked out by hand, scikit-learn, and draws of galleries and orders."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from training.measures.resampling import SpeakerBootstrap
from training.measures.retrieval import (
    average_precisions,
    ranks,
    recall_curve,
    retrieval,
)
from training.measures.similarity import unit

AXES = np.eye(3)


def crowd(count: int = 60, noise: float = 2.0, size: int = 16):
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((count, size))
    return gallery + noise * rng.standard_normal((count, size)), gallery, np.arange(count)


def test_by_hand():
    probes = np.array([[1, 0, 0], [1, 0.5, 0], [0.2, 0.3, 0.1]])
    found = ranks(probes, AXES, list("abc"), list("abc"))
    assert found.first.tolist() == [1, 2, 3]
    figures = retrieval(SpeakerBootstrap(list("abc")), found, gallery_sizes=(), at=(1, 2))
    assert {name: (f.value, f.chance) for name, f in figures.items()} == {
        "recall_at_1": (pytest.approx(1 / 3), pytest.approx(1 / 3)),
        "recall_at_2": (pytest.approx(2 / 3), pytest.approx(2 / 3)),
        "median_rank": (2, 2),
        "mean_average_precision": (
            pytest.approx((1 + 1 / 2 + 1 / 3) / 3),
            pytest.approx((1 + 1 / 2 + 1 / 3) / 3),
        ),
    }


@pytest.mark.parametrize("score", ["cosine", "l1", "l2"])
def test_who_says_nothing_scores_chance(score):
    _, gallery, speakers = crowd()
    for probes, faces in ((gallery, np.ones_like(gallery)), (0 * gallery, gallery)):
        found = ranks(probes, faces, speakers, speakers, score)
        figures = retrieval(SpeakerBootstrap(speakers), found, gallery_sizes=(20,))
        assert len(figures) == 10
        for name, figure in figures.items():
            # Faces are not equally far from one point: who is nearest is so for everybody.
            slack = 0.5 if name == "median_rank" else 1e-9
            assert figure.value == pytest.approx(figure.chance, abs=slack), name


@pytest.mark.parametrize("score", ["cosine", "l1", "l2"])
def test_ranks_are_those_of_every_score_compared(score):
    probes, gallery, speakers = crowd()
    probes *= np.linspace(0.5, 2, len(probes))[:, None]  # the cosine alone is blind to length
    one, other = probes[:, None], gallery[None]
    closeness = {
        "cosine": (unit(one) * unit(other)).sum(-1),
        "l1": -np.abs(one - other).sum(-1),
        "l2": -np.linalg.norm(one - other, axis=-1),
    }[score]
    expected = (closeness >= np.diagonal(closeness)[:, None]).sum(1)
    assert ranks(probes, gallery, speakers, speakers, score).first.tolist() == expected.tolist()


@pytest.mark.parametrize("score", ["cosine", "l1", "l2"])
def test_predictions_far_too_long_are_ranked_by_their_distance(score):
    probes, gallery, speakers = crowd()
    distances = {"l1": 1, "l2": 2}
    expected = ranks(probes, gallery, speakers, speakers, score).first
    if score in distances:
        apart = 1000 * probes[:, None] - gallery[None]
        apart = np.linalg.norm(apart, distances[score], axis=-1)
        expected = (apart <= np.diagonal(apart)[:, None]).sum(1)
    found = ranks(1000 * probes, gallery, speakers, speakers, score).first
    # float32 tells distances of 1000 apart to a ten-thousandth: some neighbours change places.
    assert found == pytest.approx(expected, abs=2) and np.ptp(found) > 20


def test_blocks_of_probes_change_nothing(monkeypatch):
    probes, gallery, speakers = crowd()
    owners = speakers % 40
    whole = ranks(probes[:40], gallery, speakers[:40], owners)
    monkeypatch.setattr("training.measures.retrieval.CELLS_AT_ONCE", 7 * len(gallery))
    blocked = ranks(probes[:40], gallery, speakers[:40], owners)
    for name in ("rights", "probe", "wrong_ahead", "wrong_tied", "right_ahead", "right_tied"):
        assert getattr(whole, name).tolist() == getattr(blocked, name).tolist(), name


def test_smaller_galleries_are_the_mean_over_drawn_ones():
    probes, gallery, speakers = crowd(noise=3.0)
    gallery[5] = gallery[7]  # ties
    found = ranks(probes, gallery, speakers, speakers)
    figures = retrieval(SpeakerBootstrap(speakers), found, gallery_sizes=(12, 5000), at=(1, 5))
    assert not [name for name in figures if "5000" in name]
    scores = unit(probes) @ unit(gallery).T
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(300):
        ahead = scores + 1e-9 * rng.standard_normal(scores.shape) > (np.diagonal(scores)[:, None])
        for i in speakers:
            others = rng.permutation(np.delete(speakers, i))[:11]
            drawn.append(ahead[i, others].sum())
    for k in (1, 5):
        figure = figures[f"recall_at_{k}_of_12"]
        assert figure.value == pytest.approx(np.mean(np.asarray(drawn) < k), abs=0.01)
        assert figure.chance == k / 12
    whole = retrieval(SpeakerBootstrap(speakers), found, gallery_sizes=(60,), at=(5,))
    assert whole["recall_at_5_of_60"].value == pytest.approx(whole["recall_at_5"].value)


def test_several_right_faces_are_scikit_learns_precision():
    probes, gallery, speakers = crowd()
    owners = speakers % 20  # three faces each
    found = ranks(probes[:20], gallery, speakers[:20], owners)
    scores = unit(probes[:20]) @ unit(gallery).T
    right = owners == speakers[:20, None]
    expected = [average_precision_score(r, s) for r, s in zip(right, scores, strict=True)]
    assert average_precisions(found) == pytest.approx(expected, abs=1e-9)
    best = np.where(right, scores, -2).max(1, keepdims=True)
    assert found.first.tolist() == (scores >= best).sum(1).tolist()
    figures = retrieval(SpeakerBootstrap(speakers[:20]), found)
    assert figures["recall_at_5"].value == np.mean(found.first <= 5)
    # 1 - C(57, 5) / C(60, 5)
    assert figures["recall_at_5"].chance == pytest.approx(1 - 57 * 56 * 55 * 54 * 53 / 655_381_440)
    assert figures["median_rank"].chance is None
    assert "recall_at_1_of_100" not in figures and "recall_at_1_of_20" not in figures


def test_ties_are_the_mean_over_their_orders():
    # One speaker's two faces tie with one stranger's behind another stranger's.
    gallery = np.array([[1, 0.0], [1, 1], [1, 1], [1, 1], [0, 1]])
    found = ranks(np.array([[1, 0.0]]), gallery, ["a"], ["b", "a", "a", "c", "c"])
    orders = [(1, 1, 0), (1, 0, 1), (0, 1, 1)]
    precisions, firsts = [], []
    for order in orders:
        places = [2 + i for i, right in enumerate(order) if right]
        precisions.append((1 / places[0] + 2 / places[1]) / 2)
        firsts.append(places[0])
    assert average_precisions(found)[0] == pytest.approx(np.mean(precisions))
    assert found.first[0] == pytest.approx(np.mean(firsts))
    recall, _ = recall_curve(found, (1, 2, 3))
    assert recall == pytest.approx([0, 2 / 3, 1])


def test_a_group_is_searched_in_the_whole_gallery():
    probes, gallery, speakers = crowd()
    found = ranks(probes, gallery, speakers, speakers)
    kept = speakers < 10
    figure = retrieval(SpeakerBootstrap(speakers), found, kept=kept)["recall_at_10"]
    assert figure.value == np.mean(found.first[:10] <= 10)
    assert figure.chance == pytest.approx(10 / 60) and figure.speakers == 10
    recall, chance = recall_curve(found, (10,), kept)
    assert recall[0] == figure.value and chance[0] == pytest.approx(figure.chance)
    nobody = retrieval(SpeakerBootstrap(speakers), found, kept=speakers < 0)
    assert all(f.to_json()["value"] is None for f in nobody.values())


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ValueError, match="1 probes have no face.*speaker z"):
        ranks(AXES, AXES, list("abz"), list("abc"))
    with pytest.raises(ValueError, match="score must be one of"):
        ranks(AXES, AXES, list("abc"), list("abc"), "dot")
    with pytest.raises(ValueError, match="one speaker for each"):
        ranks(AXES, AXES, list("ab"), list("abc"))
    with pytest.raises(ValueError, match="agree in D"):
        ranks(AXES, AXES[:, :2], list("abc"), list("abc"))


@pytest.mark.parametrize("score", ["cosine", "l1", "l2"])
def test_what_is_no_number_has_no_rank(score):
    probes, gallery, speakers = crowd()
    probes[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        ranks(probes, gallery, speakers, speakers, score)
