/** A repository, which is a container: what manifests and uploads of it have in common. */
import { sql, type SQL } from 'drizzle-orm'
import { RegistryError } from '../errors.ts'
import { audited, isLost, nameOfContainer, p } from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import * as t from './schema.ts'

export const containerId = p('containerId').getSQL()
export const entityOfContainer = sql`(select qc.entity_id from containers qn join collections qc on qc.id = qn.collection_id where qn.id = ${containerId})`

/** A blob that the repository gets, or (`there`) has had; ahead of what it tells of. */
export const blobNoted = (db: Handle['db'], action: string, detail: SQL, there = sql`not`) =>
  audited(db, {
    action,
    object: sql`'container ' || ${containerId}`,
    name: sql`${nameOfContainer(containerId)} || '@' || ${p('digest')}`,
    detail,
    when: sql`${there} exists (select 1 from repository_blobs where container_id = ${containerId} and digest = ${p('digest')})`,
  })

/** Members whose blob was lost get the live one of the same content (R60). */
export const healMembers = (db: Handle['db'], digest: SQL) =>
  prepare(() =>
    db
      .update(t.repositoryBlobs)
      .set({ blobId: sql`(select id from blobs where digest = ${digest} and state = 'live')` })
      .where(
        sql`blob_id in (select id from blobs where digest = ${digest} and ${isLost}) and exists (select 1 from blobs where digest = ${digest} and state = 'live')`,
      ),
  )

export const lostRight = () =>
  new RegistryError('denied', 'You may not write here: the token or the right to write has ended.')
export const gone = () =>
  new RegistryError('not_found', 'That repository does not exist.', { subject: 'container' })
