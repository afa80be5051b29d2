"""The node's own files: which can be used, how long, and what happens when they change."""

from __future__ import annotations

import shutil
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.dimse.certificates import OWN, Reloading, Validity, validities, vouched
from dicom_node.dimse.tls import server_context
from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.security import TlsFiles

NOW = 1_800_000_000.0  # in 2027: those for tests are good for a hundred years


def files_of(folder: Path, name: str = "node", key: str = "") -> TlsFiles:
    return TlsFiles(
        certificate=str(folder / f"{name}.pem"),
        key=str(folder / f"{key or name}.key"),
        ca=str(folder / "ca.pem"),
    )


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ({"key": "ct.key"}, "the key does not belong to the certificate"),
        ({"key": "encrypted.key"}, "tls.key is encrypted"),
        ({"key": "node.pem"}, "it holds no private key in PEM"),
        ({"key": "nothing.key"}, "nothing.key: it cannot be read: No such file"),
        ({"certificate": "node.key"}, "it holds no certificate in PEM"),
        ({"certificate": "nothing.pem"}, "tls.certificate is "),
        ({"certificate": "cut.pem"}, "it cannot be used"),
        ({"ca": "node.key"}, "it holds no certificate in PEM"),
        ({"ca": "cut.pem"}, "it cannot be used as certificates in PEM"),
        ({"ca": "nothing.pem"}, "tls.ca is "),
    ],
)
def test_files_that_cannot_be_used_are_named_with_the_reason(
    certificates: Path, change: dict[str, str], mistake: str
) -> None:
    whole = (certificates / "node.pem").read_text()
    (certificates / "cut.pem").write_text(whole[:200] + whole[-30:])
    files = replace(files_of(certificates), **{k: str(certificates / v) for k, v in change.items()})
    with pytest.raises(ConfigurationError, match=mistake):
        server_context(files)


def test_a_key_that_others_may_read_is_refused(certificates: Path) -> None:
    (certificates / "node.key").chmod(0o640)
    with pytest.raises(ConfigurationError, match=r"others may read it \(chmod 600\)"):
        server_context(files_of(certificates))


def test_how_long_certificates_are_good_is_read_from_them(certificates: Path) -> None:
    own, ca = validities(files_of(certificates))
    assert (own.whose, ca.whose) == (OWN, "the CA O=FOR TESTS ONLY,CN=test CA of tls.ca")
    assert own.expires_at - own.begins_at == pytest.approx(36525 * 86400, abs=86400)
    assert len(own.sha256) == 64
    (ended, _) = validities(files_of(certificates, "expired"))
    assert ended.expires_at - ended.begins_at < 86400  # an end that is past is read, too


def test_a_certificate_that_no_peer_could_take_is_refused(certificates: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no peer can take it: .*purpose"):
        validities(files_of(certificates, "client-only"))


def test_who_trusts_the_same_issuers_trusts_the_node_or_not(certificates: Path) -> None:
    assert vouched(files_of(certificates)) == ""
    assert vouched(files_of(certificates, "stranger")) == "unable to get local issuer certificate"
    assert vouched(files_of(certificates, "expired")) == "certificate has expired"


def test_new_files_are_used_and_bad_ones_are_not(certificates: Path) -> None:
    told: list[tuple[Validity | None, str]] = []
    files = files_of(certificates)
    reloading = Reloading(files, lambda: NOW, lambda *news: told.append(news), settle_s=0.0)
    first = reloading.context()
    reloading.look()
    assert (reloading.context(), told) == (first, [])

    shutil.copy(certificates / "renewed.pem", files.certificate)
    reloading.look()  # its key is not there yet
    assert reloading.context() is first
    reloading.look()
    assert [one for one, _ in told] == [None]  # once
    assert "does not belong to the certificate" in told[0][1]

    shutil.copy(certificates / "renewed.key", files.key)
    reloading.look()
    second = reloading.context()
    assert second is not first
    assert told[1][0].sha256 == validities(files)[0].sha256

    (certificates / "mr.pem").replace(files.ca)  # whom it trusts counts, too: by inode here
    reloading.look()
    assert reloading.context() is not second
    assert len(told) == 3

    Path(files.certificate).unlink()
    reloading.look()
    assert "cannot be read" in told[3][1]


def test_a_certificate_out_of_date_does_not_replace_one_that_is_good(certificates: Path) -> None:
    told: list[tuple[Validity | None, str]] = []
    files = files_of(certificates)
    good, _ = validities(files)
    at = [good.begins_at + 60.0]
    reloading = Reloading(files, lambda: at[0], lambda *news: told.append(news), settle_s=0.0)
    first = reloading.context()
    shutil.copy(certificates / "expired.pem", files.certificate)
    shutil.copy(certificates / "expired.key", files.key)
    reloading.look()
    reloading.look()
    assert reloading.context() is first
    (refusal,) = told
    assert refusal == (None, f"tls.certificate is {files.certificate}: it has expired")

    at[0] = good.expires_at + 60.0
    reloading.look()  # now it is as good as the other
    assert reloading.context() is not first
    assert told[1][0] is not None

    shutil.copy(certificates / "renewed.pem", files.certificate)
    shutil.copy(certificates / "renewed.key", files.key)
    at[0] = good.begins_at + 60.0
    reloading.look()
    assert told[2][0] is not None


def test_a_bad_file_is_given_time_to_become_a_good_one(certificates: Path) -> None:
    told: list[tuple[Validity | None, str]] = []
    files = files_of(certificates)
    reloading = Reloading(files, lambda: NOW, lambda *news: told.append(news), settle_s=3600.0)
    shutil.copy(certificates / "renewed.pem", files.certificate)
    for _ in range(3):
        reloading.look()
    assert told == []
    shutil.copy(certificates / "renewed.key", files.key)
    reloading.look()
    assert len(told) == 1
    assert told[0][0] is not None


def test_the_versions_and_cipher_suites_are_those_of_the_profile(certificates: Path) -> None:
    context = server_context(files_of(certificates))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    suites = context.get_ciphers()
    assert suites
    for suite in suites:
        assert suite["aead"], suite["name"]
        assert suite["protocol"] == "TLSv1.3" or suite["name"].startswith("ECDHE-")
    assert context.verify_mode is ssl.CERT_REQUIRED
