"""Signatures of versions, in the form of OpenSSF's model signing, where keys are configured."""

from pathlib import Path

from recsys.errors import InputError
from recsys.serving.integrity import MADE_BY_LOADING, SIGNATURE

SIGNING_KEY, VERIFY_KEY = "RECSYS_SIGNING_KEY", "RECSYS_VERIFY_KEY"
_MAKE = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem; openssl ec -in key.pem -pubout -out public.pem"


_keys: dict[str, str] = {}


def use_keys(sign_with: str = "", verify_with: str = "") -> None:
    """Have versions signed and checked in this process by the keys in these files; empty: without."""
    _keys.update({SIGNING_KEY: sign_with.strip(), VERIFY_KEY: verify_with.strip()})


def asks_for_signatures() -> bool:
    """Whether versions without the right signature are refused."""
    return bool(_keys.get(VERIFY_KEY))


def check_signing_key() -> None:
    """Raise InputError where a key to sign with is configured and cannot be used: before hours of training."""
    if key := _configured(SIGNING_KEY):
        from model_signing import signing

        try:
            signing.Config().use_elliptic_key_signer(private_key=key)
        except (ValueError, TypeError, OSError) as error:
            raise _no_key(SIGNING_KEY, "a private key without a password", error) from None


def sign(folder: Path) -> Path | None:
    """Sign the files of a version, its statement with them; where the signature is, None without a key.

    Raises:
        InputError: if the key cannot be used.
    """
    key = _configured(SIGNING_KEY)
    if key is None:
        return None
    from model_signing import hashing, signing

    hashed = hashing.Config().set_ignored_paths(paths=[SIGNATURE, MADE_BY_LOADING])
    try:
        signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(hashed).sign(
            folder, folder / SIGNATURE
        )
    except (ValueError, TypeError, OSError) as error:
        raise _no_key(SIGNING_KEY, "a private key without a password", error) from None
    return folder / SIGNATURE


def check_signature(folder: Path) -> bool:
    """Whether a version was signed by the owner of the key to verify with; False where no such key is configured.

    Raises:
        InputError: if it was not, its files are others, or the key cannot be used.
    """
    key = _configured(VERIFY_KEY)
    if key is None:
        return False
    from model_signing import verifying

    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (ValueError, TypeError, OSError) as error:
        raise _no_key(VERIFY_KEY, "a public key", error) from None
    if not (folder / SIGNATURE).is_file():
        raise InputError(f"it is not signed (no {SIGNATURE}), and {VERIFY_KEY} asks for a signature")
    try:
        config.verify(folder, folder / SIGNATURE)
    except Exception as error:  # the reader of signatures, sigstore and cryptography each raise their own
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"its signature is not by the key of {VERIFY_KEY} over these files ({reason})") from None
    return True


def _configured(variable: str) -> Path | None:
    """The file that a variable names; raises InputError where what it needs is not installed."""
    given = _keys.get(variable, "")
    if not given:
        return None
    try:
        import model_signing  # noqa: F401  # is it there
    except ImportError as error:
        raise InputError(
            f"{variable}: signatures need the packages of registry/requirements.txt ({error.name} is missing); "
            "pip install -r registry/requirements.txt, or unset it"
        ) from None
    return Path(given).expanduser()


def _no_key(variable: str, kind: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{variable}: a file with {kind} of an elliptic curve, as PEM, is needed ({reason}); {_MAKE}")
