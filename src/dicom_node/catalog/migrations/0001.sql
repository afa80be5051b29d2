-- The first catalog. `event` is the truth; every other table is folded from it.

CREATE TABLE event (
    number  INTEGER PRIMARY KEY,
    at      REAL NOT NULL,
    kind    TEXT NOT NULL,
    subject TEXT NOT NULL,   -- what it is about: a UID, "association 7", "step 3", "delivery 9"
    series  TEXT NOT NULL,   -- the Series it belongs to, or ''
    body    TEXT NOT NULL    -- the event's fields as JSON
);
CREATE INDEX event_subject ON event (subject);
CREATE INDEX event_series ON event (series) WHERE series <> '';

CREATE TABLE association (
    number     INTEGER PRIMARY KEY,
    calling_ae TEXT NOT NULL,
    called_ae  TEXT NOT NULL,
    address    TEXT NOT NULL,
    opened_at  REAL NOT NULL,
    ended_at   REAL,
    ended      TEXT
);
CREATE INDEX association_open ON association (number) WHERE ended_at IS NULL;

CREATE TABLE series (
    series_uid       TEXT PRIMARY KEY,
    study_uid        TEXT NOT NULL,
    state            TEXT NOT NULL,
    revision         INTEGER NOT NULL,
    instances        INTEGER NOT NULL,
    first_at         REAL NOT NULL,
    last_at          REAL NOT NULL,
    due_at           REAL,
    reason           TEXT NOT NULL,
    patient_id       TEXT NOT NULL,
    accession_number TEXT NOT NULL,
    modality         TEXT NOT NULL,
    description      TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX series_due ON series (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX series_study ON series (study_uid);
CREATE INDEX series_patient ON series (patient_id);
CREATE INDEX series_accession ON series (accession_number);

CREATE TABLE instance (
    sop_instance_uid    TEXT PRIMARY KEY,
    sop_class_uid       TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    study_uid           TEXT NOT NULL,
    series_uid          TEXT NOT NULL,
    path                TEXT NOT NULL,
    size                INTEGER NOT NULL,
    sha256              TEXT NOT NULL,
    association         INTEGER NOT NULL,
    received_at         REAL NOT NULL,
    event               INTEGER NOT NULL  -- its body holds the header attributes
) WITHOUT ROWID;
CREATE INDEX instance_series ON instance (series_uid);
CREATE INDEX instance_path ON instance (path);

CREATE TABLE contribution (          -- which association brought what
    series_uid  TEXT NOT NULL,
    association INTEGER NOT NULL,
    instances   INTEGER NOT NULL,
    PRIMARY KEY (series_uid, association)
) WITHOUT ROWID;
CREATE INDEX contribution_association ON contribution (association);

CREATE TABLE step (
    step_id         INTEGER PRIMARY KEY,
    series_uid      TEXT NOT NULL,
    revision        INTEGER NOT NULL,
    route           TEXT NOT NULL,
    tool_id         TEXT NOT NULL,
    results         TEXT NOT NULL,   -- JSON
    destinations    TEXT NOT NULL,   -- JSON
    instance_uids   TEXT NOT NULL,   -- JSON
    state           TEXT NOT NULL,
    attempt         INTEGER NOT NULL,
    priority        INTEGER NOT NULL,
    due_at          REAL NOT NULL,
    claimed_at      REAL,
    lease_until     REAL,
    performer       TEXT,
    transaction_uid TEXT,
    reason          TEXT NOT NULL,
    created_at      REAL NOT NULL
);
CREATE INDEX step_series ON step (series_uid);
CREATE INDEX step_due ON step (priority DESC, due_at) WHERE state = 'SCHEDULED';
CREATE INDEX step_claimed ON step (performer) WHERE state = 'IN PROGRESS';

CREATE TABLE result (
    sop_instance_uid    TEXT PRIMARY KEY,
    sop_class_uid       TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    series_uid          TEXT NOT NULL,
    study_uid           TEXT NOT NULL,
    step_id             INTEGER NOT NULL,
    source_series_uid   TEXT NOT NULL,
    tool_id             TEXT NOT NULL,
    tool_version        TEXT NOT NULL,
    kind                TEXT NOT NULL,
    path                TEXT NOT NULL,
    size                INTEGER NOT NULL,
    sha256              TEXT NOT NULL,
    created_at          REAL NOT NULL,
    summary             TEXT NOT NULL   -- JSON
) WITHOUT ROWID;
CREATE INDEX result_series ON result (series_uid);
CREATE INDEX result_source ON result (source_series_uid);

CREATE TABLE delivery (
    delivery_id INTEGER PRIMARY KEY,
    result_uid  TEXT NOT NULL,
    destination TEXT NOT NULL,
    state       TEXT NOT NULL,
    attempt     INTEGER NOT NULL,
    created_at  REAL NOT NULL,
    due_at      REAL NOT NULL,
    status      INTEGER,
    reason      TEXT NOT NULL,
    sent_at     REAL,
    UNIQUE (result_uid, destination)
);
CREATE INDEX delivery_due ON delivery (due_at) WHERE state IN ('QUEUED', 'DEFERRED', 'SENDING');
