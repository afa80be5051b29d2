"""Damage to the catalog's file is found, told in one sentence, and never written over."""

from __future__ import annotations

import shutil
import sqlite3

import pytest

from dicom_node.catalog import Catalog, replace
from dicom_node.catalog import integrity as looking
from dicom_node.catalog.damage import found_damage, mark_of
from dicom_node.catalog.refold import Unfoldable, differences, refold, salvage
from dicom_node.catalog.schema import connect
from dicom_node.domain import events as e
from dicom_node.domain.errors import CatalogDamaged, CatalogError
from dicom_node.domain.records import Instance
from dicom_node.domain.states import SeriesState

PAGE = 4096


def an_arrival(number, *, series="1.2.3", filler=200):
    instance = Instance(
        sop_instance_uid=f"{series}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_uid="1.2",
        series_uid=series,
        path=f"objects/aa/{number:064x}.dcm",
        size=10,
        sha256=f"{number:064x}",
        association=1,
        received_at=100.0 + number,
        attributes={"Modality": "CT", "SeriesDescription": "x" * filler},
    )
    return e.InstanceArrived(at=100.0 + number, instance=instance, judge_at=200.0)


def opened():
    return e.AssociationOpened(
        at=100.0, number=1, calling_ae="CT1", called_ae="NODE", address="127.0.0.1"
    )


def filled(path, count=200):
    """A catalog with `count` instances, closed."""
    catalog = Catalog(path)
    catalog.commit(opened(), *(an_arrival(n) for n in range(1, count + 1)))
    catalog.close()
    return path


def crashed(tmp_path, commits=6):
    """The files of a catalog whose process died after some commits: most is in the log."""
    live = Catalog(tmp_path / "live.db")
    live.commit(opened())
    for number in range(1, commits + 1):
        live.commit(an_arrival(number))
    path = tmp_path / "catalog.db"
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"live.db{suffix}", tmp_path / f"catalog.db{suffix}")
    live.close()
    return path


def overwrite(path, start, data):
    with path.open("r+b") as file:
        file.seek(start, 0 if start >= 0 else 2)
        file.write(data)


def pages_of(path, table):
    """The numbers of the pages of a table, from 1, the root first."""
    db = sqlite3.connect(path)
    rows = db.execute("SELECT pageno FROM dbstat WHERE name = ? ORDER BY path", (table,)).fetchall()
    db.close()
    return [row[0] for row in rows]


def spoil(path, page):
    overwrite(path, (page - 1) * PAGE, b"\xa5" * PAGE)


def frames(path):
    """Where the frames of the log begin, in bytes."""
    size = (path.with_name(path.name + "-wal")).stat().st_size
    return list(range(32, size, 24 + PAGE))


def test_a_sound_catalog_is_found_sound_and_left_as_it_is(tmp_path):
    path = crashed(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("catalog.db*")}
    found = looking.examine(path)
    assert (found.problems, found.whole) == ((), True)
    for name, content in before.items():
        assert (tmp_path / name).read_bytes() == content, name


@pytest.mark.parametrize("table", ["event", "instance", "series", "instance_path"])
def test_a_damaged_page_is_found_wherever_it_is(tmp_path, table):
    path = filled(tmp_path / "catalog.db")
    spoil(path, pages_of(path, table)[-1])
    assert looking.examine(path).problems


def test_an_index_that_lacks_a_row_is_found_if_indexes_are_looked_at(tmp_path):
    path = filled(tmp_path / "catalog.db", 5)
    db = sqlite3.connect(path)
    db.execute("PRAGMA writable_schema = ON")
    (sql,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'instance_path'").fetchone()
    db.execute("DELETE FROM sqlite_master WHERE name = 'instance_path'")
    db.commit()
    db.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA writable_schema = ON")
    db.execute("DELETE FROM instance WHERE sop_instance_uid = '1.2.3.1'")
    db.execute(
        "INSERT INTO sqlite_master VALUES ('index', 'instance_path', 'instance', ?, ?)",
        (pages_of(path, "instance_series")[0], sql),
    )
    db.commit()
    db.close()
    assert looking.examine(path, indexes=True).problems


@pytest.mark.parametrize("left", [100, PAGE, 3 * PAGE + 7])
def test_a_file_that_was_cut_off_is_found(tmp_path, left):
    path = filled(tmp_path / "catalog.db")
    with path.open("r+b") as file:
        file.truncate(left)
    assert looking.examine(path).problems


def test_rubbish_is_found_and_opening_it_says_what_to_do(tmp_path):
    path = tmp_path / "catalog.db"
    path.write_bytes(b"not a database at all" * 100)
    assert looking.examine(path).problems == ("file is not a database",)
    with pytest.raises(CatalogDamaged, match="dicom-node catalog rebuild"):
        Catalog(path)


def test_time_that_is_up_is_no_damage(tmp_path):
    path = filled(tmp_path / "catalog.db", 3000)
    found = looking.examine(path, seconds=0.0)
    assert (found.problems, found.whole) == ((), False)


def test_a_log_without_its_header_is_damage_for_sqlite_would_call_it_empty(tmp_path):
    path = crashed(tmp_path)
    overwrite(looking.wal_of(path), 0, b"zzzz")
    assert looking.examine(path).problems == ("the header of its write-ahead log is damaged",)


def test_a_log_with_a_bad_frame_before_good_ones_is_damage(tmp_path):
    path = crashed(tmp_path)
    overwrite(looking.wal_of(path), frames(path)[2] + 100, b"zzzz")
    assert looking.examine(path).problems == ("its write-ahead log is damaged in the middle",)


@pytest.mark.parametrize("cut", [1, 100, PAGE, PAGE + 23])
def test_a_log_that_ends_in_the_middle_of_a_frame_is_none(tmp_path, cut):
    path = crashed(tmp_path)
    wal = looking.wal_of(path)
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size - cut)
    assert looking.wal_problem(wal) == ""
    assert looking.examine(path).problems == ()


def test_a_log_whose_last_transaction_was_not_written_whole_is_none(tmp_path):
    path = crashed(tmp_path)
    overwrite(looking.wal_of(path), frames(path)[-1] + 50, b"zzzz")
    assert looking.examine(path).problems == ()


def test_frames_of_an_earlier_round_behind_the_last_are_none(tmp_path):
    live = Catalog(tmp_path / "live.db")
    live.commit(opened(), *(an_arrival(n) for n in range(1, 50)))
    other = sqlite3.connect(tmp_path / "live.db")
    other.execute("PRAGMA wal_checkpoint(RESTART)")
    other.close()
    live.commit(an_arrival(99))
    wal = looking.wal_of(tmp_path / "live.db")
    assert wal.stat().st_size > 20 * PAGE, "the old frames are still there"
    assert looking.wal_problem(wal) == ""
    live.close()


def test_an_orderly_end_is_known_once_and_only_if_nothing_changed(tmp_path):
    path = filled(tmp_path / "catalog.db", 3)
    looking.note_closed(path)
    assert looking.take_closed(path)
    assert not looking.take_closed(path)
    looking.note_closed(path)
    catalog = Catalog(path)
    catalog.commit(an_arrival(9))
    catalog.close()
    assert not looking.take_closed(path)


def test_a_catalog_that_was_not_closed_is_not_noted_as_closed(tmp_path):
    path = crashed(tmp_path)
    looking.note_closed(path)
    assert not looking.take_closed(path)


def test_who_meets_damage_stops_everybody_from_writing(tmp_path):
    path = filled(tmp_path / "catalog.db")
    reader, writer = Catalog(path), Catalog(path)
    writer.commit(an_arrival(500))
    writer.close()
    reader.close()  # the log is now in the file
    for page in pages_of(path, "instance")[1:]:
        spoil(path, page)
    reader, writer = Catalog(path), Catalog(path)
    with pytest.raises(CatalogDamaged, match="dicom-node catalog rebuild"):
        reader.views.instances("1.2.3")
    assert found_damage(path)
    with pytest.raises(CatalogDamaged):
        writer.commit(
            e.AssociationOpened(at=1.0, number=7, calling_ae="A", called_ae="B", address="")
        )
    with pytest.raises(CatalogDamaged):
        writer.claim_step(now=1.0, lease_s=1.0, transaction_uid="2.25.1", performer="p")
    reader.close()
    writer.close()


def test_damage_that_was_met_counts_until_all_was_looked_at(tmp_path):
    path = filled(tmp_path / "catalog.db", 3)
    mark_of(path).write_text("database disk image is malformed\n")
    hasty = looking.examine(path, indexes=False)
    assert hasty.problems == ("database disk image is malformed",)
    assert looking.examine(path).problems == ()


def test_an_error_of_the_node_itself_leaves_no_transaction_open_and_is_told(tmp_path, monkeypatch):
    catalog = Catalog(tmp_path / "catalog.db")

    def broken(*_):
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr("dicom_node.catalog.store.fold", broken)
        with pytest.raises(RuntimeError):
            catalog.commit(opened())
    assert catalog.commit(opened(), an_arrival(1)) == ["", "new"]
    catalog.close()


def nothing(done, total):
    assert done <= total


def test_all_events_fold_into_the_same_catalog_again(tmp_path):
    path = crashed(tmp_path)
    assert refold(path, tmp_path / "again.db", nothing)
    once, again = Catalog(path), Catalog(tmp_path / "again.db")
    assert again.views.counts() == once.views.counts()
    assert again.views.instances("1.2.3") == once.views.instances("1.2.3")
    assert again.views.events_after(0, 99) == once.views.events_after(0, 99)
    once.close()
    again.close()


def test_events_with_a_gap_do_not_make_a_catalog(tmp_path):
    path = filled(tmp_path / "catalog.db", 20)
    db = sqlite3.connect(path)
    db.execute("DELETE FROM event WHERE number = 7")
    db.commit()
    db.close()
    assert not refold(path, tmp_path / "again.db", nothing)


def test_events_on_a_damaged_page_do_not_make_a_catalog_but_the_others_are_salvaged(tmp_path):
    path = filled(tmp_path / "catalog.db", 300)
    leaves = pages_of(path, "event")
    spoil(path, leaves[len(leaves) // 2])
    assert not refold(path, tmp_path / "again.db", nothing)
    found = list(salvage(path))
    assert 250 < len(found) < 301
    assert opened() in found
    assert an_arrival(300) in found


def test_that_there_is_no_room_for_the_new_catalog_says_nothing_of_the_events(
    tmp_path, monkeypatch
):
    path = filled(tmp_path / "catalog.db", 300)

    def connected(path):
        db = connect(path)
        db.execute("PRAGMA max_page_count = 60")
        return db

    monkeypatch.setattr("dicom_node.catalog.refold.connect", connected)
    with pytest.raises(CatalogError, match="the disk is full") as refused:
        refold(path, tmp_path / "again.db", nothing)
    assert refused.value.full
    with pytest.raises(CatalogError, match="the disk is full") as refused:
        differences(path, tmp_path / "scratch.db", nothing)
    assert not isinstance(refused.value, Unfoldable)


def test_that_somebody_has_locked_the_catalog_says_nothing_of_its_events(tmp_path, monkeypatch):
    path = filled(tmp_path / "catalog.db", 3)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("dicom_node.catalog.integrity.WAIT_S", 0.01)
    with pytest.raises(CatalogError, match="locked"):
        refold(path, tmp_path / "again.db", nothing)
    other.close()
    assert refold(path, tmp_path / "again.db", nothing)


def test_of_rubbish_nothing_is_salvaged(tmp_path):
    (tmp_path / "catalog.db").write_bytes(b"rubbish" * 1000)
    assert list(salvage(tmp_path / "catalog.db")) == []
    assert not refold(tmp_path / "catalog.db", tmp_path / "again.db", nothing)


def test_tables_that_are_not_what_the_events_make_of_them_are_found(tmp_path):
    path, scratch = filled(tmp_path / "catalog.db", 20), tmp_path / "scratch.db"
    assert differences(path, scratch, nothing) == {}
    db = sqlite3.connect(path)
    db.execute("UPDATE instance SET size = 11 WHERE sop_instance_uid = '1.2.3.4'")
    db.execute("UPDATE series SET instances = 19")
    db.commit()
    db.close()
    assert differences(path, scratch, nothing) == {"instance": 1, "series": 1}
    assert list(tmp_path.glob("scratch*")) == []


def test_a_catalog_in_use_can_be_compared(tmp_path):
    path = tmp_path / "catalog.db"
    catalog = Catalog(path)
    catalog.commit(opened(), *(an_arrival(n) for n in range(1, 2500)))

    def meanwhile(done, total):
        catalog.commit(an_arrival(done + 10_000))

    assert differences(path, tmp_path / "scratch.db", meanwhile) == {}
    catalog.commit(
        e.SeriesJudged(
            at=1.0, series_uid="1.2.3", revision=1, state=SeriesState.COMPLETE, reasons=()
        )
    )
    catalog.close()


def test_a_new_catalog_takes_the_place_of_the_old_one_which_is_kept(tmp_path):
    path = crashed(tmp_path)
    mark_of(path).touch()
    old = {suffix: (tmp_path / f"catalog.db{suffix}").read_bytes() for suffix in ("", "-wal")}
    filled(replace.draft_of(path), 3)
    replace.finish_draft(path)
    aside = replace.put_in_place(path, "T")
    assert aside == tmp_path / "catalog.db.damaged-T"
    assert {s: (tmp_path / f"{aside.name}{s}").read_bytes() for s in old} == old
    assert not replace.pending_of(path).exists()
    assert not found_damage(path)
    catalog = Catalog(path)
    assert catalog.views.counts()["instance"] == 3
    catalog.close()


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_an_interrupted_replacement_can_be_finished_and_loses_nothing(tmp_path, monkeypatch, nth):
    path = crashed(tmp_path)
    old = path.read_bytes(), looking.wal_of(path).read_bytes()
    filled(replace.draft_of(path), 3)
    replace.finish_draft(path)
    calls = []
    sync = replace._sync

    def dies(folder):
        calls.append(folder)
        if len(calls) == nth:
            raise OSError(5, "interrupted")
        sync(folder)

    with monkeypatch.context() as patched:
        patched.setattr(replace, "_sync", dies)
        with pytest.raises(CatalogError):
            replace.put_in_place(path, "T")
    if replace.pending_of(path).exists():
        replace.put_in_place(path, "U")
    catalog = Catalog(path)
    assert catalog.views.counts()["instance"] == 3
    catalog.close()
    kept = tmp_path / "catalog.db.damaged-T"
    assert (kept.read_bytes(), looking.wal_of(kept).read_bytes()) == old
