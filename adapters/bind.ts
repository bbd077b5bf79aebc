/** Binds the database and the blob store of a registry to each other (R10). */
import type { BlobStore, Database, Ids, Log } from '../src/ports.ts'

/**
 * The id that database and blob store share (R10). A side that holds nothing yet is bound to the
 * other; when both hold something and disagree, the registry serves, but /readyz fails and nothing
 * is swept: every blob would look like an orphan.
 */
export async function bind(
  database: Database,
  blobs: BlobStore,
  ids: Ids,
  log: Log,
): Promise<string> {
  const [known, stored] = [await database.settings.get('registry_id'), await blobs.readId()]
  if (known !== null && known === stored) return known
  const empty = (await blobs.list(null, 1)).blobs.length === 0
  // The database decides, so that several that begin at once agree on an id.
  const registryId = await database.settings.setOnce(
    'registry_id',
    known ?? (stored !== null && empty ? stored : ids.next()),
  )
  if (stored === null && empty && (await database.blobs.liveCount()) === 0)
    await blobs.writeId(registryId)
  if ((await blobs.readId()) !== registryId)
    log.event('error', 'registry.mismatch', {
      note: 'the database and the blob store do not belong together; nothing will be swept, /readyz fails',
    })
  return registryId
}
