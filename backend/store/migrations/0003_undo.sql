-- Undo asks for each decision whether a row takes it back: without these, a scan of the whole log each time.
CREATE INDEX decisions_by_undone ON decisions (undoes) WHERE undoes IS NOT NULL;
CREATE INDEX pair_decisions_by_pair ON pair_decisions (pair_id, id);
CREATE INDEX pair_decisions_by_undone ON pair_decisions (undoes) WHERE undoes IS NOT NULL;
CREATE INDEX pair_decisions_by_reviewer ON pair_decisions (reviewer, id);
