"""The audit file, and the box of the commands."""

from __future__ import annotations

import pytest

from dicom_node.audit.box import Posted, post, posted, take_away
from dicom_node.audit.file import AuditFile
from dicom_node.domain.errors import AuditError


def test_a_full_file_is_put_aside_and_so_many_are_kept(tmp_path):
    file = AuditFile(path=tmp_path / "log" / "audit.log", limit_bytes=20, keep=2)
    for number in range(6):
        file.append([b"message %d" % number])

    found = {f.name: f.read_bytes() for f in (tmp_path / "log").iterdir()}
    assert found == {
        "audit.log": b"message 4\nmessage 5\n",
        "audit.log.1": b"message 2\nmessage 3\n",
        "audit.log.2": b"message 0\nmessage 1\n",
    }
    file.append([b"message 6"])
    assert (tmp_path / "log" / "audit.log.2").read_bytes() == b"message 2\nmessage 3\n"
    assert not (tmp_path / "log" / "audit.log.3").exists()


def test_half_a_line_that_a_crash_left_spoils_no_other(tmp_path):
    path = tmp_path / "audit.log"
    path.write_bytes(b"whole\nha")

    AuditFile(path=path, limit_bytes=1000, keep=1).append([b"next"])

    assert path.read_bytes() == b"whole\nha\nnext\n"


def test_the_file_is_for_its_owner_alone(tmp_path):
    AuditFile(path=tmp_path / "audit.log", limit_bytes=1000, keep=1).append([b"a"])

    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_says_which(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(AuditError, match=r"file/audit\.log cannot be written"):
        AuditFile(path=tmp_path / "file" / "audit.log", limit_bytes=9, keep=1).append([b"a"])


def test_what_a_command_posts_is_taken_once(tmp_path):
    one = Posted(at=1.5, well=True, xml="<a/>")
    post(tmp_path / "box", one, "first")
    post(tmp_path / "box", Posted(at=2.5, well=False, xml="<b>ü</b>"), "second")

    found = posted(tmp_path / "box", 10)

    assert {(m.at, m.well, m.xml) for m in found} == {(1.5, True, "<a/>"), (2.5, False, "<b>ü</b>")}
    assert len(posted(tmp_path / "box", 1)) == 1
    take_away(found)
    assert posted(tmp_path / "box", 10) == []


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff", b'{"at": 1, "well": true, "xml": "a\\nb"}', bytes(300_000)]
)
def test_what_is_no_message_is_removed(tmp_path, body: bytes):
    (tmp_path / "x.message").write_bytes(body)

    assert posted(tmp_path, 10) == []
    assert list(tmp_path.iterdir()) == []


def test_a_box_that_nobody_empties_takes_no_more(tmp_path):
    for number in range(1000):
        (tmp_path / f"{number}.message").touch()

    with pytest.raises(AuditError, match="is full"):
        post(tmp_path, Posted(at=1.0, well=True, xml="<a/>"), "more")
