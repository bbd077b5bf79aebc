-- The registry's first schema. Plain SQL, no BEGIN, no PRAGMA: the same file is run by
-- adapters/databases/migrate.ts on Node, Bun and Deno and by `wrangler d1 migrations apply`.
-- src/sqlite/schema.ts is its twin in drizzle's words; test/databases/schema.test.ts compares them.
-- Times are integers (ms since 1970), booleans 0/1, ids 24 hex digits.

CREATE TABLE settings (
  key TEXT PRIMARY KEY NOT NULL,
  value TEXT NOT NULL
);
--> statement-breakpoint
CREATE TABLE users (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL UNIQUE,
  role TEXT NOT NULL CHECK (role IN ('admin', 'user')),
  disabled INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL
);
--> statement-breakpoint
CREATE TABLE tokens (
  id TEXT PRIMARY KEY NOT NULL,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  scopes TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  revoked_at INTEGER,
  last_used_at INTEGER
);
--> statement-breakpoint
CREATE INDEX tokens_user ON tokens (user_id, created_at);
--> statement-breakpoint
CREATE TABLE entities (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL UNIQUE,
  description TEXT NOT NULL,
  owner_id TEXT NOT NULL REFERENCES users (id),
  default_private INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
);
--> statement-breakpoint
CREATE INDEX entities_owner ON entities (owner_id);
--> statement-breakpoint
CREATE TABLE collections (
  id TEXT PRIMARY KEY NOT NULL,
  entity_id TEXT NOT NULL REFERENCES entities (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  private INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (entity_id, name)
);
--> statement-breakpoint
CREATE INDEX collections_name ON collections (name);
--> statement-breakpoint
CREATE TABLE containers (
  id TEXT PRIMARY KEY NOT NULL,
  collection_id TEXT NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  full_description TEXT NOT NULL,
  private INTEGER NOT NULL,
  size INTEGER NOT NULL DEFAULT 0,
  downloads INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (collection_id, name)
);
--> statement-breakpoint
-- `key` is never renamed, never reused and never derived from content (decision 0003). A digest has
-- at most one live blob; dying never returns to live (R9); lost ones wait to be healed (R60).
CREATE TABLE blobs (
  id TEXT PRIMARY KEY NOT NULL,
  key TEXT NOT NULL UNIQUE,
  digest TEXT NOT NULL,
  size INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('live', 'dying', 'lost')),
  created_at INTEGER NOT NULL,
  dying_at INTEGER
);
--> statement-breakpoint
CREATE UNIQUE INDEX blobs_live_digest ON blobs (digest) WHERE state = 'live';
--> statement-breakpoint
CREATE INDEX blobs_ending ON blobs (state, dying_at) WHERE state <> 'live';
--> statement-breakpoint
-- `seq` is the rowid that the search index refers to; AUTOINCREMENT, so it is never reused (R38).
CREATE TABLE images (
  seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  id TEXT NOT NULL UNIQUE,
  container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  digest TEXT NOT NULL,
  description TEXT NOT NULL,
  blob_id TEXT REFERENCES blobs (id),
  size INTEGER NOT NULL DEFAULT 0,
  arch TEXT NOT NULL DEFAULT 'unknown',
  signed INTEGER NOT NULL DEFAULT 0,
  encrypted INTEGER NOT NULL DEFAULT 0,
  fingerprints TEXT NOT NULL DEFAULT '[]',
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (container_id, digest)
);
--> statement-breakpoint
CREATE INDEX images_digest ON images (digest);
--> statement-breakpoint
CREATE INDEX images_blob ON images (blob_id);
--> statement-breakpoint
CREATE TABLE image_details (
  image_id TEXT PRIMARY KEY NOT NULL REFERENCES images (id) ON DELETE CASCADE,
  definition TEXT,
  labels TEXT NOT NULL,
  partitions TEXT NOT NULL,
  truncated TEXT NOT NULL
);
--> statement-breakpoint
CREATE TABLE tags (
  container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  arch TEXT NOT NULL,
  image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (container_id, name, arch)
);
--> statement-breakpoint
CREATE INDEX tags_image ON tags (image_id);
--> statement-breakpoint
-- The row with its blob key is committed before the first byte (R21); deleting an image never
-- forgets a key (R9).
CREATE TABLE uploads (
  id TEXT PRIMARY KEY NOT NULL,
  image_id TEXT REFERENCES images (id) ON DELETE SET NULL,
  user_id TEXT NOT NULL,
  token_id TEXT NOT NULL,
  blob_key TEXT NOT NULL UNIQUE,
  handle TEXT,
  size INTEGER NOT NULL,
  part_size INTEGER NOT NULL,
  digest TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('open', 'finishing', 'done', 'failed', 'aborted', 'expired')),
  claim TEXT,
  lease_until INTEGER,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  closed_at INTEGER
);
--> statement-breakpoint
CREATE INDEX uploads_image ON uploads (image_id, created_at);
--> statement-breakpoint
CREATE INDEX uploads_running ON uploads (state, user_id, size) WHERE state IN ('open', 'finishing');
--> statement-breakpoint
CREATE INDEX uploads_closed ON uploads (closed_at) WHERE closed_at IS NOT NULL;
--> statement-breakpoint
-- Ids whose tickets end before their time: revoked tokens, disabled users, deleted or hidden images (R25).
CREATE TABLE ended (
  id TEXT PRIMARY KEY NOT NULL,
  at INTEGER NOT NULL
);
--> statement-breakpoint
CREATE INDEX ended_at ON ended (at);
--> statement-breakpoint
-- R6: a batch with preconditions inserts them here first; a false one raises and undoes the batch.
-- `note` carries a value from one statement of a batch to a later one.
CREATE TABLE guard (
  may_write INTEGER NOT NULL DEFAULT 1,
  found INTEGER NOT NULL DEFAULT 1,
  claimed INTEGER NOT NULL DEFAULT 1,
  readable INTEGER NOT NULL DEFAULT 1,
  arch_agrees INTEGER NOT NULL DEFAULT 1,
  few_uploads INTEGER NOT NULL DEFAULT 1,
  space_left INTEGER NOT NULL DEFAULT 1,
  first INTEGER NOT NULL DEFAULT 1,
  note TEXT,
  CONSTRAINT may_write CHECK (may_write = 1),
  CONSTRAINT found CHECK (found = 1),
  CONSTRAINT claimed CHECK (claimed = 1),
  CONSTRAINT readable CHECK (readable = 1),
  CONSTRAINT arch_agrees CHECK (arch_agrees = 1),
  CONSTRAINT few_uploads CHECK (few_uploads = 1),
  CONSTRAINT space_left CHECK (space_left = 1),
  CONSTRAINT first CHECK (first = 1)
);
--> statement-breakpoint
-- Substring search without case over what the viewer may see: `scope` holds `pub` for a public
-- image and `own` + the owner's id, so that visibility is a condition inside the index (R30).
CREATE VIRTUAL TABLE search USING fts5 (scope, names, tags, description, labels, tokenize = 'trigram');
