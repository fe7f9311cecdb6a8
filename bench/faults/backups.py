"""Sealed backups with a byte changed, cut, or put together anew: does `verify` take one that is not what was saved?"""

import gzip
import io
import json
import random
import tarfile
from pathlib import Path

from server.backup import ACCOUNTS, ARTIFACTS, KEY, MANIFEST, BackupError, _fingerprint, _seal, verify

_KEY = {KEY: "a key that only the owner of the backups knows"}
_DUMP = (
    b"-- dump\nCREATE TABLE `runs` (`a` int);\nINSERT INTO `runs` VALUES (1),(2);\n-- Dump completed on 2026-11-29\n"
)


def run(folder: Path, number: int, seed: int) -> tuple[int, list[str]]:
    """Tamper so often; how many changes `verify` found, and those that it took."""
    whole = _made(folder)
    if not verify(whole, _KEY):
        raise RuntimeError("a sound backup is not taken")
    content, draw, wrong, found = whole.read_bytes(), random.Random(seed), [], 0
    used = _used(whole)
    for attempt in range(number):
        way = attempt % 4
        changed = bytearray(content)
        if way < 2:  # in what is read: behind the last member a tar is filled up with zeros
            place = draw.choice(used)
            changed[place] ^= 1 << draw.randrange(8)
            what = f"bit of byte {place}"
        elif way == 2:
            cut = draw.randrange(used[-1])
            changed, what = changed[:cut], f"cut at {cut}"
        else:
            changed, what = bytearray(_repacked(content, draw)), "a dump replaced, with its digest in the manifest"
        file = folder / "changed.tar"
        file.write_bytes(changed)
        try:
            verify(file, _KEY)
            wrong.append(f"{attempt}: {what}: taken")
        except BackupError:
            found += 1
        except Exception as error:
            wrong.append(f"{attempt}: {what}: {type(error).__name__}: {error}")
    return found, wrong


def _made(folder: Path) -> Path:
    work = folder / "parts"
    work.mkdir()
    (work / "mlflow.sql.gz").write_bytes(gzip.compress(_DUMP, mtime=0))
    (work / ACCOUNTS).write_bytes(b"")
    with tarfile.open(work / ARTIFACTS, "w") as archive:
        member = tarfile.TarInfo("0/model.npz")
        member.size = 5000
        archive.addfile(member, io.BytesIO(random.Random(1).randbytes(5000)))
    files = {path.name: _fingerprint(path) for path in sorted(work.iterdir())}
    text = json.dumps({"format": 1, "counts": {"mlflow": {"runs": 2}}, "files": files})
    (work / MANIFEST).write_text(text, encoding="utf-8")
    _seal(work, _KEY)
    with tarfile.open(folder / "backup.tar", "w") as archive:
        for path in sorted(work.iterdir()):
            archive.add(path, path.name)
    return folder / "backup.tar"


def _used(file: Path) -> list[int]:
    """Places of the members' contents in the archive."""
    with tarfile.open(file) as archive:
        return [place for member in archive for place in range(member.offset_data, member.offset_data + member.size)]


def _repacked(content: bytes, draw: random.Random) -> bytes:
    """What somebody does who can write backups and has no key."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as before, tarfile.open(fileobj=out, mode="w") as after:
        members = {member.name: (before.extractfile(member) or io.BytesIO()).read() for member in before}
        extra = f"INSERT INTO `runs` VALUES ({draw.randrange(100)});\n".encode()
        members["mlflow.sql.gz"] = gzip.compress(extra + _DUMP, mtime=0)
        manifest = json.loads(members[MANIFEST])
        import tempfile

        with tempfile.NamedTemporaryFile() as file:
            file.write(members["mlflow.sql.gz"])
            file.flush()
            manifest["files"]["mlflow.sql.gz"] = _fingerprint(Path(file.name))
        members[MANIFEST] = json.dumps(manifest).encode()
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            after.addfile(member, io.BytesIO(data))
    return out.getvalue()
