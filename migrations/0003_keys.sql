-- The keystore: OpenPGP public keys and what they are found by. `facts` is what their packets say, as
-- JSON (KeyFacts without the armor), and stands before the armor, so that lists need not read that.
-- `revision` counts changes: a merge is written only over what it was made of. `removed_at` hides a
-- key that its owner removed; its packets stay, so that a revocation is never lost (R46).

CREATE TABLE keys (
  seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  fingerprint TEXT NOT NULL UNIQUE,
  revision INTEGER NOT NULL,
  owner_id TEXT REFERENCES users (id) ON DELETE SET NULL,
  added_by TEXT,
  added_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  removed_at INTEGER,
  facts TEXT NOT NULL,
  armor TEXT NOT NULL
);
--> statement-breakpoint
CREATE INDEX keys_owner ON keys (owner_id, seq);
--> statement-breakpoint
-- What a key is found by exactly: upper-case hex digits of it (rank 0), of its subkeys that sign (1)
-- and of the others (2), which bind themselves to no key; e-mail addresses in lower case (0).
CREATE TABLE key_names (
  name TEXT NOT NULL,
  rank INTEGER NOT NULL,
  key_seq INTEGER NOT NULL REFERENCES keys (seq) ON DELETE CASCADE,
  PRIMARY KEY (name, rank, key_seq)
);
--> statement-breakpoint
CREATE INDEX key_names_key ON key_names (key_seq);
--> statement-breakpoint
-- Substring search in user ids; `rowid` is `keys.seq`.
CREATE VIRTUAL TABLE search_keys USING fts5 (user_ids, tokenize = 'trigram');
