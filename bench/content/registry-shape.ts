/** What is in the database for one image, without what differs from image to image. */
import { connect } from '../../adapters/databases/better-sqlite3.ts'
import { EMPTY_DIGEST } from '../../src/core/derived.ts'

/** Every table that has something of an image, as a query by `@image`, its id. */
const OF_IMAGE: Record<string, string> = {
  images:
    'SELECT container_id, digest, description, blob_id, size, arch, signed, encrypted, fingerprints, created_by, created_at, updated_at, manifest FROM images i WHERE i.id = @image',
  blobs: 'SELECT b.* FROM blobs b JOIN images i ON i.blob_id = b.id WHERE i.id = @image',
  // the words of a definition and the names of labels are anybody's
  details:
    "SELECT definition IS NULL, json_type(labels), (SELECT group_concat(DISTINCT key || ' ' || type) FROM json_tree(partitions) WHERE typeof(key) = 'text'), truncated FROM image_details WHERE image_id = @image",
  tags: "SELECT container_id, arch, image_id, updated_at, frozen FROM tags WHERE image_id = @image AND name <> 'latest'",
  holdings: 'SELECT h.* FROM holdings h JOIN images i ON i.digest = h.digest WHERE i.id = @image',
  search:
    "SELECT scope, length(names) - length(replace(names, '/', '')), tags IS NULL, s.description, labels IS NULL FROM search s JOIN images i ON i.seq = s.rowid WHERE i.id = @image",
  // a blob's row may be somebody else's: bytes that were there already
  audit:
    "SELECT actor_id, token_id, action, object, outcome, replace(replace(detail, i.digest, 'D'), i.size, 'S'), count FROM audit a, images i WHERE i.id = @image AND (a.object = 'image ' || i.id OR (a.object = 'container ' || i.container_id AND (a.detail LIKE '%' || i.manifest || '%' OR a.name LIKE '%' || i.manifest OR a.name LIKE '%' || i.digest OR a.name LIKE '%44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a'))) ORDER BY action, a.detail LIKE '2 bytes%'",
  manifests:
    'SELECT m.container_id, m.digest, media_type, m.size, subject, artifact_type, annotations, m.created_by, m.created_at, sif FROM manifests m JOIN images i ON i.container_id = m.container_id AND i.digest = m.sif WHERE i.id = @image',
  pieces:
    "SELECT number, replace(p.text, i.digest, 'D') <> p.text FROM manifest_pieces p JOIN images i ON i.container_id = p.container_id AND p.manifest = 'sha256:' || i.manifest WHERE i.id = @image",
  refs: "SELECT kind, r.digest FROM manifest_refs r JOIN images i ON i.container_id = r.container_id AND r.manifest = 'sha256:' || i.manifest WHERE i.id = @image ORDER BY r.digest = @empty",
  members:
    "SELECT m.digest, b.state FROM repository_blobs m JOIN images i ON i.container_id = m.container_id JOIN blobs b ON b.id = m.blob_id WHERE i.id = @image AND m.digest IN ('sha256:' || i.digest, @empty) ORDER BY m.digest = @empty",
  ociTags:
    "SELECT DISTINCT frozen FROM oci_tags g JOIN images i ON i.container_id = g.container_id AND g.manifest = 'sha256:' || i.manifest WHERE i.id = @image",
}

/** One value without ids, digests and numbers. */
const masked = (value: unknown): unknown =>
  typeof value === 'number' && value > 1
    ? 'number'
    : typeof value === 'string' && value !== EMPTY_DIGEST
      ? value
          .replaceAll(/[0-9a-f]{64}/g, 'DIGEST')
          .replaceAll(/[0-9a-f]{24}/g, 'ID')
          .replaceAll(/\d{3,}/g, 'NUMBER')
      : value

/** Rows by table, as they would be of any other image that was pushed in the same way. */
export function shapeOf(file: string, image: string): Record<string, unknown[][]> {
  const connection = connect(file, { create: false })
  try {
    return Object.fromEntries(
      Object.entries(OF_IMAGE).map(([table, query]) => {
        const values: string[] = []
        const text = query.replaceAll(/@(image|empty)/g, (_, name: string) => {
          values.push(name === 'image' ? image : EMPTY_DIGEST)
          return '?'
        })
        return [
          table,
          connection
            .prepare(text)(values)
            .map((row) => row.map(masked)),
        ]
      }),
    )
  } finally {
    connection.close()
  }
}
