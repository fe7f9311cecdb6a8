"""Prepared datasets as the steps find and keep them: in the data folder, and in the object store where there is one."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from recsys.data import comparison, layout
from recsys.data import dataset as datasets
from recsys.data.dataset import Dataset
from recsys.data.manifest import NAME, read_manifest
from recsys.data.object_store import ObjectStore, set_time
from recsys.data.preparation import Preparation
from recsys.data.readers.files import find_files
from recsys.errors import InputError
from recsys.runtime.files import write_atomically
from steps.support.entrypoint import data_folder, object_store_address

_DIGEST = 32  # letters of a whole one


def prepared_folder() -> Path:
    """Where prepared datasets are on this machine: with an object store, the copies of those in use."""
    return data_folder() / "prepared"


def object_store() -> ObjectStore | None:
    """The object store that RECSYS_DATA names, or None where that is a folder; raises InputError."""
    address = object_store_address()
    if address is None:
        return None
    # Stores that do not know the checksums which newer clients send would keep them as content.
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    if address[1]:  # else, where no key is given, Amazon's machines would be asked for one, for long
        os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return ObjectStore(address[0], endpoint=address[1], region=region)


def bring(source: Path, preparation: Preparation) -> None:
    """Have what another machine made of the same ratings and parameters, if it did.

    Raises:
        InputError: if the object store cannot be used, for writing too: before minutes of work for nothing.
    """
    if store := object_store():
        store.check()
        _have(store, datasets.digest_source(find_files(source), preparation))


def is_prepared(source: Path) -> bool:
    """Whether a path is a dataset that another engine prepared, by the contract of docs/your-data.md."""
    return (source / NAME).is_file()


def adopt(source: Path) -> Dataset:
    """Take a dataset that another engine prepared among ours; raises InputError with what it has wrong."""
    manifest = read_manifest(source)
    if (found := datasets.find_prepared(manifest["digest"], prepared_folder())) is None:
        if problems := layout.check(source):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise InputError(f"{problems[0]}{more}; python -m recsys.testing.dataset {source} tells all")
        folder = prepared_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with write_atomically(folder / manifest["digest"]) as partial:
            shutil.copytree(source, partial)
        found = datasets.load_dataset(manifest["digest"], folder)
    keep(found)
    return found


def find(source: Path, preparation: Preparation) -> Dataset | None:
    """The dataset that the same ratings and parameters made before, here or on another machine; None for the first."""
    digest = datasets.digest_source(find_files(source), preparation)
    if store := object_store():
        _have(store, digest)
    found = datasets.find_prepared(digest, prepared_folder())
    if found:
        keep(found)
    return found


def keep(dataset: Dataset) -> None:
    """Put a dataset into the object store, where there is one: it is the newest there then."""
    if store := object_store():
        print(f"in the object store: {store.publish(dataset.folder)}", flush=True)


def load(digest: str) -> Dataset:
    """The dataset of a digest, or of the beginning of one; raises InputError where there is not exactly one."""
    if store := object_store():
        named = [digest] if len(digest) == _DIGEST else [name for name in store.times() if name.startswith(digest)]
        for name in named if digest else ():
            _have(store, name)
    return datasets.load_dataset(digest, prepared_folder())


def is_kept(digest: str) -> bool:
    """Whether there is a dataset of this digest, here or in the object store."""
    store = object_store()
    return _have(store, digest) if store else (prepared_folder() / digest).exists()


def newest(among: Collection[str]) -> Dataset:
    """The newest of these datasets; raises InputError where there is none."""
    if store := object_store():
        times = {digest: moment for digest, moment in store.times().items() if digest in among}
        for digest in sorted(times, key=lambda name: times[name], reverse=True):
            if _have(store, digest):
                set_time(prepared_folder() / digest, times[digest])
                return datasets.load_dataset(digest, prepared_folder())
        raise InputError(
            f"none of the datasets that the versions learnt from ({', '.join(sorted(among)) or 'none on record'}) is "
            f"in {store.uri}; run the entry point prepare with their ratings and parameters, or pass "
            "-P dataset=<digest> to decide by another"
        )
    return datasets.newest_dataset(prepared_folder(), among)


def find_predecessor(dataset: Dataset) -> Dataset | None:
    """The dataset prepared last of a file of the same name, numbers in it aside; None for the first."""
    store = object_store()
    if store is None:
        return comparison.find_predecessor(dataset, prepared_folder())
    times = store.times()
    manifests = ((store.read_manifest(name) or {}, moment.timestamp()) for name, moment in times.items())
    digest = comparison.name_predecessor(dataset, manifests)
    return load(digest) if digest else None


def _have(store: ObjectStore, digest: str) -> bool:
    """Have a copy of a dataset on this machine; False where the store has none that can be read here."""
    return (prepared_folder() / digest).exists() or store.fetch(digest, prepared_folder())
