"""Which rating is learnt from, which is for choosing, which is for the final test."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Array, Codes, Floats, Ids
from recsys.errors import InputError

TRAIN, VALIDATION, TEST = np.int8(0), np.int8(1), np.int8(2)
Parts = NDArray[np.int8]
Hashes = NDArray[np.uint64]

# Changing the key or the mixing moves every row of every dataset to another part, and versions trained
# before would be tested on rows they learnt from: tests/test_splits.py freezes both.
_KEY = b"recsys split 1"
_BLOCK = 1 << 18  # rows mixed at a time, so that the temporaries stay in the processor's cache


class PairHashes:
    """The 64-bit hashes of (user, item) pairs, by their ids alone, whatever the file's order."""

    def __init__(self, user_ids: Ids, item_ids: Ids) -> None:
        self._users = _hash_ids(user_ids, b"user")
        self._items = _hash_ids(item_ids, b"item")

    def of(self, users: Codes, items: Codes) -> Hashes:
        """The hash of every pair of codes: shape (n,)."""
        hashes = np.empty(len(users), np.uint64)
        for start in range(0, len(users), _BLOCK):
            block = slice(start, start + _BLOCK)
            hashes[block] = mix(self._users[users[block]] ^ self._items[items[block]])
        return hashes


def hash_pairs(user_ids: Ids, item_ids: Ids, users: Codes, items: Codes) -> Hashes:
    """A 64-bit hash of every (user, item) pair: shape (n,)."""
    return PairHashes(user_ids, item_ids).of(users, items)


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

    The validation rows are drawn from the rest in the same way and with the same seed. Drawn here, with 32 bits a
    row, since scikit-learn's own takes ten times the memory. Raises InputError where the rows are too few for three
    parts.
    """
    kind: type[np.signedinteger] = np.int32 if n < 2**31 else np.int64

    def draw(n: int, size: float) -> tuple[Array, Array]:
        rows = np.arange(n, dtype=kind)
        np.random.RandomState(seed).shuffle(rows)  # the generator and the order of scikit-learn's ShuffleSplit
        drawn = ceil(size * n)
        return rows[drawn:], rows[:drawn]

    rest, test = draw(n, test_size)
    chosen = draw(len(rest), validation_size / (1 - test_size))
    if not len(chosen[0]):
        raise InputError(
            f"parameter 'split': random needs at least one rating for each of train, validation and test, which "
            f"test_size={test_size:g} and validation_size={validation_size:g} do not leave of {n}; pass more ratings "
            f"or other sizes"
        )
    parts = np.full(n, TRAIN)
    parts[rest[chosen[1]]] = VALIDATION
    parts[test] = TEST
    return parts


def split_by_time(timestamps: Floats, test_size: float, validation_size: float) -> Parts:
    """The newest ratings are the test, those just before them the validation.

    Ratings of one moment stay together, so the parts can be smaller than asked for.
    """
    return split_by_moments(
        timestamps, *find_moments(lambda: iter([timestamps]), len(timestamps), test_size, validation_size)
    )


def split_by_moments(timestamps: Floats, test: float, validation: float) -> Parts:
    """Ratings from the moment `test` on are the test, those before it and from `validation` on the validation."""
    parts = np.full(len(timestamps), TRAIN)
    parts[timestamps >= validation] = VALIDATION
    parts[timestamps >= test] = TEST
    return parts


def find_moments(
    timestamps: Callable[[], Iterable[Floats]], n: int, test_size: float, validation_size: float
) -> tuple[float, float]:
    """The moments at which test and validation begin; `timestamps` gives all n of them, some at a time."""
    shares = test_size, test_size + validation_size
    test, validation = find_ranked(timestamps, [min(n - 1, int(n * (1 - share))) for share in shares])
    return test, validation


def find_ranked(values: Callable[[], Iterable[Floats]], ranks: Sequence[int]) -> list[float]:
    """The values at these places, from 0, of all values in ascending order, which are never held together.

    Four passes count them by ever more bits of a number that grows with the value.
    """
    left, known = list(ranks), [np.uint64(0)] * len(ranks)
    above = 0  # bits found
    for bits in (16, 16, 16, 16):  # so few counts stay in the processor's cache
        shift, mask = np.uint64(64 - above - bits), np.uint64((1 << bits) - 1)
        counts = np.zeros((len(ranks), 1 << bits), np.int64)
        for block in values():
            numbers = _ascending(block)
            for found, count in zip(known, counts, strict=True):
                inside = numbers if not above else numbers[(numbers >> np.uint64(64 - above)) == found]
                np.add.at(count, ((inside >> shift) & mask).astype(np.intp), 1)
        for k, count in enumerate(counts):
            below = np.cumsum(count)
            place = int(np.searchsorted(below, left[k], side="right"))
            left[k] -= int(below[place - 1]) if place else 0
            known[k] = (known[k] << np.uint64(bits)) | np.uint64(place)
        above += bits
    sign = np.uint64(1 << 63)
    return [float((number ^ sign if number & sign else ~number).view(np.float64)) for number in known]


def digest_rows(hashes: Hashes, ratings: Floats, timestamps: Floats | None, like_threshold: float) -> str:
    """What identifies a test set: its pairs, their ratings and times, and what counts as a like, in any order.

    Two versions' metrics may be compared where this is the same.
    """
    return digest_ascending([np.sort(mix_rows(hashes, ratings, timestamps))], like_threshold)


def mix_rows(hashes: Hashes, ratings: Floats, timestamps: Floats | None) -> Hashes:
    """A hash of every pair, its rating and, where there is one, its timestamp: shape (n,)."""
    rows = mix(hashes ^ (ratings + 0.0).view(np.uint64))  # + 0.0 makes one of 0.0 and -0.0
    return rows if timestamps is None else mix(rows ^ (timestamps + 0.0).view(np.uint64))


def digest_ascending(rows: Iterable[Hashes], like_threshold: float) -> str:
    """The digest of rows hashed by `mix_rows`, some at a time, in ascending order over all."""
    digest = hashlib.blake2b(digest_size=16, key=_KEY)
    for some in rows:
        digest.update(some.tobytes())
    digest.update(np.float64(like_threshold).tobytes())
    return digest.hexdigest()


class PairSum:
    """All pairs of a dataset in one number, whatever their order.

    Where there are no ratings, a held-out pair is measured against those never taken, so that the measures of two
    datasets may be compared only if all their pairs are equal.
    """

    def __init__(self) -> None:
        self._sums = [0, 0]

    def add(self, hashes: Hashes) -> None:
        """Take further pairs."""
        for position, salt in enumerate((np.uint64(1), np.uint64(2))):
            self._sums[position] += int(mix(hashes ^ salt).sum(dtype=np.uint64))

    def digest(self, test_digest: str) -> str:
        """What names a test set together with all pairs."""
        text = f"{test_digest} {self._sums[0] % 2**64} {self._sums[1] % 2**64}"
        return hashlib.blake2b(text.encode(), digest_size=16, key=_KEY).hexdigest()


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


def mix(z: Hashes) -> Hashes:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _ascending(values: Floats) -> Hashes:
    """Numbers of 64 bits that stand in the order of the values."""
    bits = (values + 0.0).view(np.uint64)
    sign = np.uint64(1 << 63)
    return np.where(bits & sign, ~bits, bits | sign)


def _share(size: float) -> np.uint64:
    return np.uint64(min(int(size * 2**64), 2**64 - 1))
