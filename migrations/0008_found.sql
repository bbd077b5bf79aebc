-- What a search finds is a thousand images at once (bench/README.md, "Growth").

-- Which images have lost their bytes is a small question, if it need not be asked of every blob.
CREATE UNIQUE INDEX blobs_gone ON blobs (id) WHERE state <> 'live';
--> statement-breakpoint
-- With the names of the tags in it, nobody looks into the table.
DROP INDEX tags_image;
--> statement-breakpoint
CREATE INDEX tags_image ON tags (image_id, name);
