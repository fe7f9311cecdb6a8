"""Which rating is learnt from, which is for choosing, which is for the final test."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Codes, Floats, Ids
from recsys.errors import InputError

TRAIN, VALIDATION, TEST = np.int8(0), np.int8(1), np.int8(2)
Parts = NDArray[np.int8]
Hashes = NDArray[np.uint64]

# Changing the key or the mixing moves every row of every dataset to another part, and versions trained
# before would be tested on rows they learnt from: tests/test_splits.py freezes both.
_KEY = b"recsys split 1"
_BLOCK = 1 << 18  # rows mixed at a time, so that the temporaries stay in the processor's cache


def hash_pairs(user_ids: Ids, item_ids: Ids, users: Codes, items: Codes) -> Hashes:
    """A 64-bit hash of every (user, item) pair, by its ids alone: shape (n,), whatever the file's order."""
    user_hashes = _hash_ids(user_ids, b"user")
    item_hashes = _hash_ids(item_ids, b"item")
    hashes = np.empty(len(users), np.uint64)
    for start in range(0, len(users), _BLOCK):
        block = slice(start, start + _BLOCK)
        hashes[block] = _mix(user_hashes[users[block]] ^ item_hashes[items[block]])
    return hashes


def split_by_hash(hashes: Hashes, test_size: float, validation_size: float) -> Parts:
    """Decide by the pair's hash alone, so that a pair stays in its part in every later, larger file.

    A larger `test_size` keeps the test rows of a smaller one.
    """
    parts = np.full(len(hashes), TRAIN)
    parts[hashes < _share(test_size + validation_size)] = VALIDATION
    parts[hashes < _share(test_size)] = TEST
    return parts


def split_at_random(n: int, test_size: float, validation_size: float, seed: int) -> Parts:
    """The test rows of scikit-learn's `train_test_split(test_size=…, random_state=seed)`.

    The validation rows are drawn from the rest in the same way and with the same seed. Raises InputError where
    the rows are too few for three parts.
    """
    from sklearn.model_selection import train_test_split  # a second to import: only where it is used

    parts = np.full(n, TRAIN)
    try:
        rest, test = train_test_split(np.arange(n), test_size=test_size, random_state=seed)
        _, validation = train_test_split(rest, test_size=validation_size / (1 - test_size), random_state=seed)
    except ValueError:
        raise InputError(
            f"parameter 'split': random needs at least one rating for each of train, validation and test, which "
            f"test_size={test_size:g} and validation_size={validation_size:g} do not leave of {n}; pass more ratings "
            f"or other sizes"
        ) from None
    parts[validation] = VALIDATION
    parts[test] = TEST
    return parts


def split_by_time(timestamps: Floats, test_size: float, validation_size: float) -> Parts:
    """The newest ratings are the test, those just before them the validation.

    Ratings of one moment stay together, so the parts can be smaller than asked for.
    """
    ordered = np.sort(timestamps)

    def moment(size: float) -> float:
        return float(ordered[min(len(ordered) - 1, int(len(ordered) * (1 - size)))])

    parts = np.full(len(timestamps), TRAIN)
    parts[timestamps >= moment(test_size + validation_size)] = VALIDATION
    parts[timestamps >= moment(test_size)] = TEST
    return parts


def digest_rows(hashes: Hashes, ratings: Floats, like_threshold: float) -> str:
    """What identifies a test set: its pairs, their ratings and what counts as a like, in any order.

    Two versions' metrics may be compared where this is the same.
    """
    rows = np.sort(_mix(hashes ^ (ratings + 0.0).view(np.uint64)))  # + 0.0 makes one of 0.0 and -0.0
    digest = hashlib.blake2b(rows.tobytes(), digest_size=16, key=_KEY)
    digest.update(np.float64(like_threshold).tobytes())
    return digest.hexdigest()


def check_sizes(test_size: float, validation_size: float) -> None:
    """Refuse sizes that leave nothing to learn from; raises InputError."""
    if test_size + validation_size >= 1:
        raise InputError(
            f"parameters 'test_size' and 'validation_size': together below 1, got {test_size:g} and "
            f"{validation_size:g}, which leaves no rating to learn from; pass smaller ones"
        )


def _hash_ids(ids: Ids, kind: bytes) -> Hashes:
    digests = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=_KEY, person=kind).digest()
        for text in ids
    )
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def _mix(z: Hashes) -> Hashes:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _share(size: float) -> np.uint64:
    return np.uint64(min(int(size * 2**64), 2**64 - 1))
