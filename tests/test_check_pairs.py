"""The report on pairs built from films says what is right, what is wrong, and what was missed."""

import pytest

from dataset_scripts.check_pairs import BuiltPair, check, heard, is_right, pairwise_f1, seen


def film(kind: str = "turns", is_control: bool = False) -> dict:
    """Ann speaks on the left until 4 s, then Bob on the right; both stay in the picture."""

    def appearance(who: str, x: float) -> dict:
        path = [[t / 5, x, 0.5, 80.0, 0.0] for t in range(41)]
        return {"speaker_id": who, "start_s": 0.0, "end_s": 8.0, "path": path}

    def segment(who: str, start_s: float, end_s: float) -> dict:
        return {
            "speaker_id": who,
            "start_s": start_s,
            "end_s": end_s,
            "visible": not is_control,
            "buildable": not is_control,
        }

    return {
        "kind": kind,
        "is_control": is_control,
        "width": 400,
        "height": 200,
        "people": [
            {"speaker_id": "ann", "voice_id": "low"},
            {"speaker_id": "bob", "voice_id": "high"},
        ],
        "segments": [segment("ann", 0.0, 4.0), segment("bob", 4.2, 8.0)],
        "appearances": [appearance("ann", 0.25), appearance("bob", 0.75)],
    }


def pair(
    start_s: float, x: float, speaker_id: str = "1", video_id: str = "a.mp4", split: str = "train"
) -> BuiltPair:
    return BuiltPair(video_id, start_s, start_s + 3, start_s + 1, (x, 0.5), speaker_id, split)


def test_who_is_heard_and_who_is_seen():
    assert heard(pair(0.5, 0.25), film()) == "ann"
    assert heard(pair(3.5, 0.25), film()) == "bob"  # for most of the time
    assert heard(pair(20.0, 0.25), film()) is None
    assert seen(pair(0.5, 0.25), film()) == "ann"
    assert seen(pair(0.5, 0.72), film()) == "bob"
    assert seen(pair(0.5, 0.5), film()) is None  # between the two


def test_a_pair_is_right_only_with_the_face_of_the_voice():
    assert is_right(pair(0.5, 0.25), film())
    assert not is_right(pair(0.5, 0.75), film())
    assert not is_right(pair(0.5, 0.5), film())
    assert not is_right(pair(0.5, 0.25), film(is_control=True))


def test_the_report_counts():
    films = {"a": film(), "b": film("dubbed", is_control=True), "c": film("plain")}
    pairs = [
        pair(0.5, 0.25),  # right
        pair(4.5, 0.25),  # Bob's voice, Ann's face
        pair(0.5, 0.75, "2", "b.mp4"),  # a control
    ]
    report = "\n".join(check(pairs, films))
    assert "3 films of 2 persons, 3 pairs" in report
    assert "right voice: 1 of 3, 33.3%" in report
    assert "segments that were found: 1 of 4, 25.0%" in report
    assert "controls that gave a pair: 1 of 1" in report
    assert "of their 16 s, 3 s are in right pairs" in report  # 4 + 3.8 s in each of two films
    assert "persons in more than one split: 0" in report
    assert "base voices in more than one split: 0" in report
    report = "\n".join(check([*pairs, pair(0.5, 0.25, split="test")], films))
    assert "persons in more than one split: 1" in report
    assert "base voices in more than one split: 1" in report
    with pytest.raises(ValueError, match="was not built from these films"):
        list(check([pair(0.5, 0.25, video_id="z.mp4")], films))


def test_pairwise_f1_against_hand_counted_couples():
    assert pairwise_f1("aabb", "1122") == 1.0
    assert pairwise_f1("aabb", "1111") == pytest.approx(2 * 2 / (2 * 2 + 4))
    assert pairwise_f1("aabb", "1234") == 0.0
    # true couples: 3 of a, 1 of b; found together: (0,1), (2,3); both: (0,1) -> P 1/2, R 1/4
    assert pairwise_f1("aaabb", "11223") == pytest.approx(2 * 0.5 * 0.25 / 0.75)
