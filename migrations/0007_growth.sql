-- What large registries need beside (bench/README.md, "Growth").

-- The catalog of repositories goes by their whole names, among which those in `a-b/` come before those
-- in `a/`.
CREATE INDEX entities_path ON entities (name || '/');
--> statement-breakpoint
-- The sweep forgets links that are over.
CREATE INDEX shares_expires ON shares (expires_at);
--> statement-breakpoint
CREATE INDEX shares_revoked ON shares (revoked_at) WHERE revoked_at IS NOT NULL;
