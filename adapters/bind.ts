/** Binds the database and the blob store of a registry to each other (R10). */
import { isRegistryError, RegistryError } from '../src/errors.ts'
import type { BlobStore, Database, Ids, Log } from '../src/ports.ts'

/**
 * The id that database and blob store share (R10). A side that holds nothing yet is bound to the
 * other; when both hold something and disagree, the registry serves (Workers, or a folder whose database is new),
 * but /readyz fails and nothing is swept: every blob would look like an orphan.
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

/**
 * The same for a data folder whose blobs are on a disk. Where its database knows which blobs it has, and the
 * folder has not its id, a disk is not mounted or another one is: `invalid`, for what is pushed now would lie on the
 * wrong one, and what is asked for would be taken for lost.
 */
export async function bindFolder(
  database: Database,
  blobs: BlobStore,
  { ids, log, folder }: { ids: Ids; log: Log; folder: string },
): Promise<string> {
  const [known, stored] = [await database.settings.get('registry_id'), await blobs.readId()]
  const another = known !== null && stored !== null && stored !== known
  if (another || (stored === null && (await database.blobs.liveCount()) > 0))
    throw new RegistryError(
      'invalid',
      `The blobs of this registry are not in ${folder}, which ${another ? 'belongs to another one' : 'has no registry-id'}. Is their disk mounted? Mount it, or put them there from a backup, and start again. If they are lost for good, write ${known} into ${folder}/registry-id: then each push makes its image whole again.`,
    )
  return bind(database, blobs, ids, log)
}

/**
 * The registry id that database and bucket share. An empty bucket is bound to the database; the
 * database comes first, so that a crash between the two leaves nothing that another one could claim.
 * Anything else that does not agree is `invalid`: a second server with a database of its own would
 * take the images of the first for rubbish, so it must not start.
 */
export async function bindBucket(
  database: Pick<Database, 'settings' | 'blobs'>,
  blobs: BlobStore,
  ids: Ids,
): Promise<string> {
  const known = await database.settings.get('registry_id')
  const stored = await blobs.readId()
  if (stored !== null && stored !== known) throw otherBucket(known === null)
  if (stored === null) {
    if ((await blobs.list(null, 1)).blobs.length > 0)
      throw new RegistryError(
        'invalid',
        'The bucket holds images but not the id of the registry they belong to; choose an empty bucket or another SREG_S3_PREFIX, and bring images there with export and import.',
      )
    if ((await database.blobs.liveCount()) > 0)
      throw new RegistryError(
        'invalid',
        'The images of this registry are kept elsewhere, and the bucket is empty; export them from where they are and import them into a registry that starts with this bucket.',
      )
  }
  const id = await database.settings.setOnce('registry_id', known ?? ids.next())
  if (stored === null)
    await blobs.writeId(id).catch((error: unknown) => {
      throw isRegistryError(error, 'conflict') ? otherBucket(known === null) : error
    })
  return id
}

const otherBucket = (fresh: boolean) =>
  new RegistryError(
    'invalid',
    `The bucket belongs to another registry${fresh ? ' than this one, whose database is new' : ''}. Start that one with its own data folder, or choose another bucket or SREG_S3_PREFIX and move the images with export and import. Several servers on one bucket need one database between them.`,
  )
