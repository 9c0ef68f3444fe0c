"""Persons are found by their faces and names; recordings that are there twice are found too."""

import random

import numpy as np
import pytest

from dataset_scripts import identities
from dataset_scripts.identities import (
    FaceTrack,
    IdentityConfig,
    assign_identities,
    cluster_faces,
    threshold_for,
)

# As measured on the cast (2,000 persons, four pictures each): the faces of one person scatter by
# 0.14, persons by 0.41, around a mean of 1.29, in 128 numbers, most of it in few directions.
D = 128
SCATTER, SPREAD = 0.14, 0.41
DIRECTIONS = 0.85 ** np.arange(D)


def draw_faces(persons: int, tracks: int, seed: int = 0) -> np.ndarray:
    """(persons, tracks, D) float32: faces as the teacher embeds the cast's."""
    rng = np.random.default_rng(seed)
    scale = DIRECTIONS / np.linalg.norm(DIRECTIONS)
    centres = SPREAD * scale * rng.normal(size=(persons, 1, D)) + 1.29 / np.sqrt(D)
    return np.float32(centres + SCATTER / np.sqrt(D) * rng.normal(size=(persons, tracks, D)))


def tracks_of(faces: np.ndarray, labels=None, **kwargs) -> list[FaceTrack]:
    """A video a face: `person/number`."""
    return [
        FaceTrack(f"{person}/{number}", 0, face, labels and labels[person], **kwargs)
        for person, of_person in enumerate(faces)
        for number, face in enumerate(of_person)
    ]


def pairwise_f1(found, tracks) -> float:
    """F1 of "these two faces are one person" against the person in the videos' names."""
    from sklearn.metrics.cluster import pair_confusion_matrix

    truth = [track.video_id.split("/")[0] for track in tracks]
    (_, false), (missed, true) = pair_confusion_matrix(
        truth, [found.speaker_of[track.key] for track in tracks]
    )
    return 2 * true / (2 * true + false + missed)


# Clustering


def test_persons_are_found_without_labels():
    tracks = tracks_of(draw_faces(persons=65, tracks=4))
    found = assign_identities(tracks)
    assert pairwise_f1(found, tracks) >= 0.97
    assert {person.speaker_source for person in found.persons.values()} == {"cluster"}
    assert set(found.source_of.values()) == {"cluster"} and found.refusals == []


@pytest.mark.parametrize("persons", [1, 2, 5])
def test_few_persons_are_found_too(persons):
    tracks = tracks_of(draw_faces(persons, tracks=4))
    assert len(assign_identities(tracks).persons) == persons


def test_the_threshold_follows_the_scale_of_the_data():
    faces = draw_faces(65, 4)
    threshold = threshold_for(faces.reshape(-1, D))
    assert 0.27 < threshold < 0.4
    assert threshold_for(1.2 * faces.reshape(-1, D)) == pytest.approx(1.2 * threshold, rel=1e-3)
    assert threshold_for(10 * faces.reshape(-1, D)) == 0.5
    tracks = tracks_of(1.4 * faces)  # as real faces lie further apart than rendered ones
    assert pairwise_f1(assign_identities(tracks), tracks) >= 0.97


def test_a_threshold_can_be_given():
    tracks = tracks_of(draw_faces(10, 4))
    assert len(assign_identities(tracks, config=IdentityConfig(9.0)).persons) == 1
    assert len(assign_identities(tracks, config=IdentityConfig(0.01)).persons) == 40


def test_average_linkage_does_not_chain():
    line = np.zeros((20, 2), np.float32)
    line[:, 0] = np.arange(20)  # neighbours are near, the ends are far apart
    groups = cluster_faces(line, 1.5)
    assert len(set(groups)) > 6
    for group in set(groups):
        assert np.ptp(line[groups == group, 0]) <= 3


def test_clusters_by_parts_are_the_clusters(monkeypatch):
    faces = draw_faces(persons=20, tracks=10, seed=1).reshape(-1, D)
    whole = cluster_faces(faces, 0.27)
    monkeypatch.setattr(identities, "MOST_FACES_AT_ONCE", 8)  # every person is too many faces
    parts = cluster_faces(faces, 0.27)
    assert len(set(zip(whole, parts, strict=True))) <= 21 and 20 <= len(set(parts)) <= 21


def test_faces_that_are_all_alike_are_one_person(monkeypatch):
    monkeypatch.setattr(identities, "MOST_FACES_AT_ONCE", 10)
    assert len(set(cluster_faces(np.ones((100, 4), np.float32), 0.27))) == 1


def test_memory_grows_with_the_number_of_faces_and_not_with_its_square():
    import tracemalloc

    faces = draw_faces(persons=4000, tracks=1, seed=2)[:, 0] * 3  # far apart
    tracemalloc.start()
    groups = cluster_faces(faces, 0.2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(groups)) == 4000
    assert peak < 4000**2 * 4  # bytes, of all distances


# Stability


def test_the_order_of_the_faces_does_not_matter():
    tracks = tracks_of(draw_faces(20, 3), labels=[f"p{i}" if i % 2 else None for i in range(20)])
    shuffled = random.Random(0).sample(tracks, len(tracks))
    one, two = assign_identities(tracks), assign_identities(shuffled)
    assert (one.speaker_of, one.source_of) == (two.speaker_of, two.source_of)
    assert {n: p.split for n, p in one.persons.items()} == {
        n: p.split for n, p in two.persons.items()
    }


def test_added_data_move_nobody():
    faces = draw_faces(40, 6)
    before = assign_identities(tracks_of(faces[:30, :3]))
    added = [track for track in tracks_of(faces) if int(track.video_id.split("/")[1]) >= 3]
    after = assign_identities(added, known=before.persons.values())
    for person in range(30):
        name = before.speaker_of[f"{person}/0", 0]
        assert {after.speaker_of[f"{person}/{number}", 0] for number in (3, 4, 5)} == {name}
        assert after.persons[name].split == before.persons[name].split
        assert after.persons[name].tracks == 6
    new = {after.speaker_of[f"{person}/3", 0] for person in range(30, 40)}
    assert len(new) == 10 and not new & before.persons.keys()


def test_known_persons_stay_apart_and_stay():
    faces = draw_faces(2, 1)
    near = faces[0, 0] + 0.05 / np.sqrt(D)  # the same face, by any threshold
    known = [
        identities.Person(name, "cluster", split, face, 3)
        for name, split, face in (("a", "train", faces[0, 0]), ("b", "test", near))
    ]
    found = assign_identities(
        [FaceTrack("x", 0, faces[0, 0]), FaceTrack("y", 0, near)], known=known
    )
    assert found.speaker_of == {("x", 0): "a", ("y", 0): "b"}
    assert {name: person.split for name, person in found.persons.items()} == {
        "a": "train",
        "b": "test",
    }


def test_nothing_in_nothing_out():
    found = assign_identities([])
    assert found.persons == {} and found.speaker_of == {} and found.refusals == []


# Labels


def test_labels_name_persons():
    tracks = tracks_of(draw_faces(10, 3), labels=[f"id{i}" for i in range(10)])
    found = assign_identities(tracks)
    assert all(name == "id" + video.split("/")[0] for (video, _), name in found.speaker_of.items())
    assert set(found.source_of.values()) == {"label"} and len(found.speaker_of) == 30


def test_another_face_in_a_labelled_video_is_refused():
    faces = draw_faces(3, 4)
    tracks = tracks_of(faces[:2], labels=["ann", "bob"])
    tracks += [FaceTrack("0/1", 1, faces[2, 0], "ann"), FaceTrack("0/2", 1, faces[1, 0], "ann")]
    found = assign_identities(tracks)
    assert [(r.video_id, r.reason) for r in found.refusals] == [
        ("0/1", "other_person"),
        ("0/2", "other_person"),
    ]
    assert ("0/1", 1) not in found.speaker_of and found.speaker_of["0/1", 0] == "ann"


def test_another_face_may_be_clustered_instead():
    faces = draw_faces(3, 4)
    tracks = tracks_of(faces[:2], labels=["ann", "bob"])
    tracks += [FaceTrack("0/1", 1, faces[2, 0], "ann"), FaceTrack("0/2", 1, faces[1, 0], "ann")]
    found = assign_identities(tracks, config=IdentityConfig(others="cluster"))
    assert found.refusals == []
    assert found.speaker_of["0/2", 1] == "bob"  # who is labelled elsewhere
    assert found.source_of["0/2", 1] == "cluster" and found.source_of["1/0", 0] == "label"
    assert found.speaker_of["0/1", 1] not in ("ann", "bob")


def test_the_labelled_person_is_who_is_in_most_of_the_videos():
    faces = draw_faces(2, 4)
    tracks = [FaceTrack(f"v{i}", 0, faces[0, i], "ann") for i in range(3)]
    tracks += [FaceTrack("v0", 1, faces[1, 0], "ann", pairs=9)]
    found = assign_identities(tracks)
    assert [(r.video_id, r.reason) for r in found.refusals] == [("v0", "other_person")]
    assert len(found.speaker_of) == 3


def test_two_faces_in_one_labelled_video():
    faces = draw_faces(2, 1)[:, 0]
    pair = [FaceTrack("v", i, face, "ann") for i, face in enumerate(faces)]
    assert len(assign_identities(pair).refusals) == 2  # nothing says which
    more = [pair[0], FaceTrack("v", 1, faces[1], "ann", pairs=3)]
    assert assign_identities(more).speaker_of == {("v", 1): "ann"}


def test_a_guest_with_a_label_of_his_own_does_not_take_the_host_s():
    ann, bob = draw_faces(2, 3)
    talk = [FaceTrack("talk", 0, ann[0], "ann"), FaceTrack("talk", 1, bob[0], "ann", pairs=3)]
    alone = [FaceTrack("alone", 0, bob[1], "bob")]
    found = assign_identities(talk + alone, config=IdentityConfig(others="cluster"))
    assert found.speaker_of == {("talk", 0): "ann", ("talk", 1): "bob", ("alone", 0): "bob"}


def test_labels_are_never_merged_however_alike():
    face = draw_faces(1, 1)[0, 0]
    found = assign_identities([FaceTrack("1", 0, face, "ann"), FaceTrack("2", 0, face, "twin")])
    assert found.speaker_of == {("1", 0): "ann", ("2", 0): "twin"}


def test_a_face_without_a_label_joins_the_labelled_person_it_resembles():
    faces = draw_faces(2, 4)
    tracks = tracks_of(faces[:, :3], labels=["ann", "bob"]) + [FaceTrack("new", 0, faces[1, 3])]
    found = assign_identities(tracks)
    assert found.speaker_of["new", 0] == "bob" and found.source_of["new", 0] == "cluster"
    assert found.persons["bob"].speaker_source == "label"


# Splits


def test_official_splits_win_and_a_person_is_in_one_split():
    faces = draw_faces(30, 2)
    tracks = [
        FaceTrack(track.video_id, 0, track.embedding, official_split=split)
        for track, split in zip(tracks_of(faces), 20 * ["dev"] + 20 * ["test", "dev"], strict=True)
    ]
    found = assign_identities(tracks)
    for track in tracks:
        split = found.persons[found.speaker_of[track.key]].split
        person = int(track.video_id.split("/")[0])
        assert (split == "test") == (person >= 10), (person, split)


def test_a_labelled_person_keeps_the_split_of_his_or_her_own_videos():
    faces = draw_faces(2, 4)
    tracks = [FaceTrack(f"a{i}", 0, faces[0, i], "ann", "test") for i in range(4)]
    tracks += [FaceTrack(f"b{i}", 0, faces[1, i], "bob", "train") for i in range(3)]
    guest = FaceTrack("a0", 1, faces[1, 3], "ann", "test")  # bob, in a video of ann's
    found = assign_identities([*tracks, guest], config=IdentityConfig(others="cluster"))
    assert found.speaker_of["a0", 1] == "bob"
    assert found.persons["bob"].split == "train" and found.persons["ann"].split == "test"


def test_splits_are_seeded():
    tracks = tracks_of(draw_faces(60, 1))
    splits = [
        [p.split for p in assign_identities(tracks, config=IdentityConfig(seed=s)).persons.values()]
        for s in (0, 0, 1)
    ]
    assert splits[0] == splits[1] != splits[2]
    assert set(splits[0]) == {"train", "validation", "test"}


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="others"):
        IdentityConfig(others="keep")
    with pytest.raises(ValueError, match="cluster_threshold"):
        IdentityConfig(cluster_threshold=0)
