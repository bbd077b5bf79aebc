-- What an import has brought so far, invisible until one batch makes all of it the registry's own
-- (R42). No other table knows of it, so requests pay nothing for it.

CREATE TABLE imports (
  id TEXT PRIMARY KEY NOT NULL,
  export_id TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('open', 'done', 'aborted')),
  sha256 TEXT,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  closed_at INTEGER
);
--> statement-breakpoint
CREATE INDEX imports_export ON imports (export_id);
--> statement-breakpoint
-- `id` is the row's own, `parent_id` that of the row it belongs to; both are of the source registry.
CREATE TABLE import_rows (
  seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  import_id TEXT NOT NULL REFERENCES imports (id) ON DELETE CASCADE,
  kind TEXT NOT NULL,
  id TEXT NOT NULL,
  parent_id TEXT NOT NULL,
  name TEXT NOT NULL,
  record TEXT NOT NULL,
  UNIQUE (import_id, kind, id)
);
--> statement-breakpoint
-- The row with its key is committed before the first byte (R21). `key` is null where the registry
-- holds the bytes already; `facts` is null until the bytes are verified and inspected.
CREATE TABLE import_blobs (
  import_id TEXT NOT NULL REFERENCES imports (id),
  digest TEXT NOT NULL,
  size INTEGER NOT NULL,
  blob_id TEXT NOT NULL,
  key TEXT UNIQUE,
  handle TEXT,
  facts TEXT,
  PRIMARY KEY (import_id, digest)
);
