"""The facts of the Conformance Statement follow the configuration, the code and the objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pynetdicom import build_context

from dicom_node.config.listing import settings, settings_of
from dicom_node.config.load import Config, read
from dicom_node.decide.routing import Sender, calls_from, resolve_sender
from dicom_node.dimse.entity import Entity
from dicom_node.domain.records import Peer
from dicom_node.iod import rejection, secondary
from dicom_node.iod.created import FIXED, SOMETIMES, Attribute, modules_of
from dicom_node.iod.sample import SEG_CLASS, object_of, samples
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node import statement as statements
from dicom_node.node.serve import start
from dicom_node.node.statement import statement
from dicom_node.testing.models import threshold_model

KINDS = (SEG_CLASS, secondary.SOP_CLASS_UID, rejection.SOP_CLASS_UID)
NAMES = ("segmentation", "secondary capture", "rejection note")
MODEL = "lung-threshold"
PEER = """
[[peer]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
"""
ROUTE = f"""
[[route]]
name = "lungs"
tool = "{MODEL}"
"""


@pytest.fixture
def configured(tmp_path: Path) -> Callable[[str], Config]:
    """A configuration of the text, in a folder that has the model."""
    folder = tmp_path / "models" / MODEL
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(threshold_model(model_id=MODEL), "utf-8")

    def configure(text: str) -> Config:
        head = '[node]\ndata_dir = "var"\nmodels_dir = "models"\nport = 0\n'
        return read(head + text, base=tmp_path)

    return configure


def kinds(config: Config) -> list[str]:
    return [created.sop_class_uid for created in statement(config).created]


def test_what_is_made_follows_routes_and_peers(configured):
    assert kinds(configured(PEER)) == []
    assert kinds(configured(PEER + ROUTE)) == [SEG_CLASS]
    assert kinds(configured(PEER + ROUTE + 'results = ["sc"]')) == [secondary.SOP_CLASS_UID]
    assert kinds(configured(PEER + ROUTE + "enabled = false")) == []
    fallback = PEER + 'fallback = "sc"\noffers = ["store", "reject"]' + ROUTE
    assert kinds(configured(fallback)) == list(KINDS)


def test_a_change_of_the_configuration_shows_in_contexts_limits_and_settings(configured):
    plain = statement(configured(PEER))
    other = statement(
        configured(
            "[receive]\nmax_pdu = 65536\nextra_sop_classes = ['1.2.3.4']\n"
            "extra_transfer_syntaxes = ['1.2.840.10008.1.2.2']\n" + PEER
        )
    )

    assert len(other.stored) == len(plain.stored) + 1
    assert set(other.storage_syntaxes) - set(plain.storage_syntaxes) == {"1.2.840.10008.1.2.2"}
    assert (plain.limits.pdu_bytes, other.limits.pdu_bytes) == (131072, 65536)
    values = {f"{s.section}.{s.key}": s.value for s in other.settings}
    assert values["receive.max_pdu"] == "65536"


def test_settings_show_every_section_and_neither_paths_nor_secrets(configured):
    config = configured(PEER + 'dicomweb = "https://pacs/x"\ndicomweb_token = "env:TOKEN"')

    sections = {s.section for s in settings(config)}
    assert {"node", "receive", "complete", "results", "deliver", "retain"} <= sections
    assert not {"data_dir", "models_dir"} & {s.key for s in settings(config)}
    of_peer = {s.key: s.value for s in settings_of(config.peers[0])}
    assert of_peer["dicomweb_token"] == "configured"
    assert "TOKEN" not in str(of_peer)


@pytest.mark.parametrize(
    ("host", "networks"),
    [("10.1.2.3", ()), ("localhost", ()), ("pacs.site", ()), ("pacs.site", ("10.1.0.0/16",))],
    ids=["address", "localhost", "name", "networks"],
)
def test_from_where_a_peer_may_call_is_told_as_it_is_judged(host: str, networks: tuple[str, ...]):
    peer = Peer(name="pacs", ae_title="PACS", host=host, port=104, networks=networks)
    told = calls_from(peer)

    for address in ("10.1.2.3", "127.0.0.1", "192.0.2.9"):
        found = resolve_sender(Sender(ae_title="PACS", address=address), [peer]) is not None
        near = {"10.1.2.3": {"10.1.2.3", "10.1.0.0/16"}, "127.0.0.1": {"localhost"}}
        assert found == (not told or bool(near.get(address, set()) & set(told))), address


def test_a_profile_of_security_tells_what_is_configured_of_it(configured):
    facts = statement(configured(PEER))
    assert set(dict(facts.security).values()) == {"not configured"}

    audited = '[audit]\nfile = "secret/audit.log"\nsyslog = "audit.test:6514"\n'
    told = dict(statement(configured(PEER + audited)).security)
    assert told[statements.AUDIT] == "by syslog over TLS (A.6) to audit.test:6514 and to a file"
    assert told[statements.TLS] == "not configured"


def test_a_running_node_accepts_every_context_of_its_statement(configured):
    config = configured("[receive]\nunknown_peers = 'accept'\nextra_sop_classes = ['1.2.3.4']\n")
    facts = statement(config)
    node = start(config)
    try:
        proposals = [(c.abstract_syntax, list(c.transfer_syntaxes)) for c in facts.accepted]
        proposals += [(facts.stored[0].abstract_syntax, [uid]) for uid in facts.storage_syntaxes]
        refused = []
        for begin in range(0, len(proposals), 128):
            entity = Entity("CALLER")
            contexts = [build_context(*one) for one in proposals[begin : begin + 128]]
            association = entity.associate(
                "127.0.0.1", node.port, contexts=contexts, ae_title=config.node.ae_title
            )
            refused += association.rejected_contexts
            assert len(association.accepted_contexts) == len(contexts)
            association.release()
        assert refused == []
    finally:
        node.stop()


def of_kind(sop_class_uid: str) -> dict[str, Attribute]:
    return {
        "/".join(attribute.path): attribute
        for module in modules_of(sop_class_uid, SegSettings())
        for attribute in module.attributes
    }


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_every_attribute_of_an_object_has_a_module_that_knows_it(kind: str, tmp_path: Path):
    modules = modules_of(kind, SegSettings())
    assert [m.name for m in modules if not m.usage] == []

    listed = {a.path[0] for m in modules for a in m.attributes}
    for number, sample in enumerate(samples(SegSettings())):
        made = object_of(kind, sample, tmp_path / str(number))
        assert set(made.dir()) - listed == set()
        assert [e.tag for e in made.iterall() if e.tag.is_private] == []


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_what_a_module_requires_is_always_there(kind: str):
    for path, attribute in of_kind(kind).items():
        top = len(attribute.path) == 1
        if top and attribute.kind in ("1", "2"):
            assert attribute.presence != SOMETIMES, path


def test_where_a_value_comes_from_is_told_by_comparison():
    seg = of_kind(SEG_CLASS)

    assert (seg["Modality"].sources, seg["Modality"].value) == ((FIXED,), "SEG")
    assert seg["SegmentationType"].value == "BINARY"
    assert seg["Manufacturer"].sources == ("CONFIG",)
    assert seg["SeriesNumber"].sources == ("AUTO", "CONFIG")
    assert seg["PatientID"].sources == ("COPIED",)
    assert seg["SOPInstanceUID"].sources == ("AUTO",)
    assert seg["RelatedSeriesSequence"].presence == SOMETIMES
    assert "Replaced by" in seg["RelatedSeriesSequence/PurposeOfReferenceCodeSequence"].value
    note = of_kind(rejection.SOP_CLASS_UID)
    assert "113001" in note["ConceptNameCodeSequence"].value
    assert of_kind(secondary.SOP_CLASS_UID)["ConversionType"].value == "WSD"


def test_the_samples_are_what_the_encoders_make(tmp_path: Path):
    made = object_of(SEG_CLASS, samples(SegSettings())[0], tmp_path / "one")

    assert isinstance(made, pydicom.Dataset)
    assert made.SOPClassUID == SEG_CLASS
    assert made.NumberOfFrames == 2
