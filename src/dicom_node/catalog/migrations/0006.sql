-- Peers that cannot be reached: what waits for them is one row, however much it is.

CREATE TABLE unreachable (
    destination TEXT PRIMARY KEY,
    since       REAL NOT NULL,
    tried_at    REAL NOT NULL,     -- what was due then waits until due_at
    due_at      REAL NOT NULL,
    tries       INTEGER NOT NULL,
    reason      TEXT NOT NULL
) WITHOUT ROWID;

DROP INDEX delivery_due;
CREATE INDEX delivery_due ON delivery (destination, due_at)
WHERE state IN ('QUEUED', 'DEFERRED', 'SENDING');

DROP VIEW owed;
CREATE VIEW owed AS                  -- deliveries that neither an operator nor a newer result stops
SELECT delivery.* FROM delivery      -- CROSS: the index of delivery leads, and a limit ends it early
CROSS JOIN result ON result.sop_instance_uid = result_uid
CROSS JOIN series ON series.series_uid = source_series_uid
WHERE series.state <> 'HELD' AND delivery.replaced_by IS NULL;
