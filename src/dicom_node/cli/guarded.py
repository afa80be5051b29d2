"""Certificates, keys and secrets, for `doctor` and `status`: there, private, fitting, in date."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dicom_node.cli.examine import Finding, doubtful, failed, well
from dicom_node.config.load import Config
from dicom_node.config.secrets import ENVIRONMENT, reveal
from dicom_node.decide.expiry import is_due, words
from dicom_node.dimse.certificates import OWN, Validity, out_of_date, validities, vouched
from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.security import CertificateLoaded
from dicom_node.node.certificates import needs_tls
from dicom_node.node.clock import SystemClock
from dicom_node.node.words import clock_text


def tls(config: Config) -> Iterator[Finding]:
    """The files of [tls], where they are used."""
    if not needs_tls(config):
        return
    files, now = config.tls.files(), SystemClock().now()
    try:
        found = validities(files)
    except ConfigurationError as error:
        for mistake in error.mistakes:
            yield failed("tls", mistake, "correct the file, or [tls]")
        return
    for one in found:
        yield _in_date(one, now, config.tls.warn_days)
    in_date = all(one.begins_at <= now < one.expires_at for one in found)
    if files.certificate and files.ca and in_date and (objection := vouched(files)):
        yield doubtful(
            "tls",
            f"tls.ca does not vouch for this node's own certificate ({objection})",
            "right if peers trust another issuer; else append its issuer's to tls.certificate",
        )


def _in_date(one: Validity, now: float, warn_days: float) -> Finding:
    day = clock_text(one.expires_at)[:10]
    if now < one.begins_at:
        text = f"{one.whose} is not good before {clock_text(one.begins_at)[:19]} UTC"
        return failed("tls", text, "set the clock (NTP), or wait")
    if not is_due(one.expires_at, now, warn_days, None):
        digest = f": sha256:{one.sha256}" if one.sha256 else ""
        return well("tls", f"{one.whose} is good until {day}{digest}")
    text = f"{one.whose} {words(one.expires_at, now)}: on {day}"
    advice = "renew it; the node need not be restarted"
    return failed("tls", text, advice) if one.expires_at <= now else doubtful("tls", text, advice)


def ending(config: Config, shown: CertificateLoaded | None) -> list[str]:
    """What expires soon, or has expired, and what is wrong with the files, in a sentence each.

    shown: what the node that runs shows, whatever its files are by now; None if it does not run.
    """
    now = SystemClock().now()
    found, mistakes = _found(config, shown, now)
    then = "the node goes on with those it knew, and would not start again"
    return [
        *(f"the files of TLS cannot be used, {then}: {mistake}" for mistake in mistakes),
        *(
            f"{one.whose} {words(one.expires_at, now)}: on {clock_text(one.expires_at)[:10]}"
            for one in found
            if is_due(one.expires_at, now, config.tls.warn_days, None)
        ),
    ]


def _found(
    config: Config, shown: CertificateLoaded | None, now: float
) -> tuple[list[Validity], Sequence[str]]:
    """The certificates that are used, and what is wrong with the files of them."""
    if not needs_tls(config):
        return [], ()
    files = config.tls.files()
    try:
        found = validities(files)
        if shown is not None and _is_passed_over(found[0], shown, now):
            raise out_of_date(files, found[0], now)
    except ConfigurationError as error:
        mistakes = error.mistakes
    else:
        return found, ()
    known = (
        []
        if shown is None or not files.certificate
        else [Validity(whose=OWN, expires_at=shown.expires_at)]
    )
    with contextlib.suppress(ConfigurationError):
        known += validities(replace(files, certificate="", key=""))
    return known, mistakes


def _is_passed_over(own: Validity, shown: CertificateLoaded, now: float) -> bool:
    """Whether the node goes on with one that is good, and not with the one of the file."""
    return own.sha256 not in ("", shown.sha256) and not own.holds(now) and now < shown.expires_at


def secrets(config: Config, *, runs: bool) -> Iterator[Finding]:
    """That each can be read, by the node alone. runs: the node, which has an environment of its
    own."""
    good = []
    for peer in config.peers:
        for key in ("passcode", "dicomweb_token"):
            reference = getattr(peer, key)
            if not reference:
                continue
            try:
                reveal(reference)
            except ConfigurationError as error:
                yield _unread(f"{key} of peer {peer.name}: {error}", reference, runs=runs)
            else:
                good.append(f"{key} of {peer.name}")
    if good:
        yield well("secrets", f"can be read, by this user alone: {', '.join(good)}")


def _unread(text: str, reference: str, *, runs: bool) -> Finding:
    if not reference.startswith(ENVIRONMENT):
        return failed("secrets", text, "write it there, for the node's user alone")
    if runs:
        advice = "the node that runs may have it; file:PATH is the same for everybody"
        return doubtful("secrets", f"{text} in this shell", advice)
    return failed("secrets", text, "set it where the node is started, or use file:PATH")
