-- Where a job waits in its host's queue (1 starts next), and what was asked of that queue. The host decides: a
-- request that is 'asked' is delivered when the link is there, and is then 'taken' or 'refused' with its reason.
ALTER TABLE jobs ADD COLUMN position INTEGER;

CREATE TABLE queue_requests (
  id          INTEGER PRIMARY KEY,
  job_id      TEXT NOT NULL REFERENCES jobs (id),
  position    INTEGER NOT NULL CHECK (position >= 1),
  state       TEXT NOT NULL DEFAULT 'asked' CHECK (state IN ('asked', 'taken', 'refused')),
  reason      TEXT,
  asked_at    REAL NOT NULL,
  answered_at REAL
);
CREATE INDEX queue_requests_by_job ON queue_requests (job_id);
