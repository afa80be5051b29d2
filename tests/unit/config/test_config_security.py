"""What the operator's file may say of TLS, users and quotas, and what it is warned of."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.config.hazards import is_local, unmeant, unsafe
from dicom_node.config.load import Config, read
from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.security import TlsFiles

TLS = '[tls]\ncertificate = "node.pem"\nkey = "node.key"\nca = "ca.pem"\n'
OUTSIDE = '[node]\nhost = "0.0.0.0"\n'
DIGEST = "AB:" * 31 + "ab"


def a_peer(more: str = "", host: str = "10.0.0.5") -> str:
    return f'[[peer]]\nname = "ct"\nae_title = "CT1"\nhost = "{host}"\nport = 104\n{more}\n'


def config_of(text: str) -> Config:
    return read(text, base=Path("/site"))


def mistakes_in(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        config_of(text)
    return list(caught.value.mistakes)


def test_a_peer_has_what_its_table_says_and_the_files_of_the_node():
    config = config_of(
        TLS
        + a_peer(
            f'certificates = ["sha256:{DIGEST}", "subject:CN=ct1,O=Hospital"]\n'
            'user = "ct"\npasscode = "file:secrets/ct"\nmax_associations = 2\n'
            'objects_per_minute = 600\nin_flight_mib = 512\ntls = true\ntls_name = "ct1.hospital"'
        )
    )
    (peer,) = config.peers
    assert peer.certificates == ("sha256:" + "ab" * 32, "subject:CN=ct1,O=Hospital")
    assert (peer.user, peer.passcode) == ("ct", "file:/site/secrets/ct")
    assert (peer.max_associations, peer.objects_per_minute, peer.in_flight_mib) == (2, 600, 512)
    assert (peer.tls, peer.tls_name) == (True, "ct1.hospital")
    assert peer.tls_files == TlsFiles(
        certificate="/site/node.pem", key="/site/node.key", ca="/site/ca.pem"
    )
    assert (config.tls.port, config.tls.plain, config.tls.warn_days) == (2762, True, 30)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ('[tls]\nkey = "a"', "tls.certificate is missing"),
        ('[tls]\ncertificate = "a"\nrequire_client_certificate = false', "tls.key is missing"),
        ('[tls]\ncertificate = "a"\nkey = "b"', "tls.ca is missing: require_client_certificate"),
        ("[tls]\nplain = false", "tls.plain is false: then tls.certificate is wanted"),
        (TLS + "port = 11112", "tls.port is 11112: that is node.port"),
        ("[tls]\nport = 70000", "tls.port is 70000: whole number from 0 to 65535 is wanted"),
        ('[tls]\ncertificate = ""', "the path of a file is wanted"),
        (TLS + a_peer('certificates = ["sha1:00"]'), 'a certificate is named "sha256:"'),
        (TLS + a_peer('certificates = ["sha256:00"]'), "a fingerprint has 64 hexadecimal digits"),
        (TLS + a_peer('certificates = ["subject:ct1"]'), "a subject is written as CN=name"),
        (a_peer('certificates = ["subject:CN=a"]'), "peer[0].certificates cannot match"),
        (a_peer("tls = true"), "peer[0].tls is true: nobody vouches for it"),
        (a_peer('tls = true\ncertificates = ["subject:CN=a"]'), "nobody vouches for it"),
        (TLS + a_peer('passcode = "env:X"'), "peer[0].passcode has no user"),
        (TLS + a_peer('user = "a"\npasscode = "s3cret"'), "a secret does not stand here"),
        (a_peer("objects_per_minute = 0"), "peer[0].objects_per_minute (of 'ct') is 0"),
    ],
)
def test_what_cannot_work_is_a_mistake_with_its_place(text: str, mistake: str):
    found = mistakes_in(text)
    assert any(mistake in one for one in found), found
    assert not any("s3cret" in one for one in found)


def test_a_pinned_peer_needs_nobody_who_vouches_for_it():
    (peer,) = config_of(a_peer(f'tls = true\ncertificates = ["sha256:{DIGEST}"]')).peers
    assert peer.tls
    assert peer.certificates == (f"sha256:{'ab' * 32}",)


AUDIT = '[audit]\nfile = "audit.log"\n'
SAFE = OUTSIDE + AUDIT + TLS + "plain = false\n" + a_peer('certificates = ["subject:CN=ct1"]')


def test_a_node_that_is_closed_as_it_can_be_is_warned_of_nothing():
    assert unsafe(config_of(SAFE)) == []
    assert unsafe(config_of("")) == []


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ('[receive]\nunknown_peers = "accept"', "anybody may store here"),
        (OUTSIDE + '[receive]\nunknown_peers = "accept"', "from the whole network"),
        (OUTSIDE + a_peer(), "DICOM goes in clear over the network: configure [tls]"),
        (OUTSIDE + TLS + a_peer(), "port 11112 is open to the network without TLS"),
        (OUTSIDE + a_peer(), "there is no audit trail"),
        (OUTSIDE, "listens on 0.0.0.0 and knows no peer"),
        (
            '[tls]\ncertificate = "a"\nkey = "b"\nrequire_client_certificate = false',
            "who calls by TLS need not show a certificate",
        ),
        (OUTSIDE + a_peer(host="ct1.hospital"), "ct may call from any address"),
        (a_peer('user = "ct"\npasscode = "env:X"'), "has a passcode, and there is no TLS"),
        (
            OUTSIDE + TLS + a_peer('user = "ct"\npasscode = "env:X"'),
            "could send it to the port without TLS",
        ),
        (a_peer('user = "ct"'), "has a user without a passcode"),
        (OUTSIDE + TLS + a_peer("tls = true"), "is called by TLS, and may call without"),
        (
            a_peer('dicomweb = "http://10.0.0.5/web"\ndicomweb_token = "env:X"'),
            "gets its DICOMweb token in clear",
        ),
        (
            a_peer(
                'dicomweb = "http://pacs.hospital/web"\ndicomweb_token = "env:X"', host="127.0.0.1"
            ),
            "gets its DICOMweb token in clear",
        ),
        (OUTSIDE + TLS + "plain = false\n" + a_peer(), "can call as peer ct"),
        (OUTSIDE + a_peer('networks = ["0.0.0.0/0"]'), "`networks` leave nobody out"),
        (OUTSIDE + a_peer('networks = ["::/0"]'), "`networks` leave nobody out"),
    ],
)
def test_every_unsafe_setting_is_warned_of(text: str, warning: str):
    found = unsafe(config_of(text))
    assert [one for one in found if warning in one], found
    assert warning not in " ".join(unsafe(config_of(SAFE)))


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("LOCALHOST", True),
        ("localhost.evil.org", False),
        ("127.0.0.1.evil.org", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
    ],
)
def test_only_this_machine_is_local(host: str, local: bool):
    assert is_local(host) is local


def test_what_is_not_unsafe_but_odd_is_told_apart():
    config = config_of("")
    assert "no peer is configured: nobody can send anything here; add [[peer]]" in unmeant(config)
    assert not set(unmeant(config)) & set(unsafe(config))
