-- OCI (docs/oci.md): a repository is a container, and its blobs, manifests, tags and uploads are rows of
-- it. Digests are written as OCI does, `sha256:` or `sha512:` and hex digits.

ALTER TABLE guard ADD COLUMN complete INTEGER NOT NULL DEFAULT 1 CONSTRAINT complete CHECK (complete = 1);
--> statement-breakpoint
-- What a repository has, by the digest it was pushed with: this alone decides who may read a blob (R31).
CREATE TABLE repository_blobs (
  container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  digest TEXT NOT NULL,
  blob_id TEXT NOT NULL REFERENCES blobs (id),
  created_at INTEGER NOT NULL,
  PRIMARY KEY (container_id, digest)
);
--> statement-breakpoint
CREATE INDEX repository_blobs_digest ON repository_blobs (digest);
--> statement-breakpoint
CREATE INDEX repository_blobs_blob ON repository_blobs (blob_id);
--> statement-breakpoint
-- `annotations` (JSON) is kept for manifests with a subject only, for the list of referrers. `sif` is the hex
-- digest of the image that a manifest of a SIF holds, null for all others (docs/oci.md, "The bridge").
CREATE TABLE manifests (
  container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  digest TEXT NOT NULL,
  media_type TEXT NOT NULL,
  size INTEGER NOT NULL,
  subject TEXT,
  artifact_type TEXT NOT NULL,
  annotations TEXT,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  sif TEXT,
  PRIMARY KEY (container_id, digest)
);
--> statement-breakpoint
CREATE INDEX manifests_subject ON manifests (container_id, subject, digest) WHERE subject IS NOT NULL;
--> statement-breakpoint
CREATE INDEX manifests_sif ON manifests (container_id, sif) WHERE sif IS NOT NULL;
--> statement-breakpoint
-- The exact text of a manifest: valid JSON is valid UTF-8. In pieces, for D1 takes rows of 2 MB.
CREATE TABLE manifest_pieces (
  container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  manifest TEXT NOT NULL,
  number INTEGER NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY (container_id, manifest, number)
);
--> statement-breakpoint
-- What a manifest names of its own repository: blobs, and manifests of an index.
CREATE TABLE manifest_refs (
  container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  manifest TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('blob', 'manifest')),
  digest TEXT NOT NULL,
  PRIMARY KEY (container_id, manifest, kind, digest)
);
--> statement-breakpoint
CREATE INDEX manifest_refs_digest ON manifest_refs (container_id, digest);
--> statement-breakpoint
-- Tags of manifests. Of a SIF it is the manifest that was pushed under that name: `tags` has the images.
CREATE TABLE oci_tags (
  container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  manifest TEXT NOT NULL,
  updated_at INTEGER NOT NULL,
  frozen INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (container_id, name)
);
--> statement-breakpoint
CREATE INDEX oci_tags_manifest ON oci_tags (container_id, manifest);
--> statement-breakpoint
-- `received` bytes lie in parts under `key` and, what is less than a part, under `tail`. Whoever has the
-- claim may add to them (R47). `sha256` and `sha512` are of all that was received, where one request
-- brought it; `digest` is what a finished upload was asked for.
CREATE TABLE oci_uploads (
  id TEXT PRIMARY KEY NOT NULL,
  container_id TEXT REFERENCES containers (id) ON DELETE SET NULL,
  user_id TEXT NOT NULL,
  token_id TEXT NOT NULL,
  key TEXT NOT NULL,
  handle TEXT,
  received INTEGER NOT NULL DEFAULT 0,
  reserved INTEGER NOT NULL DEFAULT 0,
  tail TEXT,
  tail_size INTEGER NOT NULL DEFAULT 0,
  sha256 TEXT,
  sha512 TEXT,
  digest TEXT,
  state TEXT NOT NULL CHECK (state IN ('open', 'done', 'ended')),
  claim TEXT,
  lease_until INTEGER,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  closed_at INTEGER
);
--> statement-breakpoint
CREATE INDEX oci_uploads_container ON oci_uploads (container_id);
--> statement-breakpoint
CREATE INDEX oci_uploads_open ON oci_uploads (user_id, expires_at, reserved) WHERE state = 'open';
--> statement-breakpoint
CREATE INDEX oci_uploads_closed ON oci_uploads (closed_at) WHERE closed_at IS NOT NULL;
--> statement-breakpoint
CREATE TABLE oci_upload_parts (
  upload_id TEXT NOT NULL REFERENCES oci_uploads (id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  etag TEXT NOT NULL,
  PRIMARY KEY (upload_id, number)
);
--> statement-breakpoint
-- Every key an upload may have written under, committed before the first byte (R21).
CREATE TABLE oci_upload_keys (
  key TEXT PRIMARY KEY NOT NULL,
  upload_id TEXT NOT NULL REFERENCES oci_uploads (id)
);
--> statement-breakpoint
CREATE INDEX oci_upload_keys_upload ON oci_upload_keys (upload_id);
--> statement-breakpoint
-- Staged images and memberships are looked up by the SHA-256 of their bytes.
CREATE INDEX import_rows_name ON import_rows (import_id, kind, name);
--> statement-breakpoint
-- What an entity has through its repositories counts with its images: `images` of a holding is the number
-- of images and memberships of that content, whose bytes count once.
CREATE TRIGGER members_added AFTER INSERT ON repository_blobs BEGIN
  INSERT INTO holdings (entity_id, digest, size, images)
    SELECT c.entity_id, b.digest, b.size, 1 FROM containers n JOIN collections c ON c.id = n.collection_id JOIN blobs b ON b.id = NEW.blob_id WHERE n.id = NEW.container_id
    ON CONFLICT (entity_id, digest) DO UPDATE SET images = images + 1;
END;
--> statement-breakpoint
CREATE TRIGGER members_gone AFTER DELETE ON repository_blobs BEGIN
  UPDATE holdings SET images = images - 1
    WHERE digest = (SELECT digest FROM blobs WHERE id = OLD.blob_id) AND entity_id = (SELECT c.entity_id FROM containers n JOIN collections c ON c.id = n.collection_id WHERE n.id = OLD.container_id);
  DELETE FROM holdings
    WHERE images = 0 AND digest = (SELECT digest FROM blobs WHERE id = OLD.blob_id) AND entity_id = (SELECT c.entity_id FROM containers n JOIN collections c ON c.id = n.collection_id WHERE n.id = OLD.container_id);
END;
--> statement-breakpoint
-- A cascade would come after the rows that say whose the memberships are.
CREATE TRIGGER containers_going BEFORE DELETE ON containers BEGIN
  DELETE FROM repository_blobs WHERE container_id = OLD.id;
END;
--> statement-breakpoint
CREATE TRIGGER collections_going BEFORE DELETE ON collections BEGIN
  DELETE FROM repository_blobs WHERE container_id IN (SELECT id FROM containers WHERE collection_id = OLD.id);
END;
--> statement-breakpoint
CREATE TRIGGER manifests_gone AFTER DELETE ON manifests BEGIN
  DELETE FROM manifest_pieces WHERE container_id = OLD.container_id AND manifest = OLD.digest;
  DELETE FROM manifest_refs WHERE container_id = OLD.container_id AND manifest = OLD.digest;
  DELETE FROM oci_tags WHERE container_id = OLD.container_id AND manifest = OLD.digest;
END;
--> statement-breakpoint
-- Hex SHA-256 of the manifest that an image is by OCI; null for images from before this migration.
ALTER TABLE images ADD COLUMN manifest TEXT;
--> statement-breakpoint
CREATE INDEX images_manifest ON images (container_id, manifest);
--> statement-breakpoint
-- What changes a tag of the library changes what OCI finds there: a manifest pushed under it counts no more.
CREATE TRIGGER tags_set AFTER INSERT ON tags BEGIN
  DELETE FROM oci_tags WHERE container_id = NEW.container_id AND name = NEW.name;
END;
--> statement-breakpoint
CREATE TRIGGER tags_moved AFTER UPDATE OF image_id ON tags WHEN OLD.image_id <> NEW.image_id BEGIN
  DELETE FROM oci_tags WHERE container_id = NEW.container_id AND name = NEW.name;
END;
--> statement-breakpoint
CREATE TRIGGER tags_gone AFTER DELETE ON tags BEGIN
  DELETE FROM oci_tags WHERE container_id = OLD.container_id AND name = OLD.name;
END;
--> statement-breakpoint
-- An image takes along the manifests that hold it, and its membership, unless another manifest names that.
CREATE TRIGGER images_unbridged AFTER DELETE ON images BEGIN
  DELETE FROM manifests WHERE container_id = OLD.container_id AND sif = OLD.digest;
  DELETE FROM repository_blobs
    WHERE container_id = OLD.container_id AND digest = 'sha256:' || OLD.digest AND NOT EXISTS (SELECT 1 FROM manifest_refs r WHERE r.container_id = OLD.container_id AND r.digest = 'sha256:' || OLD.digest AND r.kind = 'blob');
END;
