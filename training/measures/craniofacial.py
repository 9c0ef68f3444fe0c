"""Twelve measurements of a face, and whether two faces share them.

The paper (Oh et al., CVPR 2019, section 4.2) names twelve measurements of the anthropometric
literature (Farkas, "Anthropometry of the Head and Face", 1994; Merler et al., "Diversity in Faces",
2019) and leaves open which landmarks stand for which of Farkas's points. Here they are, on the 68
landmarks of dlib (from 0; left is the picture's left, the person's right):

| point | what | landmarks |
|---|---|---|
| n | nasion, root of the nose | 27 |
| al | alare, side of the nostril | 31, 35 |
| sbal | subalare, foot of the nostril: here the same points as al | 31, 35 |
| sn | subnasale, where nose and lip meet | 33 |
| ls | labiale superius, upper edge of the upper lip | 51 |
| ls' | that edge below sbal | 49, 53 |
| sto | stomion, where the lips meet: the upper lip's edge and the lower's | 62, 66 |
| li | labiale inferius, lower edge of the lower lip | 57 |
| ch | cheilion, corner of the mouth | 48, 54 |
| gn | gnathion, lowest point of the chin | 8 |
| go | gonion, angle of the jaw | 4, 12 |
| zy | zygion, side of the face at the cheekbone | 1, 15 |
| en, ex | inner and outer corner of the eye | 39, 42 and 36, 45 |

| measurement | definition | landmarks |
|---|---|---|
| upper lip height | sn - sto | 33-62 |
| lateral upper lip heights | sbal - ls', mean of both sides | 31-49, 35-53 |
| jaw width | go - go | 4-12 |
| nose height | n - sn | 27-33 |
| nose width | al - al | 31-35 |
| labio-oral region | ch - ch: the breadth of the region that Farkas calls so | 48-54 |
| mandibular index | (sto - gn) / (go - go) | 66-8 / 4-12 |
| intercanthal index | (en - en) / (ex - ex) | 39-42 / 36-45 |
| nasal index | (al - al) / (n - sn) | 31-35 / 27-33 |
| vermilion height index | (ls - sto) / (sto - li) | 51-62 / 66-57 |
| mouth-face width index | (ch - ch) / (zy - zy) | 48-54 / 1-15 |
| nose area | polygon n, al, nostrils and sn, al | 27, 31, 32, 33, 34, 35 |

Stomion is the edge of the lip that is measured, so that an open mouth does not count as a high lip.
Lengths are pixels of the aligned face of 224 pixels; that alignment makes faces comparable in size.
Letters: N faces, B resamples.
"""

import numpy as np

from training.measures.probes import probe_number
from training.measures.resampling import Figure, SpeakerBootstrap

MEASUREMENTS = (
    "upper_lip_height",
    "lateral_upper_lip_heights",
    "jaw_width",
    "nose_height",
    "nose_width",
    "labio_oral_region",
    "mandibular_index",
    "intercanthal_index",
    "nasal_index",
    "vermilion_height_index",
    "mouth_face_width_index",
    "nose_area",
)
NOSE = (27, 31, 32, 33, 34, 35)  # its outline, in order


def measure(landmarks: np.ndarray) -> np.ndarray:
    """The twelve measurements of each face.

    Args:
        landmarks: (N, 68, 2) pixels (x, y) on the aligned face of 224 x 224.

    Returns:
        (N, 12) in the order of `MEASUREMENTS`: pixels, indices as ratios, the area in pixels^2. A
        length that divides another counts as at least one pixel.

    Raises:
        ValueError: for another shape, or a landmark that is not a number.
    """
    landmarks = np.asarray(landmarks, float)
    if landmarks.ndim != 3 or landmarks.shape[1:] != (68, 2):
        raise ValueError(f"expected landmarks (faces, 68, 2), got shape {landmarks.shape}")
    if not np.isfinite(landmarks).all():
        raise ValueError(
            "a face has landmarks that are no numbers: place them on its fallback crop"
        )

    def length(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=1)  # (N,)

    def index(above: np.ndarray, below: np.ndarray) -> np.ndarray:
        return above / below.clip(1)

    jaw_width, nose_height, nose_width = length(4, 12), length(27, 33), length(31, 35)
    mouth_width = length(48, 54)
    columns = {
        "upper_lip_height": length(33, 62),
        "lateral_upper_lip_heights": (length(31, 49) + length(35, 53)) / 2,
        "jaw_width": jaw_width,
        "nose_height": nose_height,
        "nose_width": nose_width,
        "labio_oral_region": mouth_width,
        "mandibular_index": index(length(66, 8), jaw_width),
        "intercanthal_index": index(length(39, 42), length(36, 45)),
        "nasal_index": index(nose_width, nose_height),
        "vermilion_height_index": index(length(51, 62), length(66, 57)),
        "mouth_face_width_index": index(mouth_width, length(1, 15)),
        "nose_area": _area(landmarks[:, NOSE]),
    }
    return np.stack([columns[name] for name in MEASUREMENTS], axis=1)


def _area(corners: np.ndarray) -> np.ndarray:
    """Areas (N,) of polygons (N, corners, 2) by Gauss's formula."""
    x, y = corners[..., 0], corners[..., 1]
    return np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1)) / 2


def craniofacial_correlation(
    bootstrap: SpeakerBootstrap,
    one: np.ndarray,
    other: np.ndarray,
    kept: np.ndarray | None = None,
) -> dict[str, Figure]:
    """Pearson's r of each measurement between two faces of a person (paper, section 4.2, table 3).

    Args:
        bootstrap: of the N rows' speakers.
        one: (N, 12) from `measure`; in the paper, of the face decoded from the true embedding.
        other: (N, 12), of the face decoded from the voice.
        kept: (N,) booleans: the group that is measured; all if None.

    Returns:
        `{measurement}_r` for each, `mean_r` over the twelve, and `permuted_mean_r`: the same with
        each person's `other` face exchanged for another person's, which must be near 0. A
        measurement that does not vary has no r, and then there is no mean; nor has one person
        anybody to exchange faces with.
    """
    one, other = (np.asarray(table, float) for table in (one, other))
    expected = (len(bootstrap), len(MEASUREMENTS))
    if one.shape != expected or other.shape != expected:
        raise ValueError(f"expected two tables {expected}, got {one.shape} and {other.shape}")
    kept = np.ones(len(one), bool) if kept is None else np.asarray(kept, bool)
    figures = {
        f"{name}_r": bootstrap.correlation(one[:, column], other[:, column], kept)
        for column, name in enumerate(MEASUREMENTS)
    }
    exchanged = kept if len(np.unique(bootstrap.index[kept])) > 1 else np.zeros(len(kept), bool)
    permuted = other[_another_persons(bootstrap, exchanged)]
    by_chance = [
        bootstrap.correlation(one[:, column], permuted[:, column], exchanged)
        for column in range(len(MEASUREMENTS))
    ]
    means = {
        "mean_r": _mean(bootstrap, list(figures.values()), kept),
        "permuted_mean_r": _mean(bootstrap, by_chance, exchanged),
    }
    return figures | means


def predictable(
    bootstrap: SpeakerBootstrap,
    features: np.ndarray,
    measured: np.ndarray,
    speakers: np.ndarray,
    families: np.ndarray | None = None,
) -> dict[str, Figure]:
    """How well each measurement is predicted from features, by a probe of people it never saw.

    Of features that hold all that a listener could know of a face, it is what the best listener
    could reach; a little less where few people teach the probe.

    Args:
        bootstrap: of the N rows' speakers, or of their families.
        features: (N, F), for example the parameters of a voice.
        measured: (N, 12) from `measure`, of the true faces.
        speakers: (N,) who each row is.
        families: see `probe_number`.

    Returns:
        `{measurement}_r` for each, and `mean_r` over the twelve, chance 0; no figure for fewer than
        20 speakers (or families).
    """
    figures = {
        f"{name}_r": probe_number(
            bootstrap, features, measured[:, column], speakers, families=families
        )["r"]
        for column, name in enumerate(MEASUREMENTS)
    }
    return figures | {"mean_r": _mean(bootstrap, list(figures.values()))}


def _mean(
    bootstrap: SpeakerBootstrap, figures: list[Figure], kept: np.ndarray | None = None
) -> Figure:
    value = float(np.mean([figure.value for figure in figures]))
    replicates = np.mean([figure.replicates for figure in figures], axis=0)
    return bootstrap.figure(value, replicates, kept, 0.0)


def _another_persons(bootstrap: SpeakerBootstrap, kept: np.ndarray) -> np.ndarray:
    """(N,) for each kept row a kept row of another person, all of one's of the same other one.

    Whole persons are exchanged, in a circle of random order, so that the rows of one person remain
    one observation for the resampling.
    """
    rows = np.arange(len(bootstrap))
    persons = np.unique(bootstrap.index[kept])
    circle = np.random.default_rng(bootstrap.seed).permutation(persons)
    theirs = {person: rows[kept & (bootstrap.index == person)] for person in persons}
    partners = rows.copy()
    for person, partner in zip(circle, np.roll(circle, 1), strict=True):
        partners[theirs[person]] = np.resize(theirs[partner], len(theirs[person]))
    return partners


def p_values(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Two-sided p of each measurement's r being 0 (`scipy.stats.pearsonr`).

    Faces of one person are no independent observations: pass one row a person.

    Args:
        one: (N, 12) from `measure`.
        other: (N, 12).

    Returns:
        By measurement; NaN for fewer than three persons, or where nothing varies.
    """
    from scipy.stats import pearsonr

    def p(x: np.ndarray, y: np.ndarray) -> float:
        if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
            return float("nan")
        return float(pearsonr(x, y).pvalue)

    one, other = (np.asarray(table, float) for table in (one, other))
    return {name: p(one[:, column], other[:, column]) for column, name in enumerate(MEASUREMENTS)}
