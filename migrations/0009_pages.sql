-- Pages of the full-text index of 1,000 bytes instead of 4,050, from the next merge on: who looks for what
-- several words have in common jumps from page to page, and reads each to where it wants to be.
INSERT INTO search (search, rank) VALUES ('pgsz', 1000);
