-- What leads to a Series: not only the header of its first instance, and what was kept apart.

CREATE TABLE identifier (            -- of an instance, where it is not that of the first
    text       TEXT NOT NULL,        -- Study Instance UID, Patient ID or Accession Number
    series_uid TEXT NOT NULL,
    PRIMARY KEY (text, series_uid)
) WITHOUT ROWID;

INSERT OR IGNORE INTO identifier
SELECT said.text, said.series_uid FROM (
    SELECT study_uid AS text, series_uid FROM instance
    UNION SELECT json_extract(body, '$.instance.attributes.PatientID'), series_uid
    FROM instance JOIN event ON number = event
    UNION SELECT json_extract(body, '$.instance.attributes.AccessionNumber'), series_uid
    FROM instance JOIN event ON number = event
) AS said JOIN series USING (series_uid)
WHERE said.text <> '' AND said.text NOT IN (study_uid, patient_id, accession_number);

-- What the header of the object itself says.
ALTER TABLE conflict ADD COLUMN own_series_uid TEXT NOT NULL DEFAULT '';
ALTER TABLE conflict ADD COLUMN own_study_uid TEXT NOT NULL DEFAULT '';
ALTER TABLE conflict ADD COLUMN patient_id TEXT NOT NULL DEFAULT '';
ALTER TABLE conflict ADD COLUMN accession_number TEXT NOT NULL DEFAULT '';

UPDATE conflict SET (own_series_uid, own_study_uid, patient_id, accession_number) = (
    SELECT event.series,
        coalesce(json_extract(body, '$.instance.study_uid'), ''),
        coalesce(json_extract(body, '$.instance.attributes.PatientID'), ''),
        coalesce(json_extract(body, '$.instance.attributes.AccessionNumber'), '')
    FROM event WHERE subject = conflict.sop_instance_uid AND kind = 'InstanceArrived'
    AND json_extract(body, '$.instance.sha256') = conflict.sha256 ORDER BY number LIMIT 1
) WHERE EXISTS (
    SELECT 1 FROM event WHERE subject = conflict.sop_instance_uid AND kind = 'InstanceArrived'
    AND json_extract(body, '$.instance.sha256') = conflict.sha256
);

CREATE INDEX conflict_own_series ON conflict (own_series_uid);
CREATE INDEX conflict_own_study ON conflict (own_study_uid);
CREATE INDEX conflict_patient ON conflict (patient_id);
CREATE INDEX conflict_accession ON conflict (accession_number);
