"""A person's split depends on the name and the seed alone, unless the source has its own."""

import os

import pytest

from dataset_scripts.splits import DEFAULT_SHARES, SPLITS, split_of

NAMES = [f"person-{index}" for index in range(4000)]


def shares_of(splits: list[str]) -> dict[str, float]:
    return {split: splits.count(split) / len(splits) for split in SPLITS}


def test_shares_are_met():
    wanted = {"train": 0.6, "validation": 0.1, "test": 0.3}
    found = shares_of([split_of(name, shares=wanted) for name in NAMES])
    assert found == pytest.approx(wanted, abs=0.03)  # four standard deviations


def test_another_seed_is_another_draw():
    draws = [[split_of(name, seed) for name in NAMES] for seed in (0, 1)]
    assert draws[0] == [split_of(name, 0) for name in NAMES]
    same = sum(a == b for a, b in zip(*draws, strict=True)) / len(NAMES)
    assert same == pytest.approx(sum(share**2 for share in DEFAULT_SHARES.values()), abs=0.04)


def test_a_split_does_not_change_between_versions_and_machines():
    names = ("ann", "bob", "id10270")  # as drawn in November 2026
    assert [split_of(name) for name in names] == ["test", "validation", "train"]


def test_the_source_decides_where_it_does():
    assert {split_of(name, official="test") for name in NAMES[:50]} == {"test"}
    assert {split_of(name, official="train") for name in NAMES[:50]} == {"train"}


def test_an_official_development_set_is_shared_between_train_and_validation():
    found = shares_of([split_of(name, official="dev") for name in NAMES])
    assert found["test"] == 0
    assert found["validation"] == pytest.approx(1 / 9, abs=0.02)


def test_a_share_of_nothing_and_of_everything():
    nothing = {"train": 1.0, "validation": 0.0, "test": 0.0}
    assert {split_of(name, shares=nothing) for name in NAMES[:100]} == {"train"}
    all_test = {"train": 0.0, "validation": 0.0, "test": 1.0}
    assert {split_of(name, shares=all_test) for name in NAMES[:100]} == {"test"}


@pytest.mark.parametrize(
    "shares",
    [
        {"train": 0.9, "test": 0.1},
        {"train": 0.9, "validation": 0.1, "test": 0.1},
        {"train": 1.1, "validation": 0.0, "test": -0.1},
        {"train": 0.8, "validation": 0.1, "test": 0.1, "more": 0.0},
    ],
)
def test_wrong_shares_are_refused(shares):
    with pytest.raises(ValueError, match="shares"):
        split_of("ann", shares=shares)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'eval'"):
        split_of("ann", official="eval")


def test_names_of_any_bytes_have_a_split():
    assert split_of(os.fsdecode(b"caf\xe9")) in SPLITS
