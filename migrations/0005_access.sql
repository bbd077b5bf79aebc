-- Who may do what, how much and for how long: roles, teams, grants, bindings of tokens, frozen names,
-- quotas, counters, share links and the audit log (docs/access.md).

-- `staff` and `manager_id` (of a robot: the user who manages it) stand beside `role`, whose check SQLite
-- cannot change without rebuilding a table that others refer to. `subject` is issuer|sub of an identity
-- that another issuer vouches for (R35). A deleted user's row stays and keeps the name (R38).
ALTER TABLE users ADD COLUMN staff INTEGER NOT NULL DEFAULT 0;
--> statement-breakpoint
ALTER TABLE users ADD COLUMN manager_id TEXT REFERENCES users (id) ON DELETE SET NULL;
--> statement-breakpoint
ALTER TABLE users ADD COLUMN robot INTEGER NOT NULL DEFAULT 0;
--> statement-breakpoint
ALTER TABLE users ADD COLUMN subject TEXT;
--> statement-breakpoint
ALTER TABLE users ADD COLUMN deleted_at INTEGER;
--> statement-breakpoint
CREATE INDEX users_manager ON users (manager_id) WHERE manager_id IS NOT NULL;
--> statement-breakpoint
-- What a token is bound to; empty is nothing. A token that is bound to a container names its collection
-- too. Ids are never used again (R38), so a binding outlives what it names without harm.
ALTER TABLE tokens ADD COLUMN collection_id TEXT NOT NULL DEFAULT '';
--> statement-breakpoint
ALTER TABLE tokens ADD COLUMN container_id TEXT NOT NULL DEFAULT '';
--> statement-breakpoint
-- `quota` is null for the registry's default and 0 for none; `used` is the sum of the distinct digests
-- in `holdings`, kept by the triggers below, which no way of storing or deleting an image can forget.
ALTER TABLE entities ADD COLUMN quota INTEGER;
--> statement-breakpoint
ALTER TABLE entities ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
--> statement-breakpoint
ALTER TABLE containers ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0;
--> statement-breakpoint
ALTER TABLE containers ADD COLUMN stars INTEGER NOT NULL DEFAULT 0;
--> statement-breakpoint
ALTER TABLE tags ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0;
--> statement-breakpoint
ALTER TABLE guard ADD COLUMN thawed INTEGER NOT NULL DEFAULT 1 CONSTRAINT thawed CHECK (thawed = 1);
--> statement-breakpoint
ALTER TABLE guard ADD COLUMN keeps_owner INTEGER NOT NULL DEFAULT 1 CONSTRAINT keeps_owner CHECK (keeps_owner = 1);
--> statement-breakpoint
ALTER TABLE guard ADD COLUMN within_quota INTEGER NOT NULL DEFAULT 1 CONSTRAINT within_quota CHECK (within_quota = 1);
--> statement-breakpoint
ALTER TABLE guard ADD COLUMN within_limit INTEGER NOT NULL DEFAULT 1 CONSTRAINT within_limit CHECK (within_limit = 1);
--> statement-breakpoint
ALTER TABLE guard ADD COLUMN admin_left INTEGER NOT NULL DEFAULT 1 CONSTRAINT admin_left CHECK (admin_left = 1);
--> statement-breakpoint
CREATE TABLE teams (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL UNIQUE,
  description TEXT NOT NULL,
  open INTEGER NOT NULL,
  created_at INTEGER NOT NULL
);
--> statement-breakpoint
CREATE TABLE team_members (
  team_id TEXT NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  owner INTEGER NOT NULL,
  joined_at INTEGER NOT NULL,
  PRIMARY KEY (team_id, user_id)
);
--> statement-breakpoint
CREATE INDEX team_members_user ON team_members (user_id, team_id);
--> statement-breakpoint
-- An invitation works once; `hash` is the SHA-256 of its secret. Nobody has made those of the command
-- line; the others end when who made them owns the team no longer.
CREATE TABLE invitations (
  id TEXT PRIMARY KEY NOT NULL,
  team_id TEXT NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
  hash TEXT NOT NULL UNIQUE,
  created_by TEXT REFERENCES users (id) ON DELETE CASCADE,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  accepted_by TEXT REFERENCES users (id) ON DELETE SET NULL,
  accepted_at INTEGER
);
--> statement-breakpoint
CREATE INDEX invitations_team ON invitations (team_id);
--> statement-breakpoint
-- What a user or a team may do in a collection: 1 read, 2 contribute, 3 own. The owner of the entity
-- owns all of it without a row.
CREATE TABLE grants (
  id TEXT PRIMARY KEY NOT NULL,
  collection_id TEXT NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
  user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
  team_id TEXT REFERENCES teams (id) ON DELETE CASCADE,
  level INTEGER NOT NULL CHECK (level IN (1, 2, 3)),
  created_at INTEGER NOT NULL,
  CHECK ((user_id IS NULL) <> (team_id IS NULL))
);
--> statement-breakpoint
CREATE UNIQUE INDEX grants_user ON grants (collection_id, user_id);
--> statement-breakpoint
CREATE UNIQUE INDEX grants_team ON grants (collection_id, team_id);
--> statement-breakpoint
CREATE INDEX grants_of_user ON grants (user_id, collection_id);
--> statement-breakpoint
CREATE INDEX grants_of_team ON grants (team_id, collection_id);
--> statement-breakpoint
-- Which digests an entity has through its images: equal content counts once.
CREATE TABLE holdings (
  entity_id TEXT NOT NULL REFERENCES entities (id) ON DELETE CASCADE,
  digest TEXT NOT NULL,
  size INTEGER NOT NULL,
  images INTEGER NOT NULL,
  PRIMARY KEY (entity_id, digest)
);
--> statement-breakpoint
INSERT INTO holdings (entity_id, digest, size, images)
  SELECT c.entity_id, i.digest, max(i.size), count(*) FROM images i JOIN containers n ON n.id = i.container_id JOIN collections c ON c.id = n.collection_id WHERE i.blob_id IS NOT NULL GROUP BY 1, 2;
--> statement-breakpoint
UPDATE entities SET used = (SELECT coalesce(sum(size), 0) FROM holdings WHERE entity_id = entities.id);
--> statement-breakpoint
CREATE TRIGGER holdings_added AFTER INSERT ON holdings BEGIN
  UPDATE entities SET used = used + NEW.size WHERE id = NEW.entity_id;
END;
--> statement-breakpoint
CREATE TRIGGER holdings_gone AFTER DELETE ON holdings BEGIN
  UPDATE entities SET used = used - OLD.size WHERE id = OLD.entity_id;
END;
--> statement-breakpoint
CREATE TRIGGER images_stored AFTER INSERT ON images WHEN NEW.blob_id IS NOT NULL BEGIN
  INSERT INTO holdings (entity_id, digest, size, images)
    SELECT c.entity_id, NEW.digest, NEW.size, 1 FROM containers n JOIN collections c ON c.id = n.collection_id WHERE n.id = NEW.container_id
    ON CONFLICT (entity_id, digest) DO UPDATE SET images = images + 1;
END;
--> statement-breakpoint
CREATE TRIGGER images_attached AFTER UPDATE OF blob_id ON images WHEN OLD.blob_id IS NULL AND NEW.blob_id IS NOT NULL BEGIN
  INSERT INTO holdings (entity_id, digest, size, images)
    SELECT c.entity_id, NEW.digest, NEW.size, 1 FROM containers n JOIN collections c ON c.id = n.collection_id WHERE n.id = NEW.container_id
    ON CONFLICT (entity_id, digest) DO UPDATE SET images = images + 1;
END;
--> statement-breakpoint
-- Whoever deletes a container deletes its images first: a cascade comes here after the container's row
-- has gone, and would not find its entity.
CREATE TRIGGER images_gone AFTER DELETE ON images WHEN OLD.blob_id IS NOT NULL BEGIN
  UPDATE holdings SET images = images - 1
    WHERE digest = OLD.digest AND entity_id = (SELECT c.entity_id FROM containers n JOIN collections c ON c.id = n.collection_id WHERE n.id = OLD.container_id);
  DELETE FROM holdings
    WHERE images = 0 AND digest = OLD.digest AND entity_id = (SELECT c.entity_id FROM containers n JOIN collections c ON c.id = n.collection_id WHERE n.id = OLD.container_id);
END;
--> statement-breakpoint
-- Limits of days and weeks, and what is counted for statistics: `period` is the first moment of the window.
CREATE TABLE counters (
  name TEXT NOT NULL,
  period INTEGER NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (name, period)
);
--> statement-breakpoint
CREATE INDEX counters_period ON counters (period);
--> statement-breakpoint
CREATE TABLE stars (
  container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (container_id, user_id)
);
--> statement-breakpoint
CREATE INDEX stars_user ON stars (user_id);
--> statement-breakpoint
CREATE TRIGGER stars_given AFTER INSERT ON stars BEGIN
  UPDATE containers SET stars = stars + 1 WHERE id = NEW.container_id;
END;
--> statement-breakpoint
CREATE TRIGGER stars_taken AFTER DELETE ON stars BEGIN
  UPDATE containers SET stars = stars - 1 WHERE id = OLD.container_id;
END;
--> statement-breakpoint
-- R61: `hash` is the SHA-256 of the link's secret, `left_count` null is as often as anybody likes.
CREATE TABLE shares (
  id TEXT PRIMARY KEY NOT NULL,
  image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
  hash TEXT NOT NULL UNIQUE,
  note TEXT NOT NULL,
  created_by TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  left_count INTEGER,
  used INTEGER NOT NULL DEFAULT 0,
  revoked_at INTEGER
);
--> statement-breakpoint
CREATE INDEX shares_image ON shares (image_id);
--> statement-breakpoint
CREATE INDEX shares_creator ON shares (created_by);
--> statement-breakpoint
-- Who did what to which object from where. Rows are only ever added, and forgotten by age and number
-- (R57). Names are those of that time.
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  at INTEGER NOT NULL,
  actor_id TEXT NOT NULL,
  actor TEXT NOT NULL,
  token_id TEXT NOT NULL,
  address TEXT NOT NULL,
  action TEXT NOT NULL,
  object TEXT NOT NULL,
  name TEXT NOT NULL,
  outcome TEXT NOT NULL,
  detail TEXT NOT NULL,
  count INTEGER NOT NULL DEFAULT 1
);
--> statement-breakpoint
CREATE INDEX audit_at ON audit (at);
--> statement-breakpoint
CREATE INDEX audit_actor ON audit (actor, at);
--> statement-breakpoint
-- Denials are one row a minute, address, action and user.
CREATE UNIQUE INDEX audit_denials ON audit (at, address, action, actor_id) WHERE outcome = 'denied';
--> statement-breakpoint
-- `col` and the id of the collection join what search may look through: whoever was granted something
-- there looks for that (R30).
DELETE FROM search;
--> statement-breakpoint
INSERT INTO search (rowid, scope, names, tags, description, labels)
  SELECT i.seq, CASE WHEN c.private = 0 AND n.private = 0 THEN 'pub ' ELSE '' END || 'own' || e.owner_id || ' col' || c.id, e.name || '/' || c.name || '/' || n.name,
    (SELECT group_concat(g.name, char(10)) FROM tags g WHERE g.image_id = i.id), i.description,
    (SELECT group_concat(l.value, char(10)) FROM image_details d, json_each(d.labels) l WHERE d.image_id = i.id)
  FROM images i JOIN containers n ON n.id = i.container_id JOIN collections c ON c.id = n.collection_id JOIN entities e ON e.id = c.entity_id
  WHERE i.blob_id IS NOT NULL;
