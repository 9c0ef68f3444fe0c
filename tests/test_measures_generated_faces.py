"""Identity, diversity and kernel distance, against brute force and cases worked out by hand."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import cosine_similarity, polynomial_kernel

from training.measures import generated_faces
from training.measures.generated_faces import kernel_distance
from training.measures.resampling import SpeakerBootstrap


def brute_force(x, y, x_people, y_people) -> float:
    """Unbiased MMD^2 over rows of different people, from scikit-learn's kernel."""

    def mean(a, b, a_people, b_people):
        kernel = polynomial_kernel(a, b, degree=3, gamma=1 / a.shape[1], coef0=1)
        return kernel[np.not_equal.outer(a_people, b_people)].mean()

    return (
        mean(x, x, x_people, x_people)
        + mean(y, y, y_people, y_people)
        - 2 * mean(x, y, x_people, y_people)
    )


def test_kernel_distance_is_that_of_the_repeated_rows():
    rng = np.random.default_rng(0)
    people = rng.integers(0, 9, 30)
    x, y = rng.standard_normal((30, 5)) + 0.5, rng.standard_normal((30, 5))
    bootstrap = SpeakerBootstrap(people, rounds=20)
    figures = kernel_distance(bootstrap, x, y)
    assert figures["kernel_distance"].value == pytest.approx(brute_force(x, y, people, people))
    for counts, replicate in zip(
        bootstrap.counts, figures["kernel_distance"].replicates, strict=True
    ):
        rows = np.repeat(np.arange(30), counts[bootstrap.index].astype(int))
        # Rows that are there twice keep their speaker's name, and so never meet each other.
        expected = brute_force(x[rows], y[rows], people[rows], people[rows])
        assert replicate == pytest.approx(expected)
    kept = people < 5
    part = kernel_distance(bootstrap, x, y, kept)["kernel_distance"]
    assert part.value == pytest.approx(brute_force(x[kept], y[kept], people[kept], people[kept]))
    assert part.samples == kept.sum()


def test_kernel_distance_in_blocks_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    bootstrap = SpeakerBootstrap(np.arange(30) // 3, rounds=5)
    x, y = rng.standard_normal((2, 30, 5))
    whole = kernel_distance(bootstrap, x, y)["kernel_distance"]
    monkeypatch.setattr(generated_faces, "ROWS_AT_ONCE", 7)
    blocks = kernel_distance(bootstrap, x, y)["kernel_distance"]
    assert blocks.replicates == pytest.approx(whole.replicates)


def test_two_samples_of_one_distribution_hold_0_and_others_do_not():
    held, halves, values = 0, 0, []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        bootstrap = SpeakerBootstrap(np.arange(80) // 2, rounds=200, seed=seed)
        person = rng.standard_normal((40, 6))[np.arange(80) // 2]
        # A generated face resembles the speaker's real one, as it should.
        x, y = person + 0.5 * rng.standard_normal((2, 80, 6))
        figures = kernel_distance(bootstrap, x, y)
        low, high = figures["kernel_distance"].interval
        held += low <= 0 <= high
        low, high = figures["real_halves"].interval
        halves += low <= 0 <= high
        values.append(figures["real_halves"].value)
    assert held >= 36 and halves >= 36
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(40)
    assert kernel_distance(bootstrap, 1.5 * x, y)["kernel_distance"].interval[0] > 0


def test_kernel_distance_of_a_set_to_itself_and_of_one_speaker():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 4))
    assert kernel_distance(SpeakerBootstrap(range(6)), x, x)["kernel_distance"].value == 0
    alone = kernel_distance(SpeakerBootstrap(["a"] * 6, rounds=3), x, x)["kernel_distance"]
    assert alone.to_json()["value"] is None
    nobody = kernel_distance(SpeakerBootstrap(range(6), rounds=3), x, x, np.zeros(6, bool))
    assert nobody["real_halves"].to_json()["value"] is None
    with pytest.raises(ValueError, match="one of each a row"):
        kernel_distance(SpeakerBootstrap(range(6)), x, x[:3])


def test_identity_kept_is_the_mean_cosine():
    rng = np.random.default_rng(0)
    outputs, conditions = rng.standard_normal((2, 20, 8))
    outputs[0] = 0
    bootstrap = SpeakerBootstrap(range(20), rounds=50)
    figure = generated_faces.identity_kept(bootstrap, outputs, conditions)["identity_cosine"]
    assert figure.value == pytest.approx(np.diag(cosine_similarity(outputs, conditions)).mean())
    with pytest.raises(ValueError, match="give pairs"):
        generated_faces.identity_kept(bootstrap, outputs, conditions[:3])


def test_diversity_is_the_mean_distance_among_a_voices_images():
    draws = np.random.default_rng(0).standard_normal((5, 4, 3))
    bootstrap = SpeakerBootstrap(range(5), rounds=50)
    reference = np.array([1.0, 2, 3, 4, 5])
    figures = generated_faces.diversity(bootstrap, draws, reference)
    each = np.array([pdist(images).mean() for images in draws])
    assert figures["distance"].value == pytest.approx(each.mean())
    assert figures["relative_distance"].value == pytest.approx((each / reference).mean())
    with pytest.raises(ValueError, match="2 or more images"):
        generated_faces.diversity(bootstrap, draws[:, :1], 1.0)
    with pytest.raises(ValueError, match="above 0"):
        generated_faces.diversity(bootstrap, draws, 0.0)


def test_distance_between_persons_leaves_ones_own_faces_out(monkeypatch):
    monkeypatch.setattr(generated_faces, "ROWS_AT_ONCE", 2)
    faces = np.array([[0.0, 0], [0, 1], [3, 0]])
    between = generated_faces.distance_between_persons
    assert between(faces, ["a", "a", "b"]) == pytest.approx((3 + np.sqrt(10)) / 2)
    assert between(faces, ["a", "b", "c"]) == pytest.approx(pdist(faces).mean())
    assert np.isnan(between(faces, ["a", "a", "a"]))
