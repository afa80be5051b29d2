"""`doctor` and `status` on certificates, keys and secrets; `serve` on what is not safe."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dicom_node.cli import guarded
from dicom_node.cli.examine import Finding
from dicom_node.cli.main import main
from dicom_node.config.load import Config, load, read
from dicom_node.dimse.certificates import validities
from dicom_node.domain.security import CertificateLoaded

PEER = '[[peer]]\nname = "ct"\nae_title = "CT1"\nhost = "127.0.0.1"\nport = 1\n'


@pytest.fixture
def config_of(certificates: Path) -> Callable[[str], Config]:
    """A configuration with TLS; {name} stands for the node's certificate."""

    def configure(name: str = "node", more: str = "") -> Config:
        text = f'[tls]\ncertificate = "{name}.pem"\nkey = "{name}.key"\nca = "ca.pem"\n{more}\n'
        return read(text + PEER, base=certificates)

    return configure


def only(findings: list[Finding], state: str) -> list[str]:
    return [f"{f.text}: {f.advice}" for f in findings if f.state == state]


def test_good_certificates_are_told_with_their_end_and_their_fingerprint(config_of) -> None:
    findings = list(guarded.tls(config_of()))
    assert {f.state for f in findings} == {"ok"}
    assert "this node's certificate is good until 2126-" in findings[0].text
    assert ": sha256:" in findings[0].text
    assert guarded.ending(config_of(), None) == []


def test_without_tls_there_is_nothing_to_say() -> None:
    config = read("", base=Path("/site"))
    assert (
        list(guarded.tls(config))
        == list(guarded.secrets(config, runs=False))
        == guarded.ending(config, None)
        == []
    )


def test_what_has_expired_fails_and_what_soon_will_is_warned_of(config_of) -> None:
    (expired,) = only(list(guarded.tls(config_of("expired"))), "failed")
    assert "this node's certificate has expired: on 20" in expired
    assert "renew it" in expired
    assert "has expired" in guarded.ending(config_of("expired"), None)[0]
    soon = config_of(more="warn_days = 3650\n")
    assert only(list(guarded.tls(soon)), "warning") == []  # in a hundred years


def test_a_key_that_does_not_fit_or_is_not_private_fails(config_of, certificates: Path) -> None:
    (certificates / "node.key").chmod(0o644)
    assert "others may read it" in only(list(guarded.tls(config_of())), "failed")[0]
    (certificates / "ct.key").replace(certificates / "node.key")
    assert "does not belong to" in only(list(guarded.tls(config_of())), "failed")[0]


def test_a_chain_that_does_not_lead_to_the_trusted_issuers_is_a_doubt(config_of) -> None:
    (doubt,) = only(list(guarded.tls(config_of("stranger"))), "warning")
    assert "tls.ca does not vouch for this node's own certificate" in doubt


def test_secrets_are_read_and_never_shown(
    config_of, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_TOKEN", "s3cret-token")
    (certificates / "passcode").write_text("s3cret")
    (certificates / "passcode").chmod(0o600)
    peer = PEER + 'user = "ct"\npasscode = "file:passcode"\ndicomweb_token = "env:CT_TOKEN"\n'
    config = read(peer, base=certificates)
    (found,) = guarded.secrets(config, runs=False)
    assert found.text == "can be read, by this user alone: passcode of ct, dicomweb_token of ct"
    (certificates / "passcode").chmod(0o644)
    monkeypatch.delenv("CT_TOKEN")
    failures = only(list(guarded.secrets(config, runs=False)), "failed")
    assert len(failures) == 2
    assert "others may read it" in failures[0]
    assert "CT_TOKEN is not set" in failures[1]
    assert "s3cret" not in str(failures)
    beside = list(guarded.secrets(config, runs=True))
    assert [f.state for f in beside] == ["failed", "warning"]  # a file is the same for everybody
    assert (
        "CT_TOKEN is not set in this shell: the node that runs may have it"
        in only(beside, "warning")[0]
    )


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Runs the console script in this process: exit code and output."""

    def command(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["dicom-node", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().out

    return command


def test_serve_doctor_and_status_say_what_is_not_safe(
    tmp_path: Path,
    build: SimpleNamespace,
    certificates: Path,
    run: Callable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    more = (
        f'[tls]\ncertificate = "{certificates}/expired.pem"\nkey = "{certificates}/expired.key"\n'
        "require_client_certificate = false\nport = 0\nplain = false\n"
    )
    path = build.write_node(tmp_path / "node", peers=PEER, more=more)
    danger = "who calls by TLS need not show a certificate"
    with caplog.at_level(logging.WARNING, "dicom_node"), build.started(path) as node:
        assert node.running.tls_port == node.port  # there is no other
        logged = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert any(line.startswith(f"UNSAFE: {danger}") for line in logged)
        node.wait(lambda: any("certificate has expired" in r.getMessage() for r in caplog.records))
        code, text = run("status", "--attention", "--config", path)
        assert code == 1
        assert "this node's certificate has expired: on " in text
        code, text = run("doctor", "--json", "--config", path)
        findings = json.loads(text)["findings"]
        assert danger in next(f["text"] for f in findings if f["check"] == "security")
        assert "has expired" in next(f["text"] for f in findings if f["check"] == "tls")
        assert [f["advice"] for f in findings if f["check"] == "port"] == ["set tls.port"]


def test_a_fingerprint_is_told_whole_so_that_it_can_be_copied(
    tmp_path: Path, build: SimpleNamespace, certificates: Path, run: Callable
) -> None:
    more = (
        f'[tls]\ncertificate = "{certificates}/node.pem"\nkey = "{certificates}/node.key"\n'
        f'ca = "{certificates}/ca.pem"\nport = 0\n'
    )
    path = build.write_node(tmp_path / "node", more=more)
    _, text = run("doctor", "--config", path)
    own = validities(load(path).tls.files())[0]
    (line,) = (line for line in text.splitlines() if f"sha256:{own.sha256}" in line)
    assert len(line) <= 80


def test_status_tells_of_the_certificate_that_is_shown_when_its_files_have_become_useless(
    tmp_path: Path, build: SimpleNamespace, certificates: Path, run: Callable
) -> None:
    more = (
        f'[tls]\ncertificate = "{certificates}/expired.pem"\nkey = "{certificates}/expired.key"\n'
        f'ca = "{certificates}/ca.pem"\nport = 0\n'
    )
    path = build.write_node(tmp_path / "node", more=more)
    with build.started(path):
        (certificates / "expired.key").chmod(0o644)
        code, text = run("status", "--attention", "--config", path)
        told = " ".join(text.split())
        assert code == 1
        assert "this node's certificate has expired: on " in told
        assert "the files of TLS cannot be used" in told
        assert "others may read it (chmod 600)" in told
        assert "nothing needs attention" not in told


def test_status_says_that_a_certificate_out_of_date_is_not_shown_instead_of_a_good_one(
    config_of: Callable[[str], Config],
) -> None:
    good = validities(config_of("node").tls.files())[0]
    shown = CertificateLoaded(at=0.0, sha256=good.sha256, expires_at=good.expires_at)
    (told,) = guarded.ending(config_of("expired"), shown)
    assert told.startswith("the files of TLS cannot be used")
    assert told.endswith("expired.pem: it has expired")


def test_a_node_with_files_that_cannot_be_used_does_not_start(
    tmp_path: Path, build: SimpleNamespace, certificates: Path
) -> None:
    from dicom_node.domain.errors import ConfigurationError  # noqa: PLC0415
    from dicom_node.node.serve import start  # noqa: PLC0415

    more = (
        f'[tls]\ncertificate = "{certificates}/node.pem"\nkey = "{certificates}/ct.key"\n'
        f'ca = "{certificates}/ca.pem"\nport = 0\n'
    )
    path = build.write_node(tmp_path / "node", more=more)
    with pytest.raises(ConfigurationError, match="the key does not belong to the certificate"):
        start(load(path))
