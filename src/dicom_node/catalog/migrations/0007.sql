-- What the audit trail asks when an association has ended: what did it bring?

DROP INDEX instance_series;
CREATE INDEX instance_series ON instance (series_uid, association, sop_class_uid);

CREATE TABLE apart (                 -- which association brought what was kept apart
    association   INTEGER NOT NULL,
    study_uid     TEXT NOT NULL,     -- as the header of the object itself says
    patient_id    TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    instances     INTEGER NOT NULL,
    event         INTEGER NOT NULL,  -- the first; its body holds the header attributes
    PRIMARY KEY (association, study_uid, patient_id, sop_class_uid)
) WITHOUT ROWID;

INSERT INTO apart
SELECT json_extract(body, '$.instance.association'),
    json_extract(body, '$.instance.study_uid'),
    coalesce(json_extract(body, '$.instance.attributes.PatientID'), ''),
    json_extract(body, '$.instance.sop_class_uid'), count(*), min(number)
FROM conflict JOIN event ON subject = sop_instance_uid AND kind = 'InstanceArrived'
AND json_extract(body, '$.instance.sha256') = sha256
GROUP BY 1, 2, 3, 4;
