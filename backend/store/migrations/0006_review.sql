-- What people were told to decide by, each version once, by the hash of its text.
CREATE TABLE guidelines (
  hash          TEXT PRIMARY KEY,
  text          TEXT NOT NULL,
  first_used_at REAL NOT NULL
);
ALTER TABLE decisions ADD COLUMN guidelines TEXT REFERENCES guidelines (hash);

-- Decisions about everything that a filter showed: the range of rows in `decisions` that one step takes back.
CREATE TABLE bulks (
  id             INTEGER PRIMARY KEY,
  policy         TEXT NOT NULL,
  kind           TEXT NOT NULL CHECK (kind IN ('approve', 'reject')),
  reason         TEXT,
  filter         TEXT NOT NULL,
  count          INTEGER NOT NULL,
  first_decision INTEGER NOT NULL,
  last_decision  INTEGER NOT NULL,
  at             REAL NOT NULL,
  undone_at      REAL
);
