-- What was refused of a Series, as far as can be told: it is whole once that has come.

CREATE TABLE missed (
    series_uid       TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    PRIMARY KEY (series_uid, sop_instance_uid)
) WITHOUT ROWID;
