"""Who is shown which version: a hash of the user, salted by the trial. No state, so all servers agree at all times."""

import hashlib

CHAMPION, CHALLENGER = "champion", "challenger"
ARMS = (CHAMPION, CHALLENGER)
_RANGE = 1 << 64


def arm_of(user: str, salt: str, share: float) -> str:
    """The arm of a user, the same for ever; another salt assigns anew, independently.

    Args:
        share: of the users that are shown the challenger, from 0 to 1.
    """
    digest = hashlib.blake2b(user.encode(errors="replace"), digest_size=8, key=salt.encode()[:64]).digest()
    return CHALLENGER if int.from_bytes(digest, "big") < share * _RANGE else CHAMPION
