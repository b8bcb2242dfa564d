"""What the environment says."""

from pathlib import Path

import pytest

from search import settings


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    for name in ("COVERS_HOME", "XDG_DATA_HOME", "QDRANT_URL", "QDRANT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")


def test_the_workspace_is_in_the_users_data_by_default():
    assert settings.home() == Path("/home/somebody/.local/share/covers")


@pytest.mark.parametrize(
    ("data", "home"),
    [
        ("/data", "/data/covers"),
        ("", "/home/somebody/.local/share/covers"),
        ("not/absolute", "/home/somebody/.local/share/covers"),
    ],
)
def test_the_users_data_may_lie_elsewhere(monkeypatch, data, home):
    monkeypatch.setenv("XDG_DATA_HOME", data)
    assert settings.home() == Path(home)


def test_the_workspace_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("COVERS_HOME", "~/here")
    assert settings.home() == Path("/home/somebody/here")
    monkeypatch.setenv("COVERS_HOME", "here")
    monkeypatch.chdir(tmp_path)
    assert settings.home() == tmp_path / "here"


def test_no_server_is_used_unless_named(monkeypatch):
    assert settings.read().qdrant_url is None
    monkeypatch.setenv("QDRANT_URL", "  ")
    monkeypatch.setenv("QDRANT_API_KEY", "")
    assert settings.read() == settings.Settings(settings.home(), None, None)


def test_the_key_is_read_and_never_shown(monkeypatch):
    monkeypatch.setenv("QDRANT_URL", "https://qdrant.example:6333")
    monkeypatch.setenv("QDRANT_API_KEY", " s3cret\n")
    read = settings.read()
    assert read.qdrant_api_key == "s3cret"
    assert "s3cret" not in repr(read)


@pytest.mark.parametrize("url", ["localhost:6333", "ftp://localhost", "qdrant"])
def test_an_address_of_another_kind_is_refused(monkeypatch, url):
    monkeypatch.setenv("QDRANT_URL", url)
    with pytest.raises(ValueError, match=f"QDRANT_URL is '{url}', which is no http address"):
        settings.read()


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel"])
def test_a_key_that_no_header_carries_is_refused_unseen(monkeypatch, key):
    monkeypatch.setenv("QDRANT_API_KEY", key)
    with pytest.raises(ValueError, match="a character that a header can't carry") as raised:
        settings.read()
    assert key not in str(raised.value)
