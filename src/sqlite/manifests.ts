/** Repositories as OCI sees them: the blobs they have, manifests, tags and referrers. */
import { and, eq, sql, type SQL } from 'drizzle-orm'
import { RegistryError } from '../errors.ts'
import type { Manifest } from '../core/model.ts'
import type { BridgedImage, BridgedTag, ManifestsBook, Viewer } from '../ports.ts'
import { pullCounter, pullCounts } from './counters.ts'
import { guarded } from './failure.ts'
import {
  audited,
  dropGuard,
  indexImages,
  inContainer,
  isLive,
  levelIn,
  mayWrite,
  nameOfContainer,
  p,
  policyMet,
  recountContainer,
  text,
  unindexImages,
  viewerContributes,
  viewerValues,
  visibleContainer,
  writerManages,
  writerStands,
  writerValues,
} from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import { joinsOf } from './joins.ts'
import { fitsBeside, overQuota, type Coming } from './quotas.ts'
import { blobNoted, containerId, entityOfContainer, gone, lostRight } from './repositories.ts'
import { named, toContainer, toStanding } from './rows.ts'
import * as t from './schema.ts'
import { seeing } from './seeing.ts'

/** Characters of a piece: at most 0.9 MB, and in JSON of JSON twice that, for D1 takes rows of 2 MB. */
const PIECE = 300_000
/** Characters of annotations in one list of referrers. */
const ANNOTATIONS = 3_000_000
/** The config of a SIF, `{}`: every repository with an image has it. */
const EMPTY_DIGEST = 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a'
const EMPTY_SIZE = 2
/** Bytes of `derivedManifest` without the container's name and the digits of the size: a test compares. */
const DERIVED_LENGTH = 449
/** Tags for several archs whose indexes are looked at for a digest. */
const INDEXED = 200

/** Referrers that go with a manifest at most. */
const REFERRERS = 1000

/**
 * References by what they name. Without a word SQLite takes the primary key, which has all columns, and
 * walks through all references of a repository.
 */
const refs = (as: string) => sql.raw(`manifest_refs ${as} indexed by manifest_refs_digest`)

/** The container of a path. */
const placed = sql`(select pn.id from containers pn join collections pc on pc.id = pn.collection_id join entities pe on pe.id = pc.entity_id where pe.name = ${text('entity')} and pc.name = ${text('collection')} and pn.name = ${text('container')})`

const frozen = () =>
  new RegistryError(
    'denied',
    'This tag is frozen, or the repository is: it can neither move nor go until its owner thaws it (sreg-lite thaw).',
    { subject: 'tag' },
  )
const unmet = () =>
  new RegistryError(
    'denied',
    'This collection takes only images with a good signature (policy "require"): of what is pushed by OCI, SIF images and indexes of them, in repositories named entity/collection/container.',
    { subject: 'policy' },
  )

export function sqliteManifests(handle: Handle): ManifestsBook {
  const { db } = handle
  const { standing, see } = seeing(handle)
  const blobColumns = named({ id: t.blobs.id, key: t.blobs.key, size: t.blobs.size })
  const manifestColumns = named({
    digest: t.manifests.digest,
    mediaType: t.manifests.mediaType,
    size: t.manifests.size,
    subject: t.manifests.subject,
    artifactType: t.manifests.artifactType,
  })
  /** Every blob that a repository has under the digest: its own and those of its images. */
  const members = sql`(select rm.container_id as container_id, rm.blob_id as blob_id from repository_blobs rm where rm.digest = ${text('digest')} union all select ri.container_id, ri.blob_id from images ri where ri.digest = substr(${text('digest')}, 8) and ${text('digest')} like 'sha256:%' and ri.blob_id is not null)`
  const byTag = sql`(select gt.manifest from oci_tags gt where gt.container_id = ${placed} and gt.name = ${text('tag')})`
  const chosen = { tag: byTag, digest: text('digest') }
  const perSelector = (by: 'tag' | 'digest') => ({
    manifest: prepare(() =>
      db
        .select(manifestColumns)
        .from(t.manifests)
        .where(and(eq(t.manifests.containerId, placed), eq(t.manifests.digest, chosen[by]))),
    ),
    pieces: prepare(() =>
      db
        .select({ text: t.manifestPieces.text })
        .from(t.manifestPieces)
        .where(
          and(eq(t.manifestPieces.containerId, placed), eq(t.manifestPieces.manifest, chosen[by])),
        )
        .orderBy(t.manifestPieces.number),
    ),
  })
  /** By an image of the library: what it goes by there, or its manifest's digest, if that was noted. */
  const ofImages = {
    tag: sql`select 1 from tags gt where gt.container_id = containers.id and gt.name = ${text('tag')}`,
    digest: sql`select 1 from images gi where gi.container_id = containers.id and (gi.manifest = substr(${text('digest')}, 8) or (gi.manifest is null and gi.blob_id is not null))`,
  }
  /** Where a pull of it is counted: if it is there for the viewer, and not theirs to write. */
  const pulled = (by: 'tag' | 'digest') =>
    sql`select containers.id as container, collections.id as collection from containers join collections on collections.id = containers.collection_id join entities on entities.id = collections.entity_id where containers.id = ${placed} and (exists (select 1 from manifests pm where pm.container_id = containers.id and pm.digest = ${chosen[by]}) or exists (${ofImages[by]})) and ${visibleContainer} and not ${viewerContributes}`
  const pulls = {
    tag: pullCounter(db, pulled('tag'), text('asker')),
    digest: pullCounter(db, pulled('digest'), text('asker')),
  }
  /** What the writer may read has the blob of that id under that digest. */
  const mayRead = sql`exists (select 1 from ${members} mm join blobs rb on rb.id = mm.blob_id and rb.state = 'live' join containers rn on rn.id = mm.container_id join collections rc on rc.id = rn.collection_id where rb.id = ${p('blobId')} and ((rc.private = 0 and rn.private = 0) or ${writerStands(sql`(wt.collection_id = '' or (wt.collection_id = rc.id and wt.container_id in ('', rn.id))) and (${writerManages} or ${levelIn(sql`wu.id`, sql`rc.id`)} > 0)`)}))`
  /** Of the values in `refs`: digest and size. */
  const wanted = (at: number) => sql.raw(`json_extract(x.value, '$[${at}]')`)
  const hex = sql`case when ${wanted(1)} like 'sha256:%' then substr(${wanted(1)}, 8) end`
  const imageBlob = sql`images ib join blobs bb on bb.id = ib.blob_id and bb.state = 'live' where ib.container_id = ${containerId}`
  const config = sql.raw(`'${EMPTY_DIGEST}'`)
  /** An image has it, or a manifest that was pushed while one did. */
  const hasConfig = sql`(exists (select 1 from ${imageBlob}) or exists (select 1 from manifest_refs cr where cr.container_id = ${containerId} and cr.digest = ${config}))`
  /** What an image's manifest has beside the name of the container, as `derivedManifest` makes it. */
  const derivedSize = sql`(select ${sql.raw(String(DERIVED_LENGTH))} + length(dm.size) + length(replace(dn.name, rtrim(dn.name, replace(dn.name, '/', '')), '')) from images dm join blobs db on db.id = dm.blob_id and db.state = 'live' join containers dn on dn.id = dm.container_id where dm.container_id = ${containerId} and dm.manifest = ${hex} limit 1)`
  const present = sql`case when ${wanted(0)} = 'blob' then coalesce((select b.size from repository_blobs m join blobs b on b.id = m.blob_id and b.state = 'live' where m.container_id = ${containerId} and m.digest = ${wanted(1)}), (select bb.size from ${imageBlob} and ib.digest = ${hex}), case when ${wanted(1)} = ${config} and ${hasConfig} then ${sql.raw(String(EMPTY_SIZE))} end) else coalesce((select f.size from manifests f where f.container_id = ${containerId} and f.digest = ${wanted(1)}), ${derivedSize}) end`
  const mounted: Coming = {
    entity: entityOfContainer,
    digest: sql`(select digest from blobs where id = ${p('blobId')})`,
    size: sql`(select size from blobs where id = ${p('blobId')})`,
  }
  const beyondQuota = overQuota(handle, mounted, { what: 'blob', may: mayWrite(inContainer, 2) })
  const containerFrozen = sql`exists (select 1 from containers where id = ${containerId} and frozen = 1)`
  const bridged = named({
    id: t.images.id,
    digest: t.images.digest,
    size: t.images.size,
    arch: t.images.arch,
  })
  const bridgedImages = () =>
    db
      .select(bridged)
      .from(t.images)
      .innerJoin(t.blobs, and(eq(t.blobs.id, t.images.blobId), isLive))
  /** Ids of a batch's images, noted by its guard as JSON. */
  const noted = sql`(select value from json_each(coalesce((select note from guard), '[]')))`
  const notedSeqs = sql`select seq from images where id in ${noted}`
  const sif = (image: string) =>
    sql.raw(
      `exists (select 1 from manifests sm where sm.container_id = ${image}.container_id and sm.sif = ${image}.digest)`,
    )
  /** Noted images of which neither tag nor manifest is left. */
  const nameless = sql`images.id in ${noted} and not exists (select 1 from tags where image_id = images.id) and not ${sif('images')}`
  /** The arch under which an image is tagged. */
  const archOf = (image: string) =>
    sql.raw(`case when ${image}.arch = 'unknown' then 'amd64' else ${image}.arch end`)
  const listed = (name: string) => sql`(select value from json_each(${p(name)}))`
  /** Names that neither side may move or take away, of those in `x.value`. */
  const nameFrozen = sql`(${containerFrozen} or exists (select 1 from oci_tags where container_id = ${containerId} and name = x.value and frozen = 1) or exists (select 1 from tags where container_id = ${containerId} and name = x.value and frozen = 1))`
  const nameTaken = sql`(exists (select 1 from oci_tags where container_id = ${containerId} and name = x.value) or exists (select 1 from tags where container_id = ${containerId} and name = x.value))`
  /** The manifest that such a name is; null where that takes more than a row to know. */
  const nameIs = sql`coalesce((select manifest from oci_tags where container_id = ${containerId} and name = x.value), (select case count(*) when 1 then 'sha256:' || min(ni.manifest) end from tags nt join images ni on ni.id = nt.image_id where nt.container_id = ${containerId} and nt.name = x.value))`
  /** Tags of the library that go with a manifest: those it was pushed under, and those it is made of. */
  const tagsOfManifest = sql`container_id = ${containerId} and (name in (select name from oci_tags where container_id = ${containerId} and manifest = ${p('digest')}) or (image_id in ${listed('images')} and (${p('names')} is null or name in ${listed('names')}) and not exists (select 1 from oci_tags oo where oo.container_id = tags.container_id and oo.name = tags.name)))`

  const images = {
    tag: prepare(() =>
      bridgedImages()
        .innerJoin(t.tags, eq(t.tags.imageId, t.images.id))
        .where(and(eq(t.tags.containerId, placed), eq(t.tags.name, text('tag')))),
    ),
    digest: prepare(() =>
      bridgedImages().where(
        sql`(images.container_id = ${placed} and images.manifest = substr(${text('digest')}, 8)) or (images.container_id = ${placed} and images.manifest is null)`,
      ),
    ),
  }

  /** What goes with the manifest `digest`: who refers to it, to those, and so on (SREG_OCI_REFERRERS). */
  const referrersOf = sql`select gr.digest from (with recursive going(digest) as (select ${p('digest')} as digest union select gm.digest from going join manifests gm on gm.container_id = ${containerId} and gm.subject = going.digest and not exists (select 1 from oci_tags gt where gt.container_id = ${containerId} and gt.manifest = gm.digest) and not exists (select 1 from ${refs('gf')} where gf.container_id = ${containerId} and gf.kind = 'manifest' and gf.digest = gm.digest) limit ${sql.raw(String(REFERRERS + 1))}) select digest from going) gr where gr.digest <> ${p('digest')}`

  /** `manifests` are those that go, as a condition on `sm`. */
  const deleteGuard = (manifests: SQL) =>
    prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 3),
        thawed: sql`not exists (select 1 from oci_tags where container_id = ${containerId} and manifest = ${p('digest')} and (frozen = 1 or ${containerFrozen})) and not exists (select 1 from tags where ${tagsOfManifest} and (frozen = 1 or ${containerFrozen})) and not (${containerFrozen} and json_array_length(${p('images')}) > 0)`,
        found: sql`exists (select 1 from manifests where container_id = ${containerId} and digest = ${p('digest')}) or exists (select 1 from images where container_id = ${containerId} and id in ${listed('images')})`,
        note: sql`(select json_group_array(id) from (select image_id as id from tags where ${tagsOfManifest} union select value from json_each(${p('images')}) union select si.id from manifests sm join images si on si.container_id = sm.container_id and si.digest = sm.sif where sm.container_id = ${containerId} and ${manifests}))`,
      }),
    )

  const q = {
    repository: prepare(() => joinsOf(db).containers().where(eq(t.containers.id, placed))),
    indexed: prepare(() =>
      db
        .select({ tag: sql<string>`${t.tags.name}`.as('tag'), ...bridged })
        .from(t.tags)
        .innerJoin(t.images, eq(t.images.id, t.tags.imageId))
        .innerJoin(t.blobs, and(eq(t.blobs.id, t.images.blobId), isLive))
        .where(
          and(
            eq(t.tags.containerId, text('containerId')),
            sql`${t.tags.name} in (select it.name from tags it where it.container_id = ${text('containerId')} and not exists (select 1 from oci_tags io where io.container_id = it.container_id and io.name = it.name) group by it.name having count(*) > 1 order by max(it.updated_at) desc limit ${sql.raw(String(INDEXED))})`,
          ),
        )
        .orderBy(t.tags.name),
    ),
    unnoted: prepare(() =>
      bridgedImages().where(
        and(eq(t.images.containerId, text('containerId')), sql`${t.images.manifest} is null`),
      ),
    ),
    note: prepare(() =>
      db
        .update(t.images)
        .set({ manifest: sql`x.value` })
        .from(sql`json_each(${p('manifests')}) x`)
        .where(sql`images.id = x.key and images.manifest is null`),
    ),
    imagesOf: prepare(() =>
      db
        .select({
          digest: sql<string>`x.value`.as('digest'),
          imageId: sql<
            string | null
          >`(select i.id from images i join blobs b on b.id = i.blob_id and b.state = 'live' where i.container_id = ${containerId} and i.digest = coalesce((select m.sif from manifests m where m.container_id = ${containerId} and m.digest = x.value), (select di.digest from images di where di.container_id = ${containerId} and di.manifest = substr(x.value, 8))))`.as(
            'imageId',
          ),
        })
        .from(sql`json_each(${p('digests')}) x`),
    ),
    member: prepare(() =>
      db
        .select(blobColumns)
        .from(t.blobs)
        .where(
          and(
            sql`blobs.id in ((select blob_id from repository_blobs where container_id = ${placed} and digest = ${text('digest')}), (select blob_id from images where container_id = ${placed} and digest = substr(${text('digest')}, 8) and ${text('digest')} like 'sha256:%'))`,
            isLive,
          ),
        )
        .limit(1),
    ),
    config: prepare(() =>
      db
        .select({ id: t.containers.id })
        .from(t.containers)
        .where(
          and(
            eq(t.containers.id, placed),
            sql`(exists (select 1 from images ci where ci.container_id = containers.id and ci.blob_id is not null) or exists (select 1 from manifest_refs cr where cr.container_id = containers.id and cr.digest = ${config}))`,
          ),
        ),
    ),
    readable: prepare(() =>
      db
        .select(blobColumns)
        .from(sql`${members} m`)
        .innerJoin(t.blobs, and(sql`blobs.id = m.blob_id`, isLive))
        .innerJoin(t.containers, sql`containers.id = m.container_id`)
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .where(and(visibleContainer, sql`(${p('anywhere')} = 1 or m.container_id = ${placed})`))
        .limit(1),
    ),
    mountGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 2),
        found: sql`exists (select 1 from containers where id = ${containerId})`,
        readable: mayRead,
        withinQuota: fitsBeside(mounted),
      }),
    ),
    mountNoted: blobNoted(db, 'blob.mount', sql`${mounted.size} || ' bytes'`),
    mount: prepare(() =>
      db
        .insert(t.repositoryBlobs)
        .select(
          sql`select ${containerId} as container_id, ${p('digest')} as digest, id as blob_id, ${p('now')} as created_at from blobs where id = ${p('blobId')} and state = 'live'`,
        )
        .onConflictDoUpdate({
          target: [t.repositoryBlobs.containerId, t.repositoryBlobs.digest],
          set: { createdAt: sql`excluded.created_at`, blobId: sql`excluded.blob_id` },
        }),
    ),
    removeGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 3),
        complete: sql`not exists (select 1 from ${refs('mr')} where mr.container_id = ${containerId} and mr.kind = 'blob' and mr.digest = ${p('digest')}) and not exists (select 1 from ${imageBlob} and (ib.digest = substr(${p('digest')}, 8) or ${p('digest')} = ${config}))`,
      }),
    ),
    removalNoted: blobNoted(db, 'blob.delete', sql`''`, sql``),
    removeMember: prepare(() =>
      db
        .delete(t.repositoryBlobs)
        .where(
          and(
            eq(t.repositoryBlobs.containerId, text('containerId')),
            eq(t.repositoryBlobs.digest, text('digest')),
          ),
        )
        .returning({ digest: t.repositoryBlobs.digest }),
    ),
    tag: perSelector('tag'),
    digest: perSelector('digest'),
    lacking: prepare(() =>
      db
        .select({
          kind: sql<'blob' | 'manifest'>`kind`.as('kind'),
          digest: sql<string>`digest`.as('digest'),
          size: sql<number | null>`size`.as('size'),
        })
        .from(
          sql`(select ${wanted(0)} as kind, ${wanted(1)} as digest, ${wanted(2)} as wanted, ${present} as size from json_each(${p('refs')}) x)`,
        )
        .where(sql`size is not wanted`),
    ),
    putGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 2),
        found: sql`exists (select 1 from containers where id = ${containerId})`,
        complete: sql`not exists (select 1 from json_each(${p('refs')}) x where ${present} is not ${wanted(2)})`,
        thawed: sql`not exists (select 1 from json_each(${p('tags')}) x where ${nameFrozen} and ${nameTaken} and ${nameIs} is not ${p('digest')})`,
        readable: sql`not exists (select 1 from json_each(${p('images')}) x where not exists (select 1 from ${imageBlob} and ib.id = x.value))`,
        policyMet: sql`case when json_array_length(${p('images')}) = 0 then not exists (select 1 from containers cn join collections cc on cc.id = cn.collection_id where cn.id = ${containerId} and cc.policy = 'require') else not exists (select 1 from json_each(${p('images')}) x where not ${policyMet(sql`x.value`)}) end`,
        note: sql`(select json_group_array(id) from (select image_id as id from tags where container_id = ${containerId} and name in ${listed('libraryTags')} union select value from json_each(${p('images')})))`,
      }),
    ),
    put: prepare(() =>
      db
        .insert(t.manifests)
        .values({
          containerId: p('containerId'),
          digest: p('digest'),
          mediaType: p('mediaType'),
          size: p('size'),
          subject: p('subject'),
          artifactType: p('artifactType'),
          annotations: p('annotations'),
          createdBy: p('writerId'),
          createdAt: p('now'),
          sif: p('sif'),
        })
        // one without a mediaType of its own is what it was called last
        .onConflictDoUpdate({
          target: [t.manifests.containerId, t.manifests.digest],
          set: { mediaType: sql`excluded.media_type`, sif: sql`excluded.sif` },
        }),
    ),
    putPiece: prepare(() =>
      db
        .insert(t.manifestPieces)
        .values({
          containerId: p('containerId'),
          manifest: p('digest'),
          number: p('number'),
          text: p('piece'),
        })
        .onConflictDoNothing(),
    ),
    putRefs: prepare(() =>
      db
        .insert(t.manifestRefs)
        .select(
          sql`select ${containerId} as container_id, ${p('digest')} as manifest, ${wanted(0)} as kind, ${wanted(1)} as digest from json_each(${p('refs')}) x where true`,
        )
        .onConflictDoNothing(),
    ),
    /** What only an image has becomes the repository's: the manifest needs it when the image goes. */
    joinImages: prepare(() =>
      db
        .insert(t.repositoryBlobs)
        .select(
          sql`select ${containerId} as container_id, ${wanted(1)} as digest, ji.blob_id as blob_id, ${p('now')} as created_at from json_each(${p('refs')}) x join images ji on ji.container_id = ${containerId} and ji.digest = ${hex} where ${wanted(0)} = 'blob' and ji.blob_id is not null`,
        )
        .onConflictDoNothing(),
    ),
    unindexNoted: unindexImages(db, notedSeqs),
    indexNoted: indexImages(db, notedSeqs),
    /** What the library has there, where it is no more. A trigger takes what OCI has under the name. */
    dropLibraryTags: prepare(() =>
      db
        .delete(t.tags)
        .where(
          sql`container_id = ${containerId} and name in ${listed('libraryTags')} and ${p('whole')} = 1 and arch not in (select ${archOf('wi')} from images wi where wi.id in ${listed('images')})`,
        ),
    ),
    /** Of several images for one arch the first counts: it comes last. */
    putLibraryTags: prepare(() =>
      db
        .insert(t.tags)
        .select(
          sql`select ${containerId} as container_id, u.value as name, ${archOf('i')} as arch, i.id as image_id, ${p('now')} as updated_at, 0 as frozen from json_each(${p('images')}) x join images i on i.id = x.value cross join json_each(${p('libraryTags')}) u order by x.key desc`,
        )
        .onConflictDoUpdate({
          target: [t.tags.containerId, t.tags.name, t.tags.arch],
          set: { imageId: sql`excluded.image_id`, updatedAt: sql`excluded.updated_at` },
        }),
    ),
    putTags: prepare(() =>
      db
        .insert(t.ociTags)
        .select(
          sql`select ${containerId} as container_id, x.value as name, ${p('digest')} as manifest, ${p('now')} as updated_at, coalesce((select max(g.frozen) from tags g where g.container_id = ${containerId} and g.name = x.value), 0) as frozen from json_each(${p('tags')}) x where true`,
        )
        .onConflictDoUpdate({
          target: [t.ociTags.containerId, t.ociTags.name],
          set: { manifest: sql`excluded.manifest`, updatedAt: sql`excluded.updated_at` },
        }),
    ),
    policy: prepare(() =>
      db
        .select({ policy: t.collections.policy })
        .from(t.containers)
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .where(eq(t.containers.id, text('containerId'))),
    ),
    touchContainer: prepare(() =>
      db
        .update(t.containers)
        .set({ updatedAt: sql`${p('now')}` })
        .where(eq(t.containers.id, text('containerId'))),
    ),
    // ahead of what they tell of: they say what is new
    manifestPut: audited(db, {
      action: 'manifest.put',
      object: sql`'container ' || ${containerId}`,
      name: sql`${nameOfContainer(containerId)} || '@' || ${p('digest')}`,
      detail: sql`${p('mediaType')} || ', ' || cast(${p('size')} as integer) || ' bytes'`,
      when: sql`not exists (select 1 from manifests where container_id = ${containerId} and digest = ${p('digest')})`,
    }),
    tagsPut: audited(db, {
      action: 'tag.set',
      object: sql`'container ' || ${containerId}`,
      name: sql`${nameOfContainer(containerId)} || ':' || (select group_concat(value, ' ') from json_each(${p('tags')}))`,
      detail: sql`'to manifest ' || ${p('digest')}`,
      when: sql`exists (select 1 from json_each(${p('tags')}) x left join oci_tags g on g.container_id = ${containerId} and g.name = x.value where g.manifest is not ${p('digest')})`,
    }),
    deleteTagGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 3),
        thawed: sql`not exists (select 1 from json_each(json_array(${p('tag')})) x where ${nameFrozen} and ${nameTaken})`,
        note: sql`(select json_group_array(image_id) from (select distinct image_id from tags where container_id = ${containerId} and name = ${p('tag')}) where exists (select 1 from json_each(json_array(${p('tag')})) x where ${nameTaken}))`,
        // nothing is there: then nothing is noted
        found: sql`exists (select 1 from json_each(json_array(${p('tag')})) x where ${nameTaken})`,
      }),
    ),
    deletedTag: audited(db, {
      action: 'tag.delete',
      object: sql`'container ' || ${containerId}`,
      name: sql`${nameOfContainer(containerId)} || ':' || ${p('tag')}`,
      detail: sql`case when exists (select 1 from images where ${nameless}) then 'the image with it' else '' end`,
    }),
    deletedReferrers: audited(db, {
      action: 'manifest.delete',
      object: sql`'container ' || ${containerId}`,
      name: sql`${nameOfContainer(containerId)} || '@' || ${p('digest')}`,
      detail: sql`'its ' || (select count(*) from (${referrersOf})) || ' referrers'`,
      when: sql`exists (${referrersOf})`,
    }),
    deleteReferrers: prepare(() =>
      db
        .delete(t.manifests)
        .where(sql`container_id = ${containerId} and digest in (${referrersOf})`),
    ),
    deleteTag: prepare(() =>
      db
        .delete(t.ociTags)
        .where(
          and(eq(t.ociTags.containerId, text('containerId')), eq(t.ociTags.name, text('tag'))),
        ),
    ),
    deleteLibraryTag: prepare(() =>
      db
        .delete(t.tags)
        .where(and(eq(t.tags.containerId, text('containerId')), eq(t.tags.name, text('tag')))),
    ),
    deleteGuard: deleteGuard(sql`sm.digest = ${p('digest')}`),
    deleteAllGuard: deleteGuard(sql`(sm.digest = ${p('digest')} or sm.digest in (${referrersOf}))`),
    deletedManifest: audited(db, {
      action: 'manifest.delete',
      object: sql`'container ' || ${containerId}`,
      name: sql`${nameOfContainer(containerId)} || '@' || ${p('digest')}`,
      detail: sql`(select 'tags ' || group_concat(name, ' ') from (select name from oci_tags where container_id = ${containerId} and manifest = ${p('digest')} union select name from tags where ${tagsOfManifest}))`,
    }),
    deleteLibraryTags: prepare(() => db.delete(t.tags).where(tagsOfManifest)),
    /** Pieces, references and tags go with it, by a trigger. */
    deleteManifest: prepare(() =>
      db
        .delete(t.manifests)
        .where(
          and(
            eq(t.manifests.containerId, text('containerId')),
            eq(t.manifests.digest, text('digest')),
          ),
        ),
    ),
    /** R25: the tickets of an image that goes end with it. */
    endNameless: prepare(() =>
      db
        .insert(t.ended)
        .select(sql`select images.id as id, ${p('now')} as at from images where ${nameless}`)
        .onConflictDoUpdate({ target: t.ended.id, set: { at: sql`excluded.at` } }),
    ),
    deleteNameless: prepare(() => db.delete(t.images).where(nameless)),
    recount: recountContainer(db, containerId),
    tags: prepare(() =>
      db
        .select({ name: sql<string>`name`.as('name') })
        .from(
          sql`(select name from oci_tags where container_id = ${placed} and name > ${text('after')} union select name from tags where container_id = ${placed} and name > ${text('after')})`,
        )
        .orderBy(sql`name`)
        .limit(p('limit')),
    ),
    referrers: prepare(() =>
      db
        .select({
          digest: sql<string>`digest`.as('digest'),
          mediaType: sql<string>`media_type`.as('mediaType'),
          size: sql<number>`size`.as('size'),
          subject: sql<string | null>`subject`.as('subject'),
          artifactType: sql<string>`artifact_type`.as('artifactType'),
          annotations: sql<string | null>`annotations`.as('annotations'),
        })
        .from(
          sql`(select m.*, sum(coalesce(length(m.annotations), 0)) over (order by m.digest) as so_far from manifests m where m.container_id = ${placed} and m.subject = ${text('digest')} and m.subject is not null and m.digest > ${text('after')} and (${p('artifactType')} is null or m.artifact_type = ${p('artifactType')}))`,
        )
        .where(sql`so_far <= ${sql.raw(String(ANNOTATIONS))}`)
        .orderBy(sql`digest`)
        .limit(p('limit')),
    ),
    referrersCount: prepare(() =>
      db
        .select({ count: sql<number>`count(*)`.as('count') })
        .from(t.manifests)
        .where(
          sql`container_id = ${placed} and subject = ${text('digest')} and subject is not null and digest > ${text('after')} and (${p('artifactType')} is null or artifact_type = ${p('artifactType')})`,
        ),
    ),
    repositories: prepare(() =>
      db
        .select({
          name: sql<string>`entities.name || '/' || collections.name || '/' || containers.name`.as(
            'name',
          ),
        })
        .from(
          sql`entities cross join collections on collections.entity_id = entities.id cross join containers on containers.collection_id = collections.id`,
        )
        .where(
          and(
            // no cast: with one the index would not be asked
            sql`entities.name || '/' >= ${p('from')}`,
            sql`entities.name || '/' || collections.name || '/' || containers.name > ${text('after')}`,
            visibleContainer,
            sql`(exists (select 1 from manifests m where m.container_id = containers.id) or exists (select 1 from images i where i.container_id = containers.id and i.blob_id is not null))`,
          ),
        )
        // the order of the whole names, which the index of entities has: only one's own are sorted
        .orderBy(sql`entities.name || '/', collections.name || '/', containers.name`)
        .limit(p('limit')),
    ),
    window: prepare(() =>
      db
        .select({ last: sql<number | null>`max(id)`.as('last') })
        .from(
          sql`(select rowid as id from repository_blobs where rowid > ${p('after')} order by rowid limit ${p('limit')})`,
        ),
    ),
    /** One statement decides and takes away: a reference made in between cannot be missed. */
    sweep: prepare(() =>
      db
        .delete(t.repositoryBlobs)
        .where(
          sql`rowid in (select rowid from repository_blobs where rowid > ${p('after')} order by rowid limit ${p('limit')}) and created_at < ${p('before')} and not exists (select 1 from ${refs('r')} where r.container_id = repository_blobs.container_id and r.digest = repository_blobs.digest and r.kind = 'blob')`,
        ),
    ),
    dropGuard: dropGuard(db),
  }

  const valuesOf = (viewer: Viewer, now: Date, more: object) => ({
    ...viewerValues(viewer, now),
    ...more,
  })
  const inJson = (refs: readonly { kind: string; digest: string; size: number }[]) =>
    JSON.stringify(refs.map(({ kind, digest, size }) => [kind, digest, size]))

  return {
    async repository(path, viewer, now) {
      const values = valuesOf(viewer, now, path)
      return see(viewer, values, [q.repository(values)] as const, ([rows]) =>
        rows[0] === undefined ? null : toContainer(rows[0]),
      )
    },

    async member(path, digest, viewer, now) {
      const values = valuesOf(viewer, now, { ...path, digest })
      const lookup = [standing(values), q.repository(values), q.member(values)] as const
      const [stands, rows, blobs, configs] =
        digest === EMPTY_DIGEST
          ? await handle.read(...lookup, q.config(values))
          : [...(await handle.read(...lookup)), []]
      return {
        standing: toStanding(stands[0]),
        value:
          rows[0] === undefined
            ? null
            : {
                container: toContainer(rows[0]),
                blob: blobs[0] ?? null,
                config: configs.length > 0,
              },
      }
    },

    async readableMember(digest, from, viewer, now) {
      const nowhere = { entity: '', collection: '', container: '' }
      const values = valuesOf(viewer, now, {
        ...(from ?? nowhere),
        digest,
        anywhere: from === null ? 1 : 0,
      })
      const [rows] = await handle.read(q.readable(values))
      return rows[0] ?? null
    },

    async mount({ writer, ...change }) {
      const values = { ...writerValues(writer), ...change }
      const lost = () => new RegistryError('not_found', 'unreadable', { subject: 'blob' })
      try {
        await guarded(
          handle.write(q.mountGuard(values), q.mountNoted(values), q.mount(values), q.dropGuard()),
          {
            may_write: lostRight,
            found: gone,
            readable: lost,
            within_quota: () => beyondQuota(values),
          },
        )
        return true
      } catch (error) {
        if (error instanceof RegistryError && error.subject === 'blob') return false
        throw error
      }
    },

    async removeMember(containerId, digest, writer) {
      const values = { ...writerValues(writer), containerId, digest }
      const [, , removed] = await guarded(
        handle.write(
          q.removeGuard(values),
          q.removalNoted(values),
          q.removeMember(values),
          q.dropGuard(),
        ),
        {
          may_write: lostRight,
          complete: () =>
            new RegistryError(
              'conflict',
              'This blob is part of a manifest of this repository: delete that first.',
              { subject: 'blob' },
            ),
        },
      )
      return removed.length > 0
    },

    async manifest(path, selector, viewer, now, options) {
      const { text: withText, pull } = options
      const counts = pull && {
        asker: pull.asker,
        week: pull.begin.getTime(),
        counts: 1,
        perContainer: pull.container,
        perCollection: pull.collection,
      }
      const values = valuesOf(viewer, now, { ...path, ...selector, ...counts })
      const from = q[selector.by]
      const counting = pulls[selector.by]
      const lookup = [
        standing(values),
        q.repository(values),
        from.manifest(values),
        images[selector.by](values),
      ] as const
      const pieced = [...lookup, from.pieces(values)] as const
      const [stands, rows, found, of, pieces, full, counted] = pull
        ? await handle.write(...pieced, counting.full(values), counting.count(values))
        : withText
          ? ([...(await handle.read(...pieced)), [], []] as const)
          : ([...(await handle.read(...lookup)), null, [], []] as const)
      const whole = pieces?.map((piece) => piece.text).join('') ?? null
      return {
        standing: toStanding(stands[0]),
        value:
          rows[0] === undefined
            ? null
            : {
                container: toContainer(rows[0]),
                manifest: found[0] === undefined ? null : { ...found[0], text: whole },
                images: of,
                counted: pullCounts(full, counted),
              },
      }
    },

    async indexed(containerId) {
      const [rows] = await handle.read(q.indexed({ containerId }))
      const tags = new Map<string, BridgedImage[]>()
      for (const { tag, ...image } of rows) tags.set(tag, [...(tags.get(tag) ?? []), image])
      return [...tags].map(([tag, of]): BridgedTag => ({ tag, images: of }))
    },

    async unnoted(containerId) {
      const [rows] = await handle.read(q.unnoted({ containerId }))
      return rows
    },

    async note(manifests) {
      const values = manifests.map(({ imageId, manifest }) => [imageId, manifest])
      await handle.write(q.note({ manifests: JSON.stringify(Object.fromEntries(values)) }))
    },

    async imagesOf(containerId, digests) {
      const values = { containerId, digests: JSON.stringify(digests) }
      const [rows] = await handle.read(q.imagesOf(values))
      return rows.flatMap(({ digest, imageId }) => (imageId === null ? [] : [{ digest, imageId }]))
    },

    async lacking(containerId, refs) {
      if (refs.length === 0) return []
      const [rows] = await handle.read(q.lacking({ containerId, refs: inJson(refs) }))
      return rows
    },

    async put({ containerId, manifest, refs, tags, library, writer }) {
      const { text: whole, sif: held, ...facts } = manifest
      const values = {
        ...writerValues(writer),
        containerId,
        ...facts,
        sif: held ?? null,
        refs: inJson(refs),
        tags: JSON.stringify(tags),
        images: JSON.stringify(library?.images ?? []),
        libraryTags: JSON.stringify(library?.tags ?? []),
        whole: library?.whole === true ? 1 : 0,
      }
      const pieces = piecesOf(whole).map((piece, number) =>
        q.putPiece({ ...values, number, piece }),
      )
      const [, policies] = await guarded(
        handle.write(
          q.putGuard(values),
          q.policy(values),
          q.manifestPut(values),
          q.tagsPut(values),
          q.put(values),
          ...pieces,
          q.putRefs(values),
          q.joinImages(values),
          // the library's tags first: what they change takes away what OCI had there
          q.unindexNoted(values),
          q.dropLibraryTags(values),
          q.putLibraryTags(values),
          q.indexNoted(values),
          q.putTags(values),
          q.touchContainer(values),
          q.dropGuard(),
        ),
        {
          may_write: lostRight,
          found: gone,
          thawed: frozen,
          policy_met: unmet,
          readable: () =>
            new RegistryError('conflict', 'This image was deleted meanwhile; push it again.', {
              subject: 'image',
            }),
          complete: () =>
            new RegistryError('invalid', 'Something that this manifest names has gone meanwhile.', {
              subject: 'blob',
            }),
        },
      )
      return { policy: policies[0]?.policy ?? 'off' }
    },

    async remove(containerId, what, writer, { withReferrers } = { withReferrers: false }) {
      const derived = (what.by === 'digest' ? what.derived : null) ?? null
      const values = {
        ...writerValues(writer),
        containerId,
        tag: what.by === 'tag' ? what.tag : '',
        digest: what.by === 'digest' ? what.digest : '',
        images: JSON.stringify(derived?.images ?? []),
        names: derived === null || derived.tags === null ? null : JSON.stringify(derived.tags),
      }
      const steps =
        what.by === 'tag'
          ? [
              q.deleteTagGuard(values),
              q.unindexNoted(values),
              q.deleteTag(values),
              q.deleteLibraryTag(values),
              q.deletedTag(values),
            ]
          : [
              withReferrers ? q.deleteAllGuard(values) : q.deleteGuard(values),
              q.unindexNoted(values),
              q.deletedManifest(values),
              q.deleteLibraryTags(values),
              q.deleteManifest(values),
              ...(withReferrers ? [q.deletedReferrers(values), q.deleteReferrers(values)] : []),
            ]
      const none = () => new RegistryError('not_found', 'nothing', { subject: 'manifest' })
      try {
        await guarded(
          handle.write(
            ...steps,
            q.endNameless(values),
            q.deleteNameless(values),
            q.indexNoted(values),
            q.recount(values),
            q.dropGuard(),
          ),
          { may_write: lostRight, thawed: frozen, found: none },
        )
        return true
      } catch (error) {
        if (error instanceof RegistryError && error.code === 'not_found') return false
        throw error
      }
    },

    async tags(path, page, viewer, now) {
      const values = valuesOf(viewer, now, { ...path, ...page })
      return see(viewer, values, [q.repository(values), q.tags(values)] as const, ([rows, tags]) =>
        rows[0] === undefined
          ? null
          : { container: toContainer(rows[0]), tags: tags.map(({ name }) => name) },
      )
    },

    async referrers(path, subject, page, viewer, now) {
      const values = valuesOf(viewer, now, { ...path, ...page, digest: subject })
      return see(
        viewer,
        values,
        [q.repository(values), q.referrers(values), q.referrersCount(values)] as const,
        ([rows, found, count]) =>
          rows[0] === undefined
            ? null
            : {
                container: toContainer(rows[0]),
                manifests: found satisfies Manifest[],
                more: (count[0]?.count ?? 0) > found.length,
              },
      )
    },

    async repositories(page, viewer, now) {
      // names of the same entity, or later ones, come after a name
      const from = page.after.slice(0, page.after.indexOf('/') + 1) || page.after
      const values = valuesOf(viewer, now, { ...page, from })
      return see(viewer, values, [q.repositories(values)] as const, ([rows]) =>
        rows.map(({ name }) => name),
      )
    },

    async sweepMembers(before, after, limit) {
      const values = { before: before.getTime(), after, limit }
      const [window] = await handle.write(q.window(values), q.sweep(values))
      return { last: window[0]?.last ?? null }
    },
  }
}

/** A text in pieces of PIECE characters, none of which ends in the middle of one. */
function piecesOf(whole: string): string[] {
  const pieces: string[] = []
  for (let at = 0; at < whole.length;) {
    let end = Math.min(at + PIECE, whole.length)
    const last = whole.charCodeAt(end - 1)
    if (end < whole.length && last >= 0xd800 && last < 0xdc00) end += 1
    pieces.push(whole.slice(at, end))
    at = end
  }
  return pieces
}
