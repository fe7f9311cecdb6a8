"""Versions are signed where there is a key, and without the right signature nothing of one is used."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from recsys.errors import InputError
from registry import signing
from tests.support.pipeline import grid, write_csv

pytest.importorskip("model_signing")
PEM = serialization.Encoding.PEM


def write_keys(folder: Path) -> tuple[Path, Path]:
    folder.mkdir()
    private, public = folder / "key.pem", folder / "public.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.TraditionalOpenSSL
    private.write_bytes(key.private_bytes(PEM, form, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Our private and public key, and somebody else's public key."""
    base = tmp_path_factory.mktemp("keys")
    return *write_keys(base / "ours"), write_keys(base / "others")[1]


@pytest.fixture
def signed(module_store, module_step, keys, monkeypatch):
    """The files of version 1, which is signed; version 2 is not. The key to verify with is ours."""
    if not module_store.client.search_registered_models():
        write_csv(module_store.home / "grid.csv", grid())
        monkeypatch.setenv(signing.SIGNING_KEY, str(keys[0]))
        module_step("train", ratings="grid.csv", family="bias")
        monkeypatch.delenv(signing.SIGNING_KEY)
        module_step("train", ratings="grid.csv", family="bias", seed=1)
    monkeypatch.setenv(signing.VERIFY_KEY, str(keys[1]))
    model = module_store.client.get_logged_model(module_store.client.get_model_version("recsys", "1").source[8:])
    return Path(urlsplit(model.artifact_location).path)


def refused(capsys, step, name, **parameters):
    capsys.readouterr()
    with pytest.raises(SystemExit):
        step(name, **parameters)
    told = capsys.readouterr()
    return told.out + told.err


def test_a_signed_version_is_used_and_one_without_is_not(signed, module_step, capsys):
    module_step("verify", version=1)
    assert "all as registered, signed by the key to verify with" in capsys.readouterr().out
    module_step("evaluate", version=1)
    for name in ("verify", "evaluate"):
        assert "it is not signed (no model.sig)" in refused(capsys, module_step, name, version=2)


def test_another_s_signature_is_refused(signed, module_step, keys, monkeypatch, capsys):
    monkeypatch.setenv(signing.VERIFY_KEY, str(keys[2]))
    assert "its signature is not by the key of RECSYS_VERIFY_KEY" in refused(capsys, module_step, "verify", version=1)


def test_who_writes_files_statement_and_tag_still_lacks_the_key(signed, module_step, module_store, capsys):
    """What digests alone cannot find: a version replaced as a whole, and its tag with it."""
    from recsys.serving.integrity import write_statement

    kept = signed.parent / "kept"
    shutil.copytree(signed, kept)
    before = module_store.client.get_model_version("recsys", "1").tags["provenance"]
    model = signed / "artifacts" / "recommender" / "recommender.json"
    model.write_text(model.read_text() + " ")
    module_store.client.set_model_version_tag("recsys", "1", "provenance", write_statement(signed, {}))
    assert "over these files (Signature mismatch" in refused(capsys, module_step, "verify", version=1)
    shutil.rmtree(signed)
    kept.rename(signed)
    module_store.client.set_model_version_tag("recsys", "1", "provenance", before)


def test_a_key_that_is_none_is_told_before_the_training(
    signed, module_step, module_store, monkeypatch, capsys, tmp_path
):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no key")
    for given in (wrong, tmp_path / "none.pem"):
        monkeypatch.setenv(signing.SIGNING_KEY, str(given))
        before = len(module_store.runs())
        told = refused(capsys, module_step, "train", ratings="grid.csv", family="bias")
        assert "RECSYS_SIGNING_KEY: a file with a private key without a password of an elliptic curve" in told
        assert len(module_store.runs()) == before
    monkeypatch.delenv(signing.SIGNING_KEY)
    signing.use_keys(verify_with=str(wrong))
    with pytest.raises(InputError, match="RECSYS_VERIFY_KEY: a file with a public key"):
        signing.check_signature(signed)
    signing.use_keys()
