"""What ae_config.toml may say: every key with its kind, its limits, its default and its meaning.

docs/configuration.md is generated from these classes. A key that is not here is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from dicom_node.config.auditing import Audit
from dicom_node.config.kinds import (
    AeTitle,
    Asked,
    CertificateName,
    Device,
    Folder,
    Gibibytes,
    Host,
    Name,
    Network,
    Offered,
    Port,
    ResultKind,
    Seconds,
    Secret,
    Section,
    Uid,
    Url,
    When,
)
from dicom_node.config.outgoing import Deliver, Retain
from dicom_node.config.transport import Tls
from dicom_node.decide import completeness


class Node(Section):
    """This Application Entity, and where its files are."""

    ae_title: AeTitle = Field(
        default="DICOMNODE", description="AE title. Associations that call any other are rejected."
    )
    host: Host = Field(
        default="127.0.0.1",
        description="Address to listen on. The default hears this machine alone; `0.0.0.0` is all.",
    )
    port: int = Field(
        default=11112, ge=0, le=65535, description="TCP port to listen on. 0: any that is free."
    )
    data_dir: Folder = Field(
        default=Path("var"), description="Folder of the spool and the catalog. Made where missing."
    )
    models_dir: Folder | None = Field(
        default=None,
        description="Folder of the models. Without it: the models that came with the node.",
    )


class Receive(Section):
    """The Storage SCP: whom it hears, and its limits."""

    unknown_peers: Literal["echo", "refuse", "accept"] = Field(
        default="echo",
        description="A calling AE that is no `[[peer]]`: allowed to C-ECHO alone, rejected always, "
        "or allowed to store.",
    )
    max_associations: int = Field(
        default=64,
        ge=1,
        le=1000,
        description="Associations at a time. Further ones are rejected for now.",
    )
    max_associations_per_peer: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Associations of one peer at a time, so that it does not lock out the others. "
        "Without it: half of `max_associations`.",
    )
    max_pdu: int = Field(
        default=131072,
        ge=4096,
        le=1048576,
        description="Largest P-DATA-TF PDU to receive, in bytes.",
    )
    processes: int = Field(
        default=1,
        ge=1,
        le=16,
        description="That receive on the one port. With 1 the node receives in its own process; "
        "more are processes beside it, and pay where many associations come at once and there are "
        "cores for them.",
    )
    idle_s: Seconds = Field(
        default=60.0, description="An association that says nothing for this long is aborted."
    )
    min_free_gib: float = Field(
        default=2.0,
        ge=0,
        le=1024 * 1024,
        allow_inf_nan=False,
        description="With less than this free on the disk, senders are told to come back.",
    )
    stop_free_gib: float | None = Field(
        default=None,
        ge=0,
        le=1024 * 1024,
        allow_inf_nan=False,
        description="With less than this free, associations that propose storage are rejected for "
        "now. Without it: half of `min_free_gib`, and 1 at most.",
    )
    max_backlog: int = Field(
        default=1000,
        ge=0,
        le=10_000_000,
        description="With so many steps waiting for a model, associations that propose storage are "
        "rejected for now. 0: any number may wait.",
    )
    max_object_gib: Gibibytes = Field(default=2.0, description="Largest data set to receive.")
    extra_sop_classes: tuple[Uid, ...] = Field(
        default=(),
        strict=False,
        description="UIDs of Storage SOP Classes to accept, beside those of the standard.",
    )
    extra_transfer_syntaxes: tuple[Uid, ...] = Field(
        default=(),
        strict=False,
        description="UIDs of transfer syntaxes to accept, beside the known ones.",
    )
    front: Literal["own", "stock"] = Field(
        default="own",
        description="Which server receives. `stock` is pynetdicom's own, without the limits of the "
        "node's: for the day on which a peer does not get on with that. It has no TLS and no "
        "`processes`: where these are used, a second node serves that peer.",
    )

    def peer_associations(self) -> int:
        """How many associations one peer may have at a time."""
        if self.max_associations_per_peer is not None:
            return self.max_associations_per_peer
        return (self.max_associations + 1) // 2


class Complete(Section):
    """When a Series counts as complete. Each time runs anew with each instance."""

    release_s: Seconds = Field(
        default=2.0,
        description="Wait where every association was released and no plane is missing, or where "
        "one is open and as many images are here as the header counts.",
    )
    quiet_s: Seconds = Field(default=20.0, description="Wait where the end is not that clear.")
    give_up_s: Seconds = Field(
        default=600.0,
        description="Wait where a plane is missing, or a part was refused. Then the Series is "
        "INCOMPLETE.",
    )

    ask_source: bool = Field(
        default=True,
        description='A sender that offers "query" is asked how many instances it has: as many as '
        "have arrived is proof, and nothing is waited for.",
    )

    def policy(self) -> completeness.Policy:
        """The values that decide.completeness judges by."""
        return completeness.Policy(
            release_s=self.release_s, quiet_s=self.quiet_s, give_up_s=self.give_up_s
        )


class Engine(Section):
    """Where and how the tools run."""

    device: Device = Field(
        default="auto",
        description="`cpu`, `cuda`, `cuda:0`, ...; `cuda` is every GPU, and `auto` takes every GPU "
        "where there is one, else the CPU.",
    )
    runtime: Literal["auto", "torch", "openvino"] = Field(
        default="auto",
        description="What runs networks on the CPU. `auto` takes OpenVINO, which is faster, where "
        "it is installed (the extra `openvino`), else torch. Results may differ at borders.",
    )
    performers: int = Field(
        default=1,
        ge=1,
        le=8,
        description="Processes that run models, on each device. Several run steps side by side; "
        "each loads every model.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="CPU threads of a tool. 0: the cores that the node may use, shared among its "
        "performers.",
    )
    ahead_mib: int = Field(
        default=1024,
        ge=0,
        le=65536,
        description="Memory of each performer for Series that a model works on while they still "
        "arrive. 0: models begin when a Series is complete.",
    )
    step_limit_s: Seconds = Field(
        default=1800.0, description="A tool that takes longer on one Series counts as failed."
    )
    max_attempts: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Failures after which a step is quarantined, for a person.",
    )


class Results(Section):
    """What is written into the results."""

    manufacturer: str = Field(
        default="dicom-node", min_length=1, max_length=64, description="Manufacturer (0008,0070)."
    )
    series_number_offset: int = Field(
        default=3000,
        ge=1,
        le=1000000,
        description="Series Number (0020,0011) of a result: that of its source, plus this.",
    )
    research_use: bool = Field(
        default=True, description="Says in each result that it is not for diagnosis."
    )
    omit_empty_frames: bool = Field(
        default=True,
        description="A segmentation has no frames for slices without a voxel of the segment. "
        "`false` for a viewer that shows those on the wrong slices.",
    )


class Peer(Section):
    """Another Application Entity: a PACS, a modality, a workstation."""

    name: Name = Field(description="What routes and commands call it.")
    ae_title: AeTitle = Field(description="Its AE title: as caller, and to be called by.")
    host: Host = Field(description="Where it listens: a name or an IP address.")
    port: Port = Field(description="The port it listens on.")
    networks: tuple[Network, ...] = Field(
        default=(),
        strict=False,
        description="Addresses it may call from, such as `10.1.0.0/16`. Empty: its `host`, where "
        "that is an IP address or localhost; from anywhere, where it is another name.",
    )
    may: frozenset[Asked] = Field(
        default=frozenset({"store"}),
        strict=False,
        description='What it may ask of this node, beside C-ECHO. "commit": that objects are kept, '
        "by Storage Commitment; the report goes to its `host` and `port`.",
    )
    offers: frozenset[Offered] = Field(
        default=frozenset({"store"}),
        strict=False,
        description='What this node may ask of it. "commit": Storage Commitment; for its report it '
        "must know this node's AE title, address and port, and be let in by `networks`. "
        '"reject": it honours rejection notes (IHE IOCM), and hides results that were replaced.',
    )
    release_s: Seconds | None = Field(
        default=None, description="For Series that it sends: instead of `complete.release_s`."
    )
    quiet_s: Seconds | None = Field(
        default=None, description="For Series that it sends: instead of `complete.quiet_s`."
    )
    give_up_s: Seconds | None = Field(
        default=None, description="For Series that it sends: instead of `complete.give_up_s`."
    )
    idle_s: Seconds | None = Field(
        default=None,
        description="For its associations, instead of `receive.idle_s`: some PACS keep them open.",
    )
    fallback: Literal["sc"] | None = Field(
        default=None,
        description='What it gets where it takes no Segmentation. "sc": Secondary Captures, a '
        "picture of each image.",
    )
    dicomweb: Url = Field(
        default="",
        description="Base URL of its DICOMweb services, such as `https://pacs/dicom-web`: then it "
        "is asked by QIDO-RS how many instances it has, and not by C-FIND.",
    )
    dicomweb_token: Secret = Field(
        default="", description="Where the bearer token for it stands: `env:NAME` or `file:PATH`."
    )
    certificates: tuple[CertificateName, ...] = Field(
        default=(),
        strict=False,
        description="Its certificate: `sha256:` and the fingerprint, or `subject:CN=name,O=...`; "
        "of several one must match. Then it may call by TLS alone.",
    )
    user: str = Field(
        default="",
        max_length=1024,
        description="What it must call itself by user identity negotiation, beside all that.",
    )
    passcode: Secret = Field(
        default="",
        description="Where the passcode of `user` stands: `env:NAME` or `file:PATH`. It counts "
        "over TLS alone. Without it the name is all.",
    )
    max_associations: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Associations of it at a time, instead of `receive.max_associations_per_peer`.",
    )
    objects_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="How many objects it may send in a minute. Further ones are answered `A700`: "
        "come again later. Without it: any number.",
    )
    in_flight_mib: int | None = Field(
        default=None,
        ge=1,
        le=1_048_576,
        description="How much of its objects may be on its way at a time, over all of its "
        "associations; beyond it, as above. An object that comes alone is let in whole.",
    )
    tls: bool = Field(
        default=False, description="It is called by TLS, and shows one of its `certificates`."
    )
    tls_name: str = Field(
        default="",
        max_length=253,
        description="The host name in its certificate, where that is not its `host`. Not looked at "
        "where `certificates` say more.",
    )


class Route(Section):
    """One rule: which Series go through which tool, and where the results go."""

    name: Name = Field(description="What the log and the reasons call it.")
    from_: tuple[str, ...] = Field(
        default=("*",),
        alias="from",
        strict=False,
        min_length=1,
        description="Senders: names or AE titles of peers; `*` is any.",
    )
    when: When = Field(
        default="",
        description="Which Series, in the match language. Empty: all that the tool can process.",
    )
    tool: Name = Field(description="The id of a model.")
    results: tuple[ResultKind, ...] = Field(
        default=("seg",),
        strict=False,
        min_length=1,
        description='Kinds of results to make. "seg": a Segmentation. "sc": pictures of it, which '
        "every PACS shows (Secondary Captures).",
    )
    to: tuple[str, ...] = Field(
        default=("@sender",),
        strict=False,
        description="Peers that get the results; `@sender` is the peer that sent the Series, or "
        "most of it. Empty: they stay here.",
    )
    priority: int = Field(
        default=0, ge=-100, le=100, description="Steps with a higher one are performed first."
    )
    enabled: bool = Field(default=True, description="`false` switches the route off.")
    delete_after_delivery: bool = Field(
        default=False,
        description="`true` removes a Series and its results as soon as all peers have them. A "
        "peer that offers no proof has what it answered with success.",
    )


class File(Section):
    """The whole file."""

    node: Node = Node()
    receive: Receive = Receive()
    complete: Complete = Complete()
    engine: Engine = Engine()
    results: Results = Results()
    tls: Tls = Tls()
    deliver: Deliver = Deliver()
    retain: Retain = Retain()
    audit: Audit = Audit()
    peer: tuple[Peer, ...] = Field(default=(), strict=False)
    route: tuple[Route, ...] = Field(default=(), strict=False)
