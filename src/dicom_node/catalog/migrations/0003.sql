-- Proof of delivery, promises given to those who send here, and files removed.

ALTER TABLE delivery ADD COLUMN ask TEXT NOT NULL DEFAULT '';
ALTER TABLE delivery ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN returns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN transaction_uid TEXT NOT NULL DEFAULT '';
CREATE INDEX delivery_sent ON delivery (destination, due_at) WHERE state = 'SENT';

CREATE TABLE request (               -- the commitments that peers were asked for
    transaction_uid TEXT NOT NULL,
    delivery_id     INTEGER NOT NULL,
    destination     TEXT NOT NULL,
    PRIMARY KEY (transaction_uid, delivery_id)
) WITHOUT ROWID;

CREATE TABLE promise (               -- the commitments that peers asked of this node
    transaction_uid TEXT NOT NULL,
    peer            TEXT NOT NULL,
    asked           INTEGER NOT NULL,  -- the event with the references
    judged          INTEGER,           -- the event with what is to be reported
    asked_at        REAL NOT NULL,
    attempt         INTEGER NOT NULL,
    due_at          REAL,              -- NULL: reported, or given up
    reason          TEXT NOT NULL,
    PRIMARY KEY (transaction_uid, peer)
) WITHOUT ROWID;
CREATE INDEX promise_due ON promise (due_at) WHERE due_at IS NOT NULL;

-- An object whose file was removed has the path ''.
ALTER TABLE series ADD COLUMN purged_at REAL;
ALTER TABLE series ADD COLUMN promised_at REAL;
CREATE INDEX series_kept ON series (last_at) WHERE purged_at IS NULL;

CREATE TABLE garbage (               -- files that are to be removed from the spool
    path       TEXT PRIMARY KEY,
    series_uid TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX garbage_series ON garbage (series_uid);
