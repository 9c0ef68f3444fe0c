"""Which split a person belongs to: a seeded hash, so that added data never move anybody."""

import hashlib
from collections.abc import Mapping

SPLITS = ("train", "validation", "test")
DEFAULT_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
DEVELOPMENT = "dev"  # an official split that is train and validation together


def split_of(
    speaker_id: str,
    seed: int = 0,
    shares: Mapping[str, float] = DEFAULT_SHARES,
    official: str | None = None,
) -> str:
    """The split of a person: the source's own if it has one, else by a hash of name and seed.

    Args:
        speaker_id: the person.
        seed: another seed, another draw.
        shares: of the persons, by split; they add up to 1.
        official: "train", "validation" or "test" as the source has it; "dev" is shared between
            train and validation; None leaves it to the hash.

    Returns:
        "train", "validation" or "test".

    Raises:
        ValueError: for an unknown split, or shares that do not add up to 1.
    """
    check_shares(shares)
    if official in SPLITS:
        return official
    if official not in (None, DEVELOPMENT):
        raise ValueError(f"unknown split {official!r}: expected one of {', '.join(SPLITS)} or dev")
    # A test set that the source did not choose is never filled from its development set.
    allowed = [split for split in SPLITS if official is None or split != "test"]
    position = _uniform(f"{seed}/{speaker_id}") * sum(shares[split] for split in allowed)
    for split in allowed:
        position -= shares[split]
        if position < 0:
            return split
    return "train"  # validation and train have no share, or rounding left nothing


def check_shares(shares: Mapping[str, float]) -> None:
    """Refuses shares that name other splits than ours or do not add up to 1.

    Raises:
        ValueError: as said.
    """
    if set(shares) != set(SPLITS):
        raise ValueError(f"shares are needed for exactly {', '.join(SPLITS)}, got {dict(shares)}")
    if min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"shares must not be negative and add up to 1, got {dict(shares)}")


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on nothing but the text."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
