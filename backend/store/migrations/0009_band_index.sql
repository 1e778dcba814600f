-- The bands of near duplicates as tokens of a full-text index: it appends and merges, where a table keyed by band
-- wrote 32 pages anywhere for each sample, and a campaign of 100,000 slowed to a fifth.
CREATE VIRTUAL TABLE band_index USING fts5
  (keys, content = '', columnsize = 0, detail = 'none', tokenize = 'ascii');
INSERT INTO band_index (rowid, keys)
  SELECT sample_id, group_concat(printf('%016x', band), ' ') FROM bands
  WHERE sample_id IN (SELECT sample_id FROM signatures) GROUP BY sample_id;
DROP TABLE bands;
