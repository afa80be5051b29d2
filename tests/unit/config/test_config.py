"""The operator's file: what it becomes, and what is said about each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.config.load import Config, check, load, read, shipped
from dicom_node.config.mistakes import keys_of, section_of
from dicom_node.config.schema import File
from dicom_node.decide import completeness, retry
from dicom_node.decide.match import parse
from dicom_node.decide.routing import Route
from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.records import Peer

PEER = '[[peer]]\nname = "pacs"\nae_title = "PACS"\nhost = "10.0.0.5"\nport = 104\n'
ROUTE = '[[route]]\nname = "lungs"\ntool = "lung-unet"\n'


def config_of(text: str, base: Path = Path("/site")) -> Config:
    return read(text, base=base)


def mistakes_in(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        config_of(text)
    return list(caught.value.mistakes)


def test_an_empty_file_is_the_defaults_and_hears_this_machine_alone():
    config = config_of("")

    assert config.node.host == "127.0.0.1"
    assert config.receive.unknown_peers == "echo"
    assert (config.peers, config.routes) == ((), ())
    assert config.complete.policy() == completeness.Policy()
    assert config.deliver.policy() == retry.Policy()


def test_the_shipped_file_works_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("DICOM_NODE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)

    config = load()

    assert config.data_dir == tmp_path / "var"
    assert config.models_dir == shipped() / "models"
    assert [(r.tool_id, r.results, r.destinations) for r in config.routes] == [
        ("lung-unet", ("seg",), ("@sender",))
    ]


def test_the_shipped_file_shows_every_key_with_its_default():
    text = (shipped() / "ae_config.toml").read_text()
    as_shipped, defaults = config_of(text), config_of("")

    for name in ("receive", "complete", "engine", "results", "tls", "deliver", "retain", "node"):
        assert getattr(as_shipped, name) == getattr(defaults, name)
    for section in keys_of(File).values():
        table = section_of(section.annotation)
        assert table is not None
        for key in keys_of(table):
            assert f"\n{key} = " in text or f"\n# {key} = " in text, key


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "[receive]\nmin_free_gib = 1\nstop_free_gib = 2",
            "receive.stop_free_gib is 2: at most receive.min_free_gib, which is 1",
        ),
        (
            "[retain]\nfree_gib = 2",
            "retain.free_gib is 2: more than receive.min_free_gib, which is 2, or objects are "
            "refused before room is made",
        ),
        (
            PEER.replace("10.0.0.5", "pacs..local"),
            "peer[0].host (of 'pacs') is 'pacs..local': a host name has 1 to 63 characters "
            "between its dots",
        ),
    ],
)
def test_levels_of_the_disk_and_hosts_that_cannot_be_are_refused(text: str, mistake: str):
    assert mistakes_in(text) == [mistake]


def test_nothing_is_ever_removed_unless_the_operator_says_so():
    policy = config_of("").retain.policy(())

    assert (policy.keep_s, policy.unsettled_s, policy.promised_s) == (None, None, None)
    assert config_of("[retain]\nkeep_days = 2").retain.policy(()).keep_s == 2 * 86400


def test_a_file_named_by_the_environment_goes_before_the_one_in_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "ae_config.toml").write_text('[node]\nae_title = "HERE"\n')
    named = tmp_path / "site" / "node.toml"
    named.parent.mkdir()
    named.write_text('[node]\nae_title = "NAMED"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DICOM_NODE_CONFIG", raising=False)
    here = load()
    monkeypatch.setenv("DICOM_NODE_CONFIG", str(named))

    there = load()

    assert (here.node.ae_title, here.data_dir) == ("HERE", tmp_path / "var")
    assert (there.node.ae_title, there.data_dir) == ("NAMED", named.parent / "var")
    assert load(tmp_path / "ae_config.toml").node == here.node


def test_relative_folders_are_relative_to_the_file_and_absolute_ones_stay():
    config = config_of('[node]\ndata_dir = "../data"\nmodels_dir = "/models"\n')

    assert config.data_dir == Path("/site/../data")
    assert config.models_dir == Path("/models")
    assert (config.node.data_dir, config.node.models_dir) == (config.data_dir, config.models_dir)


def test_peers_and_routes_become_the_values_that_the_judgments_take():
    config = config_of(
        PEER + 'networks = ["10.0.0.0/24"]\nmay = []\noffers = ["store", "query"]\n'
        '[[route]]\nname = "r"\ntool = "t"\nfrom = ["PACS"]\nto = ["pacs", "@sender"]\n'
        "when = 'Modality == \"CT\"'\npriority = 3\nenabled = false\n"
    )

    assert config.peers == (
        Peer(
            name="pacs",
            ae_title="PACS",
            host="10.0.0.5",
            port=104,
            networks=("10.0.0.0/24",),
            may=frozenset(),
            offers=frozenset({"store", "query"}),
        ),
    )
    assert config.routes == (
        Route(
            name="r",
            tool_id="t",
            sources=("PACS",),
            when=parse('Modality == "CT"'),
            results=("seg",),
            destinations=("pacs", "@sender"),
            priority=3,
            enabled=False,
        ),
    )
    assert config.peer("pacs") is config.peers[0]
    assert config.peer("nobody") is None


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "[node]\nprot = 1",
            "node.prot: there is no such key (did you mean 'port'?); "
            "there are: ae_title, host, port, data_dir, models_dir",
        ),
        (
            "[nod]\nport = 1",
            "nod: there is no such key (did you mean 'node'?); there are: "
            "node, receive, complete, engine, results, tls, deliver, retain, audit, peer, route",
        ),
        ("node = 3", "node is 3: a table is wanted"),
        (
            "[node.port]\nx = 1",
            "node.port is a table: whole number from 0 to 65535 is wanted",
        ),
        ("peer = 3", "peer is 3: a list of tables is wanted"),
        ("peer = [3]", "peer[0] is 3: a table is wanted"),
        ("[node]\nport = -1", "node.port is -1: whole number from 0 to 65535 is wanted"),
        ('[node]\nport = "104"', "node.port is '104': whole number from 0 to 65535 is wanted"),
        ("[node]\nport = true", "node.port is true: whole number from 0 to 65535 is wanted"),
        (
            '[node]\nae_title = "A TITLE THAT IS TOO LONG"',
            "node.ae_title is 'A TITLE THAT IS TOO LONG': "
            "an AE title has 1 to 16 characters, printable ASCII, no backslash",
        ),
        ('[node]\nhost = ""', "node.host is '': a host name or an IP address is wanted"),
        ('[node]\ndata_dir = ""', "node.data_dir is '': the path of a folder is wanted"),
        (
            '[receive]\nunknown_peers = "acept"',
            "receive.unknown_peers is 'acept': "
            '"echo" or "refuse" or "accept" is wanted (did you mean \'accept\'?)',
        ),
        (
            "[receive]\nidle_s = nan",
            "receive.idle_s is nan: number above 0, up to 2592000 is wanted",
        ),
        (
            '[receive]\nextra_sop_classes = ["1.2", "1.x"]',
            "receive.extra_sop_classes[1] is '1.x': a UID has digits and dots, at most 64",
        ),
        (
            '[engine]\ndevice = "gpu"',
            "engine.device is 'gpu': a device is auto, cpu, cuda or cuda:N",
        ),
        (
            '[receive]\nfront = "stock"\nprocesses = 2',
            'receive.processes is above 1: that needs receive.front = "own"'
            '; a second node can serve a peer that needs "stock"',
        ),
        (
            '[receive]\nfront = "stock"\n[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n'
            "require_client_certificate = false",
            'tls.certificate is set: TLS needs receive.front = "own"'
            '; a second node can serve a peer that needs "stock"',
        ),
        (
            "[complete]\nrelease_s = 30",
            "complete.release_s is 30: at most complete.quiet_s, which is 20",
        ),
        (
            "[complete]\ngive_up_s = 5",
            "complete.quiet_s is 20: at most complete.give_up_s, which is 5",
        ),
        ("[deliver]\nfirst_s = 4000", "deliver.first_s is 4000: at most deliver.max_s (3600)"),
        (
            '[[peer]]\nname = "p"\nae_title = "P"\nhost = "h"',
            "peer[0].port (of 'p') is missing: whole number from 1 to 65535 is wanted",
        ),
        (
            PEER + 'networks = ["10.0.0.1/8"]',
            "peer[0].networks[0] (of 'pacs') is '10.0.0.1/8': an IP address or a network such as "
            "10.1.0.0/16 is wanted (no bits set behind the prefix)",
        ),
        (
            PEER + 'may = ["stor"]',
            "peer[0].may[0] (of 'pacs') is 'stor': \"store\" or \"commit\" is wanted "
            "(did you mean 'store'?)",
        ),
        (
            PEER + 'offers = ["quer"]',
            "peer[0].offers[0] (of 'pacs') is 'quer': "
            '"store" or "query" or "retrieve" or "commit" or "reject" is wanted '
            "(did you mean 'query'?)",
        ),
        (PEER + PEER.replace("PACS", "B"), "peer[1] has the name of peer[0]: pacs"),
        (
            PEER + PEER.replace('"pacs"', '"b"'),
            "peer[1] has the AE title, host and port of peer[0]: PACS, 10.0.0.5, 104",
        ),
        (
            '[node]\nae_title = "PACS"\nhost = "10.0.0.5"\nport = 104\n' + PEER,
            "peer[0] ('pacs') is this node itself",
        ),
        (ROUTE + ROUTE, "route[1] has the name of route[0]: lungs"),
        (
            PEER + ROUTE + 'to = ["pcas"]',
            "route[0].to (of 'lungs') has 'pcas': "
            "@sender or the name of a [[peer]] is wanted (did you mean 'pacs'?)",
        ),
        (
            PEER + "offers = []\n" + ROUTE + 'to = ["pacs"]',
            "route[0].to (of 'lungs') has 'pacs': that peer does not offer \"store\"",
        ),
        (
            PEER + ROUTE + 'from = ["PCAS"]',
            "route[0].from (of 'lungs') has 'PCAS': "
            "* or the name or AE title of a [[peer]] is wanted (did you mean 'PACS'?)",
        ),
        (
            '[receive]\nunknown_peers = "accept"\n' + ROUTE + 'from = ["a\\\\b"]',
            "route[0].from (of 'lungs') has 'a\\\\b': *, a peer's name or an AE title is wanted",
        ),
        (
            ROUTE + "from = []",
            "route[0].from (of 'lungs') is []: list of text, not empty is wanted",
        ),
        (
            ROUTE + 'results = ["sge"]',
            "route[0].results[0] (of 'lungs') is 'sge': \"seg\" or \"sc\" is wanted "
            "(did you mean 'seg'?)",
        ),
        (
            ROUTE + "when = 'Modality = \"CT\"'",
            "route[0].when (of 'lungs') is 'Modality = \"CT\"': "
            "'=' is not understood (to compare, write ==) (at character 10)",
        ),
        (
            '[[route]]\nname = "a b"\ntool = "t"',
            "route[0].name (of 'a b') is 'a b': "
            "a name has 1 to 64 letters, digits, '-', '_' or '.'",
        ),
    ],
)
def test_a_mistake_is_told_with_its_path_its_value_and_what_is_allowed(text: str, mistake: str):
    assert mistakes_in(text) == [mistake]


def test_all_mistakes_are_told_at_once_and_none_that_is_not_there():
    text = (
        "[node]\nport = -1\n[web]\nport = 1\n[complete]\nrelease_s = 30\n"
        + PEER.replace("port", "prot")
        + PEER.replace('"pacs"', '"b"')
        + ROUTE
        + 'to = ["pacs", "c"]\nresults = ["x"]\n'
    )

    assert [mistake.split(" ")[0].rstrip(":") for mistake in mistakes_in(text)] == [
        "node.port",
        "peer[0].port",
        "peer[0].prot",
        "route[0].results[0]",
        "web",
        "complete.release_s",
        "route[0].to",
    ]


def test_an_unknown_sender_may_be_named_where_unknown_peers_are_accepted():
    config = config_of('[receive]\nunknown_peers = "accept"\n' + ROUTE + 'from = ["CT1"]')

    assert config.routes[0].sources == ("CT1",)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"[node\nport = 1", "line 1"),
        (b'[node]\nhost = "\xff"', "line 2 is not UTF-8"),
        (b"#" * (1 << 20) + b"#", "larger than"),
    ],
)
def test_a_file_that_is_not_toml_is_told_with_the_place(raw: bytes, words: str, tmp_path: Path):
    file = tmp_path / "ae_config.toml"
    file.write_bytes(raw)

    with pytest.raises(ConfigurationError) as caught:
        load(file)

    assert words in caught.value.mistakes[0]
    assert caught.value.source == str(file)


def test_a_missing_file_is_a_mistake_not_a_default(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="No such file"):
        load(tmp_path / "nothing.toml")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path):
    file = tmp_path / "ae_config.toml"
    file.write_bytes(b"\xef\xbb\xbf[node]\nport = 105\n")

    assert load(file).node.port == 105


def test_routes_are_checked_against_the_models_and_attributes_that_exist():
    config = config_of(
        ROUTE.replace("lung-unet", "lung-unit")
        + 'when = \'Modalty == "CT" and InstancesInSeries > 10 and CallingAE == "A"\''
    )

    with pytest.raises(ConfigurationError) as caught:
        check(config, tools=["lung-unet"], keywords=["Modality", "Rows"])

    assert caught.value.mistakes == (
        "route[0].tool (of 'lungs') is 'lung-unit': there is no such model "
        "(did you mean 'lung-unet'?); there are: lung-unet",
        "route[0].when (of 'lungs') asks for 'Modalty': the node keeps no such attribute "
        "(did you mean 'Modality'?)",
    )
    assert check(config_of(ROUTE), tools=["lung-unet"], keywords=[]) is None
