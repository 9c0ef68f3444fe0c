"""Who is who: labels where the source gives them, clustering of faces where it does not."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dataset_scripts.records import Refusal
from dataset_scripts.splits import DEFAULT_SHARES, DEVELOPMENT, split_of

OTHERS = ("refuse", "cluster")

# Set on the synthetic cast. Of its films (68 faces, 37 persons) a share of 0.41 to 0.48 gives a
# pairwise F1 of 0.97 or more, of its stills (65 persons, four single pictures each) 0.41 to 0.50,
# of 300 persons 0.39 to 0.43. A share and not a distance, because a recogniser's scale differs from
# data to data: real faces lie further apart than rendered ones. The bounds are for few persons.
SHARE_OF_SCALE = 0.43
LEAST_THRESHOLD, LARGEST_THRESHOLD = 0.27, 0.5
SCATTER_SHARE = 0.5  # of the threshold: how far faces of one person lie from their mean
SCALE_SAMPLE = 2000  # faces

MOST_FACES_AT_ONCE = 4000  # average linkage is quadratic: 64 MB of distances


@dataclass(frozen=True)
class IdentityConfig:
    """How faces become persons.

    Attributes:
        cluster_threshold: largest mean distance between two groups of faces of one person, in the
            recogniser's space; None is 0.43 of the distance that three quarters of all pairs of
            faces in these data stay below, from 0.27 to 0.5.
        label_tolerance: how far a face may lie from the labelled person's, as a multiple of
            `cluster_threshold`: a label is evidence, so more than 1.
        others: what becomes of a face in a labelled video that is not the labelled person's:
            "refuse" it as other_person, or "cluster" it like a face without a label.
        seed: of the splits.
        shares: of the persons, by split.
    """

    cluster_threshold: float | None = None
    label_tolerance: float = 1.3
    others: str = "refuse"
    seed: int = 0
    shares: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_SHARES))

    def __post_init__(self):
        if self.others not in OTHERS:
            raise ValueError(f"others must be one of {', '.join(OTHERS)}, got {self.others!r}")
        if self.cluster_threshold is not None and not self.cluster_threshold > 0:
            raise ValueError(f"cluster_threshold must be above 0, got {self.cluster_threshold}")


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """A face of a video, as the identities see it: one per (video, `track` of its pairs).

    Attributes:
        video_id: of the video.
        track: which face of the video.
        embedding: (D,) float32, the mean over several frames.
        label: the person whom the source names for this video, if it does.
        official_split: of this video, if the source has splits; "dev" is train and validation.
        pairs: how many pairs the face gave.
    """

    video_id: str
    track: int
    embedding: np.ndarray
    label: str | None = None
    official_split: str | None = None
    pairs: int = 1

    @property
    def key(self) -> tuple[str, int]:
        return self.video_id, self.track


@dataclass(frozen=True, eq=False)
class Person:
    """A person of a data set: pass them on as `known` when data are added.

    Attributes:
        speaker_id: a label, or a name made from the founding face.
        speaker_source: "label" or "cluster".
        split: "train", "validation" or "test".
        embedding: (D,) float32, the mean over the person's faces.
        tracks: how many faces that mean is of.
    """

    speaker_id: str
    speaker_source: str
    split: str
    embedding: np.ndarray
    tracks: int


@dataclass(frozen=True)
class Identities:
    """Who each face is.

    Attributes:
        persons: by speaker_id, sorted; those of `known` too.
        speaker_of: (video_id, track) -> speaker_id; faces that were refused are missing.
        source_of: (video_id, track) -> "label" or "cluster".
        refusals: faces that are not the person the source names.
        cluster_threshold: the one that was used.
    """

    persons: dict[str, Person]
    speaker_of: dict[tuple[str, int], str]
    source_of: dict[tuple[str, int], str]
    refusals: list[Refusal]
    cluster_threshold: float


def assign_identities(
    tracks: Iterable[FaceTrack],
    known: Iterable[Person] = (),
    config: IdentityConfig | None = None,
) -> Identities:
    """Says who each face is, and in which split.

    A labelled person is whom most of the label's videos show, guests who have a label of their own
    left aside; other faces in them are refused or clustered. A face without a label joins the
    person it resembles, if labels or known data give one, or founds or joins a cluster. Persons of
    labels or of known data are never merged.

    Args:
        tracks: in any order; the result does not depend on it.
        known: the persons of the data set to which these are added: they keep names and splits.
        config: thresholds and splits.

    Returns:
        Persons and who is who. A person is in one split, with all that he or she says.
    """
    config = config or IdentityConfig()
    tracks = sorted(tracks, key=lambda track: track.key)
    earlier = {person.speaker_id: person for person in sorted(known, key=lambda p: p.speaker_id)}
    threshold = config.cluster_threshold or threshold_for(
        [track.embedding for track in tracks] + [person.embedding for person in earlier.values()]
    )
    tolerance = config.label_tolerance * threshold
    members, others = _members_of_labels(tracks, earlier, tolerance)
    unlabelled = [track for track in tracks if track.label is None]
    source_of = {track.key: "label" for group in members.values() for track in group}
    refusals = []
    if config.others == "cluster":
        unlabelled = sorted(unlabelled + others, key=lambda track: track.key)
    else:
        refusals = [_refusal(track) for track in others]
    members = _join_unlabelled(unlabelled, members, earlier, threshold)
    speaker_of = {track.key: name for name, group in members.items() for track in group}
    source_of = {key: source_of.get(key, "cluster") for key in speaker_of}
    labels = {track.label for track in tracks}
    persons = {
        name: _person(name, members.get(name, []), earlier.get(name), name in labels, config)
        for name in sorted(earlier.keys() | members.keys())
    }
    return Identities(persons, speaker_of, source_of, refusals, threshold)


def threshold_for(embeddings: Sequence[np.ndarray]) -> float:
    """The distance below which two faces of these data are one person's: see `IdentityConfig`.

    Args:
        embeddings: (n, D), or a list of n (D,); in an order that does not depend on chance.

    Returns:
        From 0.27 to 0.5.
    """
    from scipy.spatial.distance import pdist

    if len(embeddings) < 2:
        return LEAST_THRESHOLD
    chosen = np.random.default_rng(0).permutation(len(embeddings))[:SCALE_SAMPLE]
    distances = pdist(np.asarray([embeddings[i] for i in chosen], np.float32))
    scale = SHARE_OF_SCALE * np.percentile(distances, 75)
    return float(np.clip(scale, LEAST_THRESHOLD, LARGEST_THRESHOLD))


def cluster_faces(embeddings: np.ndarray, threshold: float) -> np.ndarray:
    """Groups faces by average linkage: groups join while their mean distance is small enough.

    Groups can only join if two of their faces are within the threshold, so that each connected
    component of that graph is clustered for itself: memory grows with the number of faces, not
    with its square. A component of more than 4,000 faces is cut by k-means, its parts are
    clustered, and then the parts' groups by their means.

    Args:
        embeddings: (n, D) float32.
        threshold: the largest mean distance within a group.

    Returns:
        (n,) int, which group each face is in.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    groups = np.zeros(len(embeddings), int)
    count = 0
    for component in _components(embeddings, threshold):
        if len(component) == 1:
            found = np.zeros(1, int)
        elif len(component) <= MOST_FACES_AT_ONCE:
            tree = linkage(embeddings[component], "average")
            found = fcluster(tree, threshold, "distance") - 1
        else:
            found = _cluster_by_parts(embeddings[component], threshold)
        groups[component] = count + found
        count += found.max() + 1
    return groups


def _components(embeddings: np.ndarray, radius: float) -> list[np.ndarray]:
    """Indices of the faces of each connected component of the graph of near faces."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from sklearn.metrics import pairwise_distances_chunked

    n = len(embeddings)
    if n == 0:
        return []
    component = np.arange(n)
    first = 0
    for distances in pairwise_distances_chunked(embeddings, working_memory=16):  # MB
        row, column = np.nonzero(distances <= radius)
        edges = np.ones(len(row), bool)
        graph = coo_array((edges, (component[row + first], component[column])), shape=(n, n))
        component = connected_components(graph, directed=False)[1][component]
        first += len(distances)
    order = np.argsort(component, kind="stable")
    return np.split(order, np.nonzero(np.diff(component[order]))[0] + 1)


def _cluster_by_parts(embeddings: np.ndarray, threshold: float) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    count = 2 * len(embeddings) // MOST_FACES_AT_ONCE + 1
    parts = MiniBatchKMeans(count, random_state=0, n_init=1).fit_predict(embeddings)
    if np.bincount(parts).max() == len(embeddings):  # all alike: any cut will do
        parts = np.arange(len(embeddings)) % count
    groups = np.zeros(len(embeddings), int)
    for part in np.unique(parts):
        inside = np.nonzero(parts == part)[0]
        groups[inside] = groups.max() + 1 + cluster_faces(embeddings[inside], threshold)
    _, groups = np.unique(groups, return_inverse=True)
    if groups.max() + 1 == len(embeddings):
        return groups  # nothing joined: nothing would in another round
    sums = np.zeros((groups.max() + 1, embeddings.shape[1]))
    np.add.at(sums, groups, embeddings)
    means = (sums / np.bincount(groups)[:, None]).astype(np.float32)
    # Two means are nearer to each other than their faces are, by the scatter around either.
    scatter = 2 * np.square(embeddings - means[groups]).sum(1).mean()
    return cluster_faces(means, np.sqrt(max(threshold**2 - scatter, 0)))[groups]


def _members_of_labels(tracks, earlier, tolerance):
    """The faces of each labelled person, and the other faces in their videos."""
    by_label = defaultdict(list)
    for track in tracks:
        if track.label is not None:
            by_label[track.label].append(track)
    faces = {label: _faces_of_label(group, tolerance) for label, group in by_label.items()}
    certain = {
        label: _embeddings(found[0]).mean(0) for label, found in faces.items() if len(found) == 1
    }
    certain |= {label: earlier[label].embedding for label in by_label if label in earlier}
    members, others = {}, []
    for label, group in by_label.items():
        centre = certain.get(label)
        if centre is None:
            guests = _nearest(faces[label], {n: (c, 1) for n, c in certain.items()}, tolerance)
            own = [face for face, name in zip(faces[label], guests, strict=True) if name is None]
            centre = _face_of_most_videos(own or faces[label])
        if centre is None:
            others += group
            continue
        mine = [np.linalg.norm(track.embedding - centre) <= tolerance for track in group]
        members[label] = [track for track, own in zip(group, mine, strict=True) if own]
        others += [track for track, own in zip(group, mine, strict=True) if not own]
    return members, others


def _faces_of_label(group, tolerance) -> list[list[FaceTrack]]:
    """The faces in a label's videos, each with all its tracks."""
    faces = defaultdict(list)
    for track, face in zip(group, cluster_faces(_embeddings(group), tolerance), strict=True):
        faces[face].append(track)
    return list(faces.values())


def _face_of_most_videos(faces):
    """The mean of the face of most videos, then of most pairs; None if undecided."""

    def support(face):
        return len({track.video_id for track in face}), sum(track.pairs for track in face)

    if not faces:
        return None
    first, *rest = sorted(faces, key=support, reverse=True)  # ties: first by name
    seen_with = {track.video_id for track in first}
    for face in rest:
        tied = support(face) == support(first)
        if tied and seen_with & {track.video_id for track in face}:
            return None  # two faces in the same videos, and nothing says which is meant
    return _embeddings(first).mean(0)


def _join_unlabelled(unlabelled, members, earlier, threshold):
    """Adds faces without a label to the persons there are, or to new clusters."""
    members = {name: list(group) for name, group in members.items()}
    anchors = {name: (person.embedding, person.tracks) for name, person in earlier.items()}
    for name, group in members.items():
        anchors.setdefault(name, (_embeddings(group).mean(0), len(group)))

    def join(groups):
        """Each group's faces become those of the person who is near enough; gives the others."""
        nearest = _nearest(groups, anchors, threshold)
        for group, name in zip(groups, nearest, strict=True):
            if name is not None:
                members.setdefault(name, []).extend(group)
        return [group for group, name in zip(groups, nearest, strict=True) if name is None]

    left = [track for (track,) in join([[track] for track in unlabelled])]
    clusters = defaultdict(list)
    for track, cluster in zip(left, cluster_faces(_embeddings(left), threshold), strict=True):
        clusters[cluster].append(track)
    for group in join(list(clusters.values())):
        members[_name_of_cluster(group)] = group
    return members


def _nearest(groups, anchors, threshold) -> list[str | None]:
    """The nearest anchor of each group of faces, or None where none is near enough.

    The threshold is for distances between faces. Means are nearer to each other, by the faces'
    scatter around either.
    """
    from sklearn.metrics import pairwise_distances_argmin_min

    if not anchors or not groups:
        return [None] * len(groups)
    names = sorted(anchors)
    centres = np.stack([anchors[name][0] for name in names])
    means = np.stack([_embeddings(group).mean(0) for group in groups])
    index, distance = pairwise_distances_argmin_min(means, centres)
    found = []
    for group, i, apart in zip(groups, index, distance, strict=True):
        hidden = sum(1 - 1 / max(1, count) for count in (len(group), anchors[names[i]][1]))
        scatter = hidden * (SCATTER_SHARE * threshold) ** 2
        found.append(names[i] if apart**2 + scatter <= threshold**2 else None)
    return found


def _name_of_cluster(group: list[FaceTrack]) -> str:
    """A name from the founding face: the one with the smallest hash, whatever was read first."""

    def digest(track):
        return hashlib.sha256(f"{track.video_id}/{track.track}".encode()).hexdigest()

    return f"person-{min(map(digest, group))[:16]}"


def _person(name, group, earlier, is_label, config) -> Person:
    if earlier is not None:
        total = earlier.embedding * earlier.tracks + sum(track.embedding for track in group)
        count = earlier.tracks + len(group)
        return replace(earlier, embedding=np.float32(total / count), tracks=count)
    own = [track for track in group if track.label == name] or group
    split = split_of(name, config.seed, config.shares, _official_split(own))
    source = "label" if is_label else "cluster"
    return Person(name, source, split, _embeddings(group).mean(0), len(group))


def _official_split(group: list[FaceTrack]) -> str | None:
    """The source's split of a person; if his or her videos disagree, the one most held out."""
    splits = {track.official_split for track in group}
    order = ("test", "validation", "train", DEVELOPMENT)
    return next((split for split in order if split in splits), None)


def _embeddings(group: list[FaceTrack]) -> np.ndarray:
    if not group:
        return np.zeros((0, 1), np.float32)
    return np.stack([track.embedding for track in group]).astype(np.float32)


def _refusal(track: FaceTrack) -> Refusal:
    detail = f"face {track.track} is not that of {track.label}"
    return Refusal(track.video_id, None, None, "other_person", detail)
