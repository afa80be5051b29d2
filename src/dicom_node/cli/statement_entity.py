"""Section 4.2 of the Conformance Statement: the AE, whom it asks and whom it hears."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import itemgetter

from dicom_node.cli.page import Page
from dicom_node.decide.retry import Attempt, Fate, fate_of, kind_refused
from dicom_node.dimse import conformance
from dicom_node.dimse.conformance import Context, name_of
from dicom_node.dimse.contexts import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from dicom_node.dimse.pdu import APPLICATION_CONTEXT
from dicom_node.dimse.requestor import MAX_PDU
from dicom_node.dimse.status import meaning, rejection_words
from dicom_node.domain.records import Peer
from dicom_node.node.confirm import BATCH_MAX as COMMITTED_MAX
from dicom_node.node.deliver import BATCH_MAX as SENT_MAX
from dicom_node.node.statement import Statement

_MIB = 1024 * 1024
_SERVICES: Mapping[str, str] = {
    conformance.ECHO: "Verify a peer (`echo`, `doctor`)",
    conformance.STORE: "Deliver results (C-STORE)",
    "find": "Ask how much of a Series there is (also `find`)",
    "move": "Have a peer send (`move`)",
    "get": "Fetch (`get`)",
    conformance.COMMIT: "Ask a peer to keep results (N-ACTION)",
    conformance.REPORT: "Report what is kept (N-EVENT-REPORT)",
}
_FATES: Mapping[Fate, str] = {
    Fate.DONE: "delivered",
    Fate.AGAIN: "tried again, at growing intervals",
    Fate.PERSON: "parked for a person",
}
_KIND = "parked; for a Segmentation: Secondary Captures instead"


def entity(page: Page, facts: Statement) -> None:
    """All of it."""
    page.head("4.2", "AE specifications")
    page.head("4.2.1", f"{facts.config.node.ae_title}: the node")
    page.head("4.2.1.1", "SOP Classes")
    page.say(
        "As SCU those of 4.2.1.3.2, as SCP those of 4.2.1.4.2. Conformance to each is standard:",
        "there is no extended, specialised or private SOP Class but those of 8.5.",
    )
    _policies(page, facts)
    _initiation(page, facts)
    _acceptance(page, facts)


def _policies(page: Page, facts: Statement) -> None:
    receive, limits = facts.config.receive, facts.limits
    page.head("4.2.1.2", "Association policies")
    page.table(
        ("Item", "Value"),
        [
            ("application context", f"`{APPLICATION_CONTEXT}`"),
            ("largest PDU received, as acceptor", f"{limits.pdu_bytes} bytes"),
            ("largest PDU received, as requestor", f"{MAX_PDU} bytes"),
            ("associations as acceptor", f"at most {limits.associations_max}"),
            ("of these with one peer", f"at most {receive.peer_associations()}"),
            ("associations as requestor", "one for each peer and activity"),
            ("asynchronous operations", "none: one outstanding operation"),
            ("Implementation Class UID", f"`{facts.implementation[0]}`"),
            ("Implementation Version Name", f"`{facts.implementation[1]}`"),
        ],
    )
    page.say("Time limits:")
    deliver, patience = facts.config.deliver, limits.patience
    page.table(
        ("Limit", "Wait for"),
        [
            *(
                [(f"{limits.handshake_s:g} s", "the handshake of TLS, from the connection on")]
                if facts.tls_port
                else []
            ),
            (f"{limits.associate_s:g} s", "A-ASSOCIATE-RQ, from the connection on"),
            (f"{patience.pdu_s:g} s", "the rest of a PDU, from its header on"),
            (f"{patience.idle_s:g} s", "anything, on an association that was accepted"),
            *(
                (f"{peer.idle_s:g} s", f"the same, on one of {peer.name}")
                for peer in facts.config.peers
                if peer.idle_s is not None
            ),
            (f"{deliver.connect_s:g} s", "a connection that the node opens to deliver"),
            (f"{deliver.answer_s:g} s", "a response to what it sent there"),
        ],
    )
    page.say(
        f"Inside a PDU {patience.rate_bytes_s:g} bytes/s are wanted, on the average over",
        f"{patience.rate_s:g} s.",
        f"Of connections that have not asked for an association, {limits.crowd.per_address} of one",
        f"address and {limits.crowd.total} in all are borne.",
    )


def _initiation(page: Page, facts: Statement) -> None:
    page.head("4.2.1.3", "Association initiation policy")
    page.head("4.2.1.3.1", "Activities")
    page.table(("Activity", "With"), _activities(facts))
    page.say("In brackets: the commands of `dicom-node` by which an operator does it.")
    page.head("4.2.1.3.2", "Proposed presentation contexts")
    page.say(
        "Where two contexts are shown for a SOP Class, both are proposed: an object goes as it is",
        "where that is accepted, else it is converted.",
        "ELE is Explicit VR Little Endian, ILE is Implicit VR Little Endian.",
    )
    page.table(("Role", "Syntaxes", "Abstract syntax", "Name"), _contexts(facts.proposed))
    page.say(
        "Extended negotiation: none but the role selection that is shown. "
        "`dicom-node send` proposes the class and the transfer syntax of each file likewise.",
    )
    classes, syntaxes = facts.brought, facts.brought[0].transfer_syntaxes
    page.say(
        f"With C-GET the node proposes, in the SCP role, {len(classes)} Storage SOP Classes in",
        f"{len(syntaxes)} transfer syntaxes, or those that `dicom-node get` is told.",
    )
    page.head("4.2.1.3.3", "SOP-specific conformance: delivering results")
    days = facts.config.deliver.give_up_days
    page.say(
        f"At most {SENT_MAX} objects go in one association. What follows on the peer's answer;",
        f"attempts end after {days:g} days:",
    )
    page.table(
        ("Status", "What follows", "Meaning"), fates(instead=any(p.fallback for p in facts.owed()))
    )
    page.say(
        "A rejection for now, no connection, no answer, and an abort are tried again; a rejection",
        "for good, and a SOP Class that is not accepted, are not. Each waits for a person then.",
    )
    page.head("4.2.1.3.4", "SOP-specific conformance: Storage Commitment as SCU")
    deliver = facts.config.deliver
    page.say(
        f'For peers that offer "commit" ({_names(facts.offering("commit"))}). One N-ACTION names',
        f"at most {COMMITTED_MAX} instances. The report is awaited on the same association for a",
        f"moment, and for {deliver.report_s:g} s on one that the peer opens to the node, in either",
        "role. Then the peer is asked by query if it offers that, else it is asked to commit once",
        f"more. What it reports as missing is sent again, at most {deliver.resend_max} times.",
    )
    page.head("4.2.1.3.5", "SOP-specific conformance: Query/Retrieve as SCU")
    page.say(
        "Of its own accord the node queries in the Study Root model: at SERIES level for Number",
        "of Series Related Instances (0020,1209), at IMAGE level for SOP Instance UID (0008,0018),",
        "both with Study and Series Instance UID as single values, the latter also with a list of",
        f'UIDs. It does so with peers that offer "query" ({_names(facts.offering("query"))}).',
        "Relational queries and fuzzy matching are not negotiated. Operators may query at all",
        "levels, with any keys. C-MOVE names the node as destination unless the operator names",
        "another.",
    )
    asked = [p for p in facts.config.peers if p.dicomweb]
    if asked:
        page.say(f"By QIDO-RS (PS3.18) instead of C-FIND: {_names(asked)}.")


def _activities(facts: Statement) -> Iterable[tuple[str, str]]:
    with_whom: Mapping[str, str] = {
        conformance.STORE: _names(facts.owed()),
        conformance.COMMIT: _names(facts.offering("commit")),
        conformance.REPORT: _names([p for p in facts.config.peers if "commit" in p.may]),
        "find": _names(facts.offering("query")),
        "move": _names(facts.offering("retrieve")),
        "get": _names(facts.offering("retrieve")),
        conformance.ECHO: "any, at an operator's word",
    }
    seen = dict.fromkeys(context.service for context in facts.proposed)
    return [(_SERVICES[service], with_whom[service]) for service in seen]


def _contexts(contexts: Iterable[Context]) -> Iterable[tuple[str, str, str, str]]:
    for context in contexts:
        syntaxes = ", ".join(_short(uid) for uid in context.transfer_syntaxes)
        uid = f"`{context.abstract_syntax}`"
        yield context.role, syntaxes, uid, name_of(context.abstract_syntax)


def _short(uid: str) -> str:
    """The two that every context of a table has."""
    return {EXPLICIT_LITTLE: "ELE", IMPLICIT_LITTLE: "ILE"}.get(uid, uid)


def fates(*, instead: bool) -> list[tuple[str, str, str]]:
    """What follows on each answer to a C-STORE of the node's, as the code decides it.

    instead: for peers that get Secondary Captures where they take no Segmentation.
    """
    every = [(code, _fate(code, instead=instead)) for code in range(0x10000)]
    rows = []
    for fate, run in groupby(every, key=itemgetter(1)):
        codes = [code for code, _ in run]
        if fate != _FATES[Fate.PERSON]:
            last = f"-`{codes[-1]:04X}`" if len(codes) > 1 else ""
            rows.append((f"`{codes[0]:04X}`{last}", fate, _called(codes[0])))
    return [*rows, ("any other", _FATES[Fate.PERSON], "")]


def _called(code: int) -> str:
    return "warning" if code & 0xF000 == 0xB000 else meaning(code)


def _fate(code: int, *, instead: bool) -> str:
    fate = fate_of(Attempt(status=code))
    return _KIND if instead and fate is Fate.PERSON and kind_refused(code) else _FATES[fate]


def _acceptance(page: Page, facts: Statement) -> None:
    page.head("4.2.1.4", "Association acceptance policy")
    page.head("4.2.1.4.1", "Who is accepted")
    page.say("Associations are rejected (A-ASSOCIATE-RJ; result, source, reason):")
    page.items(
        f"`{r.result}, {r.source}, {r.reason}` {rejection_words(r)}. {when}"
        for r, when in conformance.REJECTIONS.items()
    )
    page.say("Associations are aborted (A-ABORT; source, reason):")
    page.items(f"`{a.source}, {a.reason}` {when}" for a, when in conformance.ABORTS.items())
    page.head("4.2.1.4.2", "Accepted presentation contexts")
    _accepted(page, facts)
    page.head("4.2.1.4.3", "SOP-specific conformance: Verification")
    _answers(page, conformance.ECHO_ANSWERS)
    _storage(page, facts)
    _commitment(page, facts)
    page.head("4.2.1.4.6", "Other operations")
    _answers(page, conformance.OTHER_ANSWERS)


def _accepted(page: Page, facts: Statement) -> None:
    besides = [c for c in facts.accepted if c not in facts.stored]
    page.table(("Role", "Syntaxes", "Abstract syntax", "Name"), _contexts(besides))
    page.say(
        "ELE and ILE as in 4.2.1.3.2. All Storage SOP Classes are accepted",
        "as SCP, in any of these transfer syntaxes, and of those in one context the first of this",
        "list is chosen:",
    )
    page.table(
        ("Transfer syntax", "Name"), [(f"`{uid}`", name_of(uid)) for uid in facts.storage_syntaxes]
    )
    page.say(f"The {len(facts.stored)} Storage SOP Classes:")
    page.table(
        ("Abstract syntax", "Name"),
        [(f"`{c.abstract_syntax}`", _named(c)) for c in facts.stored],
    )
    page.say(
        "Role selection is answered: for Storage the requestor is SCU, for Storage Commitment it",
        "may be either. User identity is looked at as in 7.2. There is no other extended",
        "negotiation.",
    )


def _named(context: Context) -> str:
    name = name_of(context.abstract_syntax)
    return name if context.standard else f"{name} (configured, not of DICOM)"


def _storage(page: Page, facts: Statement) -> None:
    page.head("4.2.1.4.4", "SOP-specific conformance: Storage")
    page.say(
        "Level 2 (full): the data set is kept bit by bit as it came, with a file meta header in",
        "front; no attribute is removed, changed or coerced. Digital signatures are kept and not",
        "looked at. Success is answered when the object is durable on disk. Each refusal has an",
        "Error Comment (0000,0902), and Offending Element (0000,0901) where one is at fault.",
    )
    _answers(page, conformance.STORE_ANSWERS)
    promised = facts.config.retain
    page.say(
        f"The largest data set is {facts.limits.object_bytes / 1024**3:g} GiB. Objects are removed",
        "only as `retain` says (4.4.2); there is no other access to them than their results and",
        f"reports. Settled Series are kept {_days(promised.keep_days)}, those that were promised",
        f"{_days(promised.promised_days)}.",
    )


def _days(days: float) -> str:
    return f"{days:g} days" if days else "for ever"


def _commitment(page: Page, facts: Statement) -> None:
    may = [p for p in facts.config.peers if "commit" in p.may]
    limits = facts.limits
    page.head("4.2.1.4.5", "SOP-specific conformance: Storage Commitment")
    page.say(
        f'As SCP, for peers that may "commit" ({_names(may)}): the request is recorded, answered,',
        "and judged against what is on disk",
        f"(`retain.verify_promises` is {facts.config.retain.verify_promises}). The report goes out",
        "on a new association to the peer's configured address, in the SCP role; it is sent again",
        f"until it is taken. One message names at most {limits.references_max} instances in at",
        f"most {limits.commitment_bytes // _MIB} MiB. Attributes of File-Sets are not used.",
    )
    page.say("Answers to N-ACTION, and to N-EVENT-REPORT where the node asked:")
    _answers(page, conformance.COMMITMENT_ANSWERS)
    page.say("Failure Reasons (0008,1197) in reports of the node:")
    _answers(page, conformance.FAILURE_REASONS)


def _answers(page: Page, answers: Mapping[int, str]) -> None:
    page.items(f"`{code:04X}` {meaning(code)}. {when}" for code, when in answers.items())


def _names(peers: Iterable[Peer]) -> str:
    return ", ".join(peer.name for peer in peers) or "none is configured"
