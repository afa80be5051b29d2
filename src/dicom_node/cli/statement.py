"""The Conformance Statement as a document: sections as in Annex A of PS3.2 of 2008."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dicom_node.cli.page import Page
from dicom_node.cli.sheet_rows import day
from dicom_node.cli.statement_entity import entity
from dicom_node.cli.statement_objects import objects
from dicom_node.config.listing import settings_of
from dicom_node.dimse.conformance import ECHO, OTHERS, category_of, name_of
from dicom_node.domain.records import Peer
from dicom_node.iod.text import CHARACTER_SETS
from dicom_node.node.audited import TOLD
from dicom_node.node.statement import Statement

NONE = "None."

_FLOW = """
   local real world            DICOM                    remote real world

                       |  C-ECHO             |
                       | <------------------ |  Somebody checks the node
 Series are kept,      |  C-STORE            |
 and judged complete   | <------------------ |  A modality or PACS stores images
        |              |  C-FIND             |
        | how many? ---| ------------------> |  It says how many there are
        v              |                     |
 Models are run,       |  C-STORE            |
 results are made -----| ------------------> |  A PACS stores the results
        |              |  N-ACTION           |
        | kept? -------| ------------------> |  It commits to keep them
        | <------------| <------------------ |  and reports (N-EVENT-REPORT)
        |              |  N-ACTION           |
 Promises are judged,  | <------------------ |  A sender asks what is kept
 and reported ---------| ------------------> |  and is told (N-EVENT-REPORT)
                       |                     |
 An operator searches, |  C-FIND, -MOVE, -GET|
 and fetches ----------| ------------------> |  A PACS answers, and sends
"""


def document(facts: Statement, written_at: float) -> str:
    """The whole statement, in Markdown. written_at: UTC seconds."""
    page = Page()
    page.title("DICOM Conformance Statement: dicom-node")
    _cover(page, facts, written_at)
    _overview(page, facts)
    page.head("2", "Table of contents")
    page.contents()
    _introduction(page, facts)
    _model(page)
    entity(page, facts)
    _interfaces(page, facts)
    _configuration(page, facts)
    page.head("5", "Media interchange")
    page.say(NONE, "The node writes no DICOM media and reads none, and makes no CDA of DICOM.")
    _character_sets(page)
    _security(page, facts)
    objects(page, facts)
    return page.text()


def _cover(page: Page, facts: Statement, written_at: float) -> None:
    page.table(
        ("Item", "Value"),
        [
            ("Product", "dicom-node"),
            ("Version", facts.version),
            ("Date", day(written_at)),
            ("AE title", facts.config.node.ae_title),
            ("Configuration", Path(facts.config.source).name),
        ],
    )
    page.say(
        "Written by `dicom-node conformance` from this configuration and from the tables that the",
        "program itself works by; another configuration has another statement. Sections are",
        "numbered as in the template of PS3.2 of 2008, its Annex A, without the A. That has been",
        "retired since: the template of today, PS3.2 Annex N, is not followed.",
    )


def _overview(page: Page, facts: Statement) -> None:
    page.head("1", "Conformance Statement overview")
    page.say(
        "dicom-node stands between a PACS and its AI models. It receives Series by C-STORE, runs",
        "models on them, and sends the results, as DICOM objects, to where they belong.",
    )
    page.head("1.1", "Network services")
    kinds = Counter(category_of(one.abstract_syntax) for one in facts.stored)
    rows = [("yes", "yes", "Verification", "")]
    rows += [
        ("yes", "yes", f"Transfer: {kind}", f"{count} SOP Classes")
        for kind, count in sorted(kinds.items(), key=lambda one: (one[0] == OTHERS, one[0]))
    ]
    rows += [("yes", "yes", "Transfer of results", one.name) for one in facts.created]
    rows.append(("yes", "yes", "Workflow management", "Storage Commitment Push Model"))
    rows += [
        ("yes", "no", "Query/Retrieve", name_of(c.abstract_syntax))
        for c in facts.proposed
        if c.service in ("find", "move", "get")
    ]
    page.table(("SCU", "SCP", "Service", "SOP Classes"), rows)
    page.say(
        f"The {len(facts.stored)} Storage SOP Classes are listed in 4.2.1.4.2. As SCU of them all",
        "the node sends what an operator gives it (`send`); of its own accord it sends results.",
    )
    page.head("1.2", "Media services")
    page.say(NONE)


def _introduction(page: Page, facts: Statement) -> None:
    page.head("3", "Introduction")
    page.say(
        "For administrators of PACS and network, and for integrators who know DICOM. That two",
        "statements fit does not prove that two systems work together: that is for a test at the",
        "place. Where this document and the DICOM Standard differ, the Standard holds.",
    )
    if facts.config.results.research_use:
        page.say("The node is for research. Its results say that they are not for diagnosis.")
    page.say(
        "AE: Application Entity. SCU, SCP: user and provider of a service. IOD: definition of a",
        "kind of object. PDU: unit of data of the upper layer protocol. Keys such as",
        "`receive.idle_s` are those of the configuration file (4.4.2).",
    )


def _model(page: Page) -> None:
    page.head("4", "Networking")
    page.head("4.1", "Implementation model")
    page.head("4.1.1", "Application data flow")
    page.drawing(_FLOW.strip("\n"))
    page.head("4.1.2", "Functional definition")
    page.say(
        "One Application Entity is all there is. It listens as long as the node runs; it opens",
        "associations when results are to be delivered, when a peer is to be asked whether it has",
        "them or how many images a Series has, when it owes a report on a commitment, and when an",
        "operator types a command.",
    )
    page.head("4.1.3", "Sequencing of real-world activities")
    page.items(
        [
            "A Series is processed when it counts as complete, never before; images that come "
            "later make another result, which replaces the first.",
            "A result is delivered as soon as it is made, to each destination on its own.",
            "A destination is asked to commit, or queried, after it has stored; only then a "
            "delivery counts as proven.",
        ]
    )


def _interfaces(page: Page, facts: Statement) -> None:
    page.head("4.3", "Network interfaces")
    page.say("TCP/IP (PS3.8 Annex B) over IPv4 or IPv6, as the address is, on whatever medium.")
    heard = " (this machine alone)" if facts.local else ""
    page.table(
        ("Item", "Value"),
        [
            ("listens on", facts.config.node.host + heard),
            ("port", facts.entrance.removeprefix("port ")),
        ],
    )


def _configuration(page: Page, facts: Statement) -> None:
    page.head("4.4", "Configuration")
    page.head("4.4.1", "AE titles and addresses")
    page.say("Local:")
    page.table(
        ("AE title", "Port", "Address"),
        [(facts.config.node.ae_title, facts.entrance.removeprefix("port "), facts.host)],
    )
    page.say("Remote, one entry `[[peer]]` each:")
    peers = facts.config.peers
    if peers:
        page.table(
            ("Peer", "AE title", "Port", "Address"),
            [(p.name, p.ae_title, str(p.port), p.host) for p in peers],
        )
    else:
        page.say(NONE, "Nobody is known, and nothing can be sent.")
    for peer in peers:
        _peer(page, peer)
    page.head("4.4.2", "Parameters")
    page.say("All are set in the configuration file. Not shown: paths, and `engine`.")
    page.items(
        f"`{s.section}.{s.key}`: {s.value}. {s.meaning}"
        for s in facts.settings
        if s.section != "engine"  # how models are run is nobody else's business
    )


def _peer(page: Page, peer: Peer) -> None:
    page.say(f"Of `{peer.name}`:")
    known = ("name", "ae_title", "host", "port")
    page.table(
        ("Key", "Value"),
        [(f"`{s.key}`", s.value) for s in settings_of(peer) if s.key not in known],
    )


def _character_sets(page: Page) -> None:
    page.head("6", "Support of character sets")
    page.say(
        "Objects are kept in the character set that they come in. For the match language, for",
        "lists and logs, text is read in these (Specific Character Set, with code extensions):",
    )
    page.say(", ".join(CHARACTER_SETS) + ".")
    page.say(
        "Results carry the character set of their source, and its text byte for byte; what the",
        "node adds is ASCII. Query keys beyond ASCII are sent in ISO_IR 192.",
    )


def _security(page: Page, facts: Statement) -> None:
    receive = facts.config.receive
    page.head("7", "Security")
    page.head("7.1", "Security profiles")
    page.table(("Profile of PS3.15", "Support"), facts.security)
    if facts.config.audit.is_on:
        _audit(page)
    page.head("7.2", "Association level security")
    calling = {
        "accept": "Anybody may verify and store (`receive.unknown_peers`).",
        "echo": "Calling AE title and address must be those of a peer; anybody may verify, if "
        "nothing else is proposed (`receive.unknown_peers`).",
        "refuse": "Calling AE title and address must be those of a peer.",
    }
    page.items(
        [
            "The called AE title must be that of the node.",
            calling[receive.unknown_peers],
            *_proofs(facts),
            "What a peer may ask for is its `may`: "
            + ("; ".join(f"{p.name}: {_may(p)}" for p in facts.config.peers) or "nobody is known")
            + ".",
            f"At most {facts.limits.associations_max} associations, "
            f"{receive.peer_associations()} of them with one peer.",
        ]
    )
    page.head("7.3", "Application level security")
    page.say(NONE)


def _audit(page: Page) -> None:
    """What PS3.15 §A.5 and §A.6 want to be told."""
    page.say("Audit messages, none of which can be configured:")
    page.table(
        ("Message", "Code", "When"),
        [(code.meaning, code.value, when) for code, when in TOLD.items()],
    )
    page.items(
        [
            "UserID of an Application Entity is its AE title, as in the node's log; of a person "
            "who types a command, the login name and the host. AlternativeUserID holds the AE "
            "title.",
            "Facility 10, severity 5, or 4 where the outcome is no success; MSGID DICOM+RFC3881; "
            "STRUCTURED-DATA: origin (software, swVersion) and meta (sequenceId, which is the "
            "same when a message is repeated).",
            "Messages are kept until they are sent, within `audit.spool_mib`, and may come twice.",
        ]
    )


def _proofs(facts: Statement) -> Iterator[str]:
    """By what peers must prove themselves, beside title and address."""
    proven = [p.name for p in facts.config.peers if p.certificates]
    users = [p for p in facts.config.peers if p.user]
    if proven:
        yield f"By TLS alone, with a certificate that is configured: {', '.join(proven)}."
    if users:
        how = ", ".join(f"{p.name} (type {2 if p.passcode else 1})" for p in users)
        yield (
            f"User identity (PS3.7 §D.3.3.7) is demanded of {how}. A passcode counts over TLS "
            "alone. A positive response is given where it is asked for."
        )
    others = " of others" if users else ""
    yield f"User identity{others} is not looked at, and not answered."
    if any(p.tls for p in facts.config.peers):
        yield (
            "A peer that is called by TLS must show one of its `certificates`; without these one "
            "for its host name, or `tls_name`, by an issuer of `tls.ca`. The node shows its own."
        )


def _may(peer: Peer) -> str:
    return ", ".join((ECHO, *sorted(peer.may)))
