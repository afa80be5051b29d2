"""Secrets: they stand elsewhere, and a sentence says what is wrong with where."""

import pytest

from dicom_node.config.load import read
from dicom_node.config.secrets import reveal
from dicom_node.domain.errors import ConfigurationError

PEER = """
[[peer]]
name = "pacs"
ae_title = "PACS"
host = "10.0.0.1"
port = 104
dicomweb = "https://pacs/dicom-web"
dicomweb_token = "{token}"
"""


def token_of(tmp_path, token):
    return read(PEER.format(token=token), base=tmp_path).peers[0].dicomweb_token


def test_a_secret_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PACS_TOKEN", " abc ")
    assert reveal(token_of(tmp_path, "env:PACS_TOKEN")) == "abc"
    monkeypatch.delenv("PACS_TOKEN")
    with pytest.raises(ConfigurationError, match="PACS_TOKEN is not set"):
        reveal("env:PACS_TOKEN")


def test_a_secret_comes_from_a_file_that_only_its_owner_reads(tmp_path):
    file = tmp_path / "token"
    file.write_text("abc\n")
    file.chmod(0o600)
    assert reveal(token_of(tmp_path, "file:token")) == "abc"
    file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="others may read it"):
        reveal(token_of(tmp_path, "file:token"))


def test_a_secret_in_the_file_itself_is_refused_and_not_repeated(tmp_path):
    with pytest.raises(ConfigurationError, match="a secret does not stand here") as caught:
        token_of(tmp_path, "hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["pacs/dicom-web", "ftp://pacs", "https://u:p@pacs/x", "http://a?b"]
)
def test_an_address_that_is_no_url_is_refused(tmp_path, url):
    text = PEER.format(token="env:X").replace("https://pacs/dicom-web", url)
    with pytest.raises(ConfigurationError, match="dicomweb"):
        read(text, base=tmp_path)


def test_no_secret_is_no_error():
    assert reveal("") == ""
