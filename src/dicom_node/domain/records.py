"""What the catalog remembers, as frozen values; times are UTC seconds since the epoch (float)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dicom_node.domain.security import TlsFiles
from dicom_node.domain.states import DeliveryState, SeriesState, StepState

Attributes = Mapping[str, object]
"""DICOM keyword -> str, int, float or tuple of these (a value with VM > 1): header attributes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another Application Entity, as configured or as named on the command line.

    release_s, quiet_s, give_up_s: its own patience for what it sends; None is that of the node.
    idle_s: how long an association of its may say nothing, likewise.
    fallback: the kind of result that it gets where it takes no Segmentation; "" for none.
    dicomweb: base URL of its DICOMweb services (PS3.18); dicomweb_token: where its token stands.
    certificates: one of these it shows; each "sha256:" and 64 digits, or "subject:" and a name.
    user, passcode: what it calls itself, and where the proof of that stands; "" if not demanded.
    max_associations, objects_per_minute, in_flight_mib: its quotas; None is that of the node.
    tls: whether it is called by TLS; tls_name: the host name in its certificate, "" is its host.
    tls_files: what this node shows it then, and whom it trusts.
    """

    name: str
    ae_title: str
    host: str
    port: int
    networks: tuple[str, ...] = ()
    may: frozenset[str] = frozenset({"store"})
    offers: frozenset[str] = frozenset({"store"})
    release_s: float | None = None
    quiet_s: float | None = None
    give_up_s: float | None = None
    idle_s: float | None = None
    fallback: str = ""
    dicomweb: str = ""
    dicomweb_token: str = ""
    certificates: tuple[str, ...] = ()
    user: str = ""
    passcode: str = ""
    max_associations: int | None = None
    objects_per_minute: int | None = None
    in_flight_mib: int | None = None
    tls: bool = False
    tls_name: str = ""
    tls_files: TlsFiles | None = None

    @property
    def can_be_asked(self) -> bool:
        """Whether it can say what it has: by C-FIND, or by QIDO-RS."""
        return "query" in self.offers or bool(self.dicomweb)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A SOP Instance in the catalog. association: that brought it, the last if its file had been
    removed meanwhile."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_uid: str
    series_uid: str
    path: str
    size: int
    sha256: str
    association: int
    received_at: float
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """One association that stored something: who called whom, when, and how it ended.

    ended: "released", "aborted", or None while it lasts.
    """

    number: int
    calling_ae: str
    called_ae: str
    address: str
    opened_at: float
    ended_at: float | None = None
    ended: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A Series as far as it has arrived. revision counts how often it was judged anew.

    ask_at: since when its source is to be asked for its count; None if it is not. source_count:
    what it said, None if it could not say; source_at: when it was asked; source: who, and how it
    was learned or why not. released: an operator has declared it whole. held_from: its state
    before it was HELD, else "". conflicts: objects kept apart, see Conflict. purged_at: since when
    its files are gone. promised_at: when a peer was last promised that it is kept.
    """

    series_uid: str
    study_uid: str
    state: SeriesState
    revision: int
    instances: int
    first_at: float
    last_at: float
    due_at: float | None
    reason: str = ""
    patient_id: str = ""
    accession_number: str = ""
    modality: str = ""
    description: str = ""
    ask_at: float | None = None
    source_at: float | None = None
    source_count: int | None = None
    source: str = ""
    released: bool = False
    held_from: str = ""
    conflicts: int = 0
    purged_at: float | None = None
    promised_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arriving:
    """A Series that is being received. is_open: by an association that has not ended."""

    series_uid: str
    instances: int
    first_at: float
    last_at: float
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """An object with the SOP Instance UID of another and other bytes: kept, and never processed.

    series_uid: that of the instance that came first. The last four are what its own header says.
    """

    sop_instance_uid: str
    series_uid: str
    path: str
    size: int
    sha256: str
    association: int
    received_at: float
    own_series_uid: str
    own_study_uid: str
    patient_id: str
    accession_number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A Procedure Step: one tool, to be run on one revision of one Series (PS3.4 CC.1.1).

    instance_uids: the input, sorted; a localizer inside the Series is not in it.
    destinations: names of peers. replaces: SOP Instance UIDs of results that its own supersede.
    """

    step_id: int
    series_uid: str
    revision: int
    route: str
    tool_id: str
    results: tuple[str, ...]
    destinations: tuple[str, ...]
    instance_uids: tuple[str, ...]
    state: StepState
    attempt: int
    priority: int
    due_at: float
    claimed_at: float | None = None
    lease_until: float | None = None
    transaction_uid: str | None = None
    reason: str = ""
    created_at: float = 0.0
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A SOP Instance that a step made."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_uid: str
    study_uid: str
    step_id: int
    source_series_uid: str
    tool_id: str
    tool_version: str
    kind: str
    path: str
    size: int
    sha256: str
    created_at: float
    summary: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One result, owed to one peer.

    ask, tries, returns: how the peer is asked for proof next ("commit", "query", or "" if it was
    not asked yet), how often it could not be asked, how often it lacked what it was sent.
    transaction_uid: of the last commitment that it was asked for since it was sent. replaced_by:
    the step whose result took the place of this one.
    """

    delivery_id: int
    result_uid: str
    destination: str
    state: DeliveryState
    attempt: int
    created_at: float
    due_at: float
    status: int | None = None
    reason: str = ""
    sent_at: float | None = None
    ask: str = ""
    tries: int = 0
    returns: int = 0
    transaction_uid: str = ""
    replaced_by: int | None = None
