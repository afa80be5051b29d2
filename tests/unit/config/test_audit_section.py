"""What [audit] may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.config.load import read
from dicom_node.domain.errors import ConfigurationError

BASE = Path("/site")


def audit_of(text: str):
    return read(f"[audit]\n{text}", base=BASE).audit


def test_it_is_off_until_it_has_a_target():
    assert not audit_of("").is_on
    assert audit_of('file = "a.log"').is_on
    assert audit_of('syslog = "audit.test:6514"').is_on


def test_its_paths_start_at_the_file():
    audit = audit_of('file = "a.log"\nca = "/etc/ca.pem"\ncertificate = "c.pem"\nkey = "c.key"')

    assert (audit.file, audit.ca) == (BASE / "a.log", Path("/etc/ca.pem"))
    assert (audit.certificate, audit.key) == (BASE / "c.pem", BASE / "c.key")


@pytest.mark.parametrize(
    ("text", "collector"),
    [
        ("audit.test:6514", ("audit.test", 6514)),
        ("10.1.1.1:1", ("10.1.1.1", 1)),
        ("[::1]:7", ("::1", 7)),
    ],
)
def test_a_collector_is_a_host_and_a_port(text: str, collector: tuple[str, int]):
    assert audit_of(f'syslog = "{text}"').collector == collector


@pytest.mark.parametrize("text", ["audit.test", "audit.test:", ":6514", "a:0", "a:70000", "a b:1"])
def test_anything_else_is_refused(text: str):
    with pytest.raises(ConfigurationError, match=r"audit\.syslog"):
        audit_of(f'syslog = "{text}"')


@pytest.mark.parametrize(("given", "missing"), [("certificate", "key"), ("key", "certificate")])
def test_a_certificate_has_a_key(given: str, missing: str):
    with pytest.raises(ConfigurationError, match=rf"audit\.{missing} is missing"):
        audit_of(f'{given} = "x.pem"')
