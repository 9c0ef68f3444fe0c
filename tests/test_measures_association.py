"""Association against scikit-learn, brute force over choices, and a bootstrap of rows."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from training.measures import association as measured
from training.measures.association import associate, association, compare, roc_auc
from training.measures.resampling import SpeakerBootstrap


def crowd(count: int = 60, noise: float = 3.0, size: int = 8, seed: int = 0):
    rng = np.random.default_rng(seed)
    genders = rng.choice(["female", "male"], count)
    gallery = rng.standard_normal((count, size)) + 2 * (genders == "male")[:, None]
    gallery = gallery - gallery.mean(0)
    probes = gallery + noise * rng.standard_normal((count, size))
    return probes, gallery, np.arange(count), genders


def test_auc_and_eer_are_scikit_learns():
    probes, gallery, speakers, genders = crowd()
    compared = compare(probes, gallery, speakers, speakers, {"same_gender": (genders, genders)})
    figures = associate(SpeakerBootstrap(speakers), compared)
    own, same = np.eye(60, dtype=bool), genders[:, None] == genders
    for suffix, mask in (("", own | True), ("_same_gender", same)):
        truth, scores = own[mask], compared.scores[mask]
        assert figures[f"auc{suffix}"].value == pytest.approx(roc_auc_score(truth, scores))
        false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
        after = np.argmax(false + true >= 1)
        places = [after - 1, after]
        expected = np.interp(1, (false + true)[places], false[places])
        assert figures[f"eer{suffix}"].value == pytest.approx(expected)
        assert figures[f"auc{suffix}"].chance == figures[f"eer{suffix}"].chance == 0.5


def test_matching_is_the_mean_over_all_choices():
    probes, gallery, speakers, genders = crowd(12)
    gallery[3] = gallery[4]  # a tie
    compared = compare(probes, gallery, speakers, speakers, {"same_gender": (genders, genders)})
    figures = associate(SpeakerBootstrap(speakers), compared, candidates=(2, 3, 5))
    for suffix, same in (("", True), ("_same_gender", genders[:, None] == genders)):
        for n in (2, 3, 5):
            shares = []
            for i in speakers:
                others = np.flatnonzero((speakers != i) & (same if same is True else same[i]))
                own, rest = compared.scores[i, i], compared.scores[i]
                wins = [
                    0 if max(rest[list(c)]) > own else 1 / (1 + (rest[list(c)] == own).sum())
                    for c in combinations(others, n - 1)
                ]
                if wins:
                    shares.append(np.mean(wins))
            figure = figures[f"matching_1_in_{n}{suffix}"]
            assert figure.value == pytest.approx(np.mean(shares))
            assert figure.samples == len(shares) and figure.chance == 1 / n


@pytest.mark.parametrize("exact_pairs", [0, 10**9])
def test_intervals_are_those_of_resampled_speakers(monkeypatch, exact_pairs):
    probes, gallery, speakers, genders = crowd(150)
    speakers = np.repeat(np.arange(75), 2)  # two recordings and two faces each
    monkeypatch.setattr(measured, "EXACT_PAIRS", exact_pairs)
    bootstrap = SpeakerBootstrap(speakers, rounds=250)
    figures = association(
        bootstrap, probes, gallery, speakers, speakers, {"same_gender": (genders, genders)}
    )
    compared = compare(probes, gallery, speakers, speakers)
    own, same = speakers[:, None] == speakers, genders[:, None] == genders
    for suffix, mask in (("", own | True), ("_same_gender", own | same)):
        expected = []
        for counts in bootstrap.counts:
            weights = counts[speakers][:, None] * np.where(own, 1, counts[speakers])
            some = mask & (weights > 0)
            expected.append(
                roc_auc_score(own[some], compared.scores[some], sample_weight=weights[some])
            )
        replicates = figures[f"auc{suffix}"].replicates
        assert np.corrcoef(replicates, expected)[0, 1] > 0.97
        assert replicates.std() == pytest.approx(np.std(expected), rel=0.06)
        if exact_pairs:  # nothing but the bins stands between the two
            assert replicates == pytest.approx(expected, abs=0.003)


def test_relatives_are_drawn_together_and_not_squared(monkeypatch):
    probes, gallery, speakers, _ = crowd(120)
    families = speakers // 4
    probes += 4 * np.random.default_rng(1).standard_normal((30, 8))[families]
    gallery += 2 * probes.mean(0)
    bootstrap = SpeakerBootstrap(speakers, rounds=400, families=families)
    spreads = []
    for exact_pairs in (0, 10**9):
        monkeypatch.setattr(measured, "EXACT_PAIRS", exact_pairs)
        figure = association(bootstrap, probes, gallery, speakers, speakers)["auc"]
        spreads.append(figure.replicates.std())
        assert figure.replicates.mean() == pytest.approx(figure.value, abs=0.01)
    assert spreads[0] == pytest.approx(spreads[1], rel=0.25)


def test_equal_error_rates_interval_is_that_of_resampled_speakers():
    probes, gallery, speakers, _ = crowd(100)
    bootstrap = SpeakerBootstrap(speakers, rounds=300)
    figure = association(bootstrap, probes, gallery, speakers, speakers)["eer"]
    compared = compare(probes, gallery, speakers, speakers)
    own = np.eye(100, dtype=bool)
    expected = []
    for counts in bootstrap.counts:
        weights = np.where(own, counts[:, None], counts[:, None] * counts)
        false, true, _ = roc_curve(
            own.ravel(), compared.scores.ravel(), sample_weight=weights.ravel()
        )
        expected.append(np.interp(1, false + true, false))
    assert figure.replicates == pytest.approx(expected, abs=0.02)
    assert figure.interval == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])), abs=0.01)


@pytest.mark.parametrize("what", ["zero", "same", "gallery"])
def test_who_says_nothing_scores_chance(what):
    _, gallery, speakers, genders = crowd()
    probes = np.zeros_like(gallery) if what == "zero" else np.repeat(gallery[:1], 60, 0)
    gallery = np.ones_like(gallery) if what == "gallery" else gallery
    figures = association(
        SpeakerBootstrap(speakers),
        probes,
        gallery,
        speakers,
        speakers,
        {"same_gender": (genders, genders)},
    )
    assert len(figures) == 10
    for name, figure in figures.items():
        if "gender" not in name:
            assert figure.value == pytest.approx(figure.chance, abs=1e-9), name
        low, high = figure.interval
        assert low - 1e-6 <= figure.chance <= high + 1e-6, name


def test_who_knows_the_gender_alone_scores_chance_among_one():
    _, gallery, speakers, genders = crowd()
    probes = np.stack([gallery[genders == g].mean(0) for g in genders])
    figures = association(
        SpeakerBootstrap(speakers), probes, gallery, speakers, speakers, {"g": (genders, genders)}
    )
    assert figures["auc"].value > 0.7
    assert figures["auc_g"].value == pytest.approx(0.5, abs=0.02)
    assert figures["matching_1_in_2_g"].value == pytest.approx(0.5)


def test_a_perfect_listener():
    _, gallery, speakers, _ = crowd()
    figures = association(SpeakerBootstrap(speakers), gallery, gallery, speakers, speakers)
    assert figures["auc"].value == 1 and figures["eer"].value == 0
    for n in (2, 5, 10):  # nobody lost once, which is no certainty
        assert figures[f"matching_1_in_{n}"].interval == pytest.approx((0.025 ** (1 / 60), 1))
    assert figures["auc"].interval == pytest.approx((1, 1), abs=1e-3)


@pytest.mark.parametrize("others", [99, 163, 999, 4999])
def test_who_never_loses_wins_for_certain_however_many_there_are(others):
    total, none = np.array([others]), np.array([0])
    for n in (2, 5, 10):
        assert measured.chance_to_win(none, none, total, n) == 1


def test_labels_that_are_unknown_take_no_part():
    probes, gallery, speakers, genders = crowd()
    unknown = np.where(speakers < 50, genders, "")
    bootstrap = SpeakerBootstrap(speakers)
    figures = association(bootstrap, probes, gallery, speakers, speakers, {"g": (unknown, unknown)})
    alone = association(
        SpeakerBootstrap(speakers[:50]),
        probes[:50],
        gallery[:50],
        speakers[:50],
        speakers[:50],
        {"g": (genders[:50], genders[:50])},
    )
    assert figures["auc_g"].samples == 50 and figures["auc"].samples == 60
    for name in ("auc_g", "eer_g", "matching_1_in_5_g"):
        assert figures[name].value == pytest.approx(alone[name].value)


def test_a_group_is_held_against_the_whole_gallery():
    probes, gallery, speakers, genders = crowd()
    bootstrap, kept = SpeakerBootstrap(speakers), speakers < 12
    compared = compare(probes, gallery, speakers, speakers)
    figures = associate(bootstrap, compared, kept)
    own = np.eye(60, dtype=bool)[kept]
    assert figures["auc"].value == pytest.approx(
        roc_auc_score(own.ravel(), compared.scores[kept].ravel())
    )
    assert figures["auc"].speakers == 12


def test_nobody_to_compare_with_gives_no_figure():
    probes, gallery, speakers, _ = crowd()
    alone = np.where(speakers == 0, "x", "")
    for kept, labels in (
        (speakers == 0, alone),  # nobody else of that label
        (speakers < 0, alone),  # nobody at all
        (speakers > 0, alone),  # nobody with a label
    ):
        figures = association(
            SpeakerBootstrap(speakers),
            probes,
            gallery,
            speakers,
            speakers,
            {"x": (labels, labels)},
            kept,
        )
        for name in ("auc_x", "eer_x", "matching_1_in_2_x"):
            shown = figures[name].to_json()
            assert shown["value"] is None and shown["interval"] is None, name


def test_faces_of_people_who_never_speak_are_always_there():
    probes, gallery, speakers, _ = crowd(40)
    bootstrap = SpeakerBootstrap(speakers[:20])
    figures = association(bootstrap, probes[:20], gallery, speakers[:20], speakers)
    compared = compare(probes[:20], gallery, speakers[:20], speakers)
    own = np.eye(40, dtype=bool)[:20]
    expected = []
    for counts in bootstrap.counts[:50]:
        weights = counts[:, None] * np.where(own, 1, np.append(counts, np.ones(20)))
        expected.append(
            roc_auc_score(own.ravel(), compared.scores.ravel(), sample_weight=weights.ravel())
        )
    assert figures["auc"].replicates[:50] == pytest.approx(expected, abs=0.005)


def test_what_cannot_be_compared_is_refused():
    probes, gallery, speakers, genders = crowd()
    with pytest.raises(ValueError, match="20 probes have no face in the gallery"):
        compare(probes, gallery[:40], speakers, speakers[:40])
    with pytest.raises(ValueError, match="in their order"):
        associate(SpeakerBootstrap(speakers[::-1]), compare(probes, gallery, speakers, speakers))
    with pytest.raises(ValueError, match="same_gender needs one label"):
        compare(probes, gallery, speakers, speakers, {"same_gender": (genders, genders[:5])})
    with pytest.raises(ValueError, match="NaN"):
        compare(probes * np.nan, gallery, speakers, speakers)


def test_the_charts_curve_has_the_figures_area():
    probes, gallery, speakers, _ = crowd(300)
    compared = compare(probes, gallery, speakers, speakers)
    false, true = measured.roc_curve_points(compared)
    assert len(false) <= 200 and (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert (np.diff(false) >= 0).all() and (np.diff(true) >= 0).all()
    expected = measured.verification_auc(compared)
    assert measured.area_under(false, true) == pytest.approx(expected, abs=2e-3)


def test_roc_auc_counts_pairs():
    scores = np.array([0.9, 0.4, 0.4, 0.1])
    positive = np.array([True, True, False, False])
    assert roc_auc(scores, positive) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert np.isnan(roc_auc(scores, np.ones(4, bool)))
    assert np.isnan(roc_auc(scores, np.zeros(4, bool)))
