"""Verify: are the files of a version, or of all versions of a model, those that were registered."""

from recsys.errors import InputError
from steps.support.entrypoint import run_step
from steps.support.integrity_parameters import VerifyParameters


def verify(parameters: VerifyParameters) -> dict[int, str]:
    """Compare files with the digests registered, run none of them, and print a line a version; gives what is wrong.

    Raises:
        InputError: if a version is not what was registered, after all lines.
    """
    from registry import integrity, signing, versions

    name, asked = parameters.model_name, parameters.version
    found = versions.find_or_raise_version(name, None if asked == "all" else asked)
    signed = ", signed by the key to verify with" if signing.asks_for_signatures() else ""
    wrong: dict[int, str] = {}
    for version in versions.list_versions(name) if asked == "all" else [found]:
        try:
            files = integrity.check_version(version)
            said = (
                f"{files} files, all as registered" if files else "states no digests (an earlier release's, or foreign)"
            ) + signed
        except InputError as error:
            said = wrong[version.number] = str(error)
        print(f"version {version.number}: {said}", flush=True)
    if wrong:
        numbers = ", ".join(map(str, wrong))
        raise InputError(f"model {name!r}: not what was registered or not to be had: version {numbers}, see above")
    return wrong


if __name__ == "__main__":
    run_step("verify", verify)
