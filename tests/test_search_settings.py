"""What the environment says."""

import os
from pathlib import Path

import pytest
from certificates import make_certificate

from search import settings


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    for name in os.environ:
        if name.startswith("QDRANT_") or name in ("COVERS_HOME", "XDG_DATA_HOME"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/home/somebody")


@pytest.mark.parametrize(
    ("data", "covers", "home"),
    [
        ("", "", "/home/somebody/.local/share/covers"),
        ("/data", "", "/data/covers"),
        ("not/absolute", "", "/home/somebody/.local/share/covers"),
        ("/data", "~/here", "/home/somebody/here"),
        ("/data", "here", Path("here").absolute()),
    ],
)
def test_the_workspace_is_in_the_users_data_or_where_covers_home_says(
    monkeypatch, data, covers, home
):
    monkeypatch.setenv("XDG_DATA_HOME", data)
    monkeypatch.setenv("COVERS_HOME", covers)
    assert settings.home() == Path(home)


def test_no_server_is_used_unless_named(monkeypatch):
    assert settings.read().qdrant_url is None
    monkeypatch.setenv("QDRANT_URL", "  ")
    monkeypatch.setenv("QDRANT_API_KEY", "")
    assert settings.read() == settings.Settings(settings.home())


def test_the_key_is_read_and_never_shown(monkeypatch):
    monkeypatch.setenv("QDRANT_URL", "https://qdrant.example:6333")
    monkeypatch.setenv("QDRANT_API_KEY", " s3cret\n")
    read = settings.read()
    assert read.qdrant_api_key == "s3cret"
    assert "s3cret" not in repr(read)


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel"])
def test_a_key_that_no_header_carries_is_refused_unseen(monkeypatch, key):
    monkeypatch.setenv("QDRANT_API_KEY", key)
    with pytest.raises(ValueError, match="a character that a header cannot carry") as raised:
        settings.read()
    assert key not in str(raised.value)


def test_how_a_server_is_used_can_be_said(monkeypatch, tmp_path):
    read = settings.read()
    assert (read.qdrant_grpc_port, read.qdrant_ca_cert) == (None, None)
    assert (read.qdrant_shards, read.qdrant_replicas) == (None, None)
    _, certificate = make_certificate()
    (tmp_path / "ca.pem").write_bytes(certificate)
    for name, value in {
        "QDRANT_URL": "https://qdrant.example:6333",
        "QDRANT_GRPC_PORT": "16334",
        "QDRANT_CA_CERT": str(tmp_path / "ca.pem"),
        "QDRANT_SHARDS": "6",
        "QDRANT_REPLICAS": " 2 ",
    }.items():
        monkeypatch.setenv(name, value)
    read = settings.read()
    assert (read.qdrant_grpc_port, read.qdrant_ca_cert) == (16334, tmp_path / "ca.pem")
    assert (read.qdrant_shards, read.qdrant_replicas) == (6, 2)


NUMBER = "where it must be a whole number from"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("QDRANT_URL", "localhost:6333", "which is not an http address"),
        ("QDRANT_URL", "ftp://localhost", "which is not an http address"),
        ("QDRANT_GRPC_PORT", "65536", f"{NUMBER} 1 to 65535"),
        ("QDRANT_GRPC_PORT", "0", f"{NUMBER} 1 to 65535"),
        ("QDRANT_SHARDS", "0", f"{NUMBER} 1 to 1024"),
        ("QDRANT_REPLICAS", "-1", f"{NUMBER} 1 to 64"),
        ("QDRANT_REPLICAS", "1.5", f"{NUMBER} 1 to 64"),
        *(
            ("COVERS_COLLECTION", name, "which cannot name a collection")
            for name in ("a b", "-a", "ä", "a/b", "..", "x" * 64)
        ),
    ],
)
def test_a_value_that_cannot_be_used_is_named(monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name} is '{value}', {words}"):
        settings.read()


def test_a_certificate_that_cannot_be_used_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("QDRANT_CA_CERT", str(tmp_path / "ca.pem"))
    with pytest.raises(
        ValueError, match=r"QDRANT_CA_CERT is .*ca\.pem, which cannot be read as PEM"
    ):
        settings.read()
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ValueError, match="cannot be read as PEM"):
        settings.read()
    monkeypatch.setenv("QDRANT_URL", "http://qdrant.example:6333")
    with pytest.raises(ValueError, match="QDRANT_URL is not an https address, so nothing is"):
        settings.read()


def test_a_deployment_is_named_by_the_environment(monkeypatch):
    assert settings.read().collection == "covers"
    monkeypatch.setenv("COVERS_COLLECTION", "jazz-2")
    assert settings.read().collection == "jazz-2"
