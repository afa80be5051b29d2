-- Completeness by evidence, holding, objects kept apart, results that replace others.

ALTER TABLE series ADD COLUMN ask_at REAL;
ALTER TABLE series ADD COLUMN source_at REAL;
ALTER TABLE series ADD COLUMN source_count INTEGER;
ALTER TABLE series ADD COLUMN source TEXT NOT NULL DEFAULT '';
ALTER TABLE series ADD COLUMN released INTEGER NOT NULL DEFAULT 0;
ALTER TABLE series ADD COLUMN held_from TEXT NOT NULL DEFAULT '';
ALTER TABLE series ADD COLUMN conflicts INTEGER NOT NULL DEFAULT 0;
CREATE INDEX series_ask ON series (ask_at) WHERE ask_at IS NOT NULL;
CREATE INDEX series_last ON series (last_at);

ALTER TABLE step ADD COLUMN replaces TEXT NOT NULL DEFAULT '[]';  -- JSON

CREATE TABLE conflict (              -- same SOP Instance UID as an instance, other bytes
    sop_instance_uid TEXT NOT NULL,
    sha256           TEXT NOT NULL,
    series_uid       TEXT NOT NULL,  -- that of the instance that came first
    path             TEXT NOT NULL,
    size             INTEGER NOT NULL,
    association      INTEGER NOT NULL,
    received_at      REAL NOT NULL,
    PRIMARY KEY (sop_instance_uid, sha256)
) WITHOUT ROWID;
CREATE INDEX conflict_series ON conflict (series_uid);
CREATE INDEX conflict_path ON conflict (path);

CREATE VIEW runnable AS              -- steps that wait for a performer
SELECT step.* FROM step
JOIN series USING (series_uid)
WHERE step.state = 'SCHEDULED' AND series.state = 'COMPLETE' AND series.revision = step.revision;

CREATE INDEX result_path ON result (path);
CREATE INDEX step_quarantined ON step (state) WHERE state = 'QUARANTINED';
CREATE INDEX series_attention ON series (state) WHERE state IN ('INCOMPLETE', 'HELD');
CREATE INDEX delivery_attention ON delivery (state) WHERE state IN ('PARKED', 'DEAD');

CREATE VIEW owed AS                  -- deliveries that no operator holds back
SELECT delivery.* FROM delivery
JOIN result ON result.sop_instance_uid = result_uid
JOIN series ON series.series_uid = source_series_uid
WHERE series.state <> 'HELD';
