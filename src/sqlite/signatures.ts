/** Verdicts about signatures, what they were made of, and the policies that ask for them. */
import { eq, sql } from 'drizzle-orm'
import type { Policy, PolicyStanding, SignatureFacts, Verdict } from '../core/model.ts'
import { RegistryError } from '../errors.ts'
import type { SignaturesBook } from '../ports.ts'
import { guarded } from './failure.ts'
import {
  acceptedBy,
  audited,
  dropGuard,
  inCollection,
  isLive,
  keysThatFit,
  mayWrite,
  nameOfCollection,
  p,
  text,
  writerValues,
} from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import { NOT_EXAMINED } from './rows.ts'
import * as t from './schema.ts'

/** Values of the placeholders of `storeVerdict`. */
export function verdictValues(
  digest: string,
  facts: SignatureFacts,
  judged: Parameters<SignaturesBook['record']>[2],
) {
  const { verdict, why, signers, marks, seen } = judged
  return {
    digest,
    verdict,
    why,
    signers: JSON.stringify(signers),
    marks: JSON.stringify(marks),
    signatureFacts: JSON.stringify(facts),
    seen: JSON.stringify(seen),
  }
}

/** Statements that store the verdict of a digest, and of what it was made. */
export function storeVerdict(db: Handle['db']) {
  const verdict = prepare(() =>
    db
      .insert(t.verdicts)
      .values({
        digest: p('digest'),
        verdict: p('verdict'),
        why: p('why'),
        signers: sql`${p('signers')}`,
        marks: p('marks'),
        facts: p('signatureFacts'),
      })
      .onConflictDoUpdate({
        target: t.verdicts.digest,
        set: {
          verdict: sql`excluded.verdict`,
          why: sql`excluded.why`,
          signers: sql`excluded.signers`,
          marks: sql`excluded.marks`,
          facts: sql`excluded.facts`,
        },
      }),
  )
  const issuers = prepare(() =>
    db
      .insert(t.signatureIssuers)
      .select(
        sql`select json_extract(value, '$.issuer') as issuer, ${p('digest')} as digest, json_extract(value, '$.keys') as marks from json_each(${p('seen')}) where true`,
      )
      .onConflictDoUpdate({
        target: [t.signatureIssuers.issuer, t.signatureIssuers.digest],
        set: { marks: sql`excluded.marks` },
      }),
  )
  return (values: ReturnType<typeof verdictValues>) => [verdict(values), issuers(values)]
}

/** There are other keys now than when the verdict was made. */
const outdated = sql`si.marks <> coalesce((select group_concat(mark, ' ') from (${keysThatFit(sql`si.issuer`)})), '')`

export function sqliteSignatures(handle: Handle): SignaturesBook {
  const { db } = handle
  const isOutdated = sql`(verdicts.verdict = 'pending' or exists (select 1 from signature_issuers si where si.digest = verdicts.digest and ${outdated}))`
  const window = sql`select digest from verdicts where digest > ${text('after')} order by digest limit ${p('limit')}`
  const q = {
    keysOf: prepare(() =>
      db
        .select({
          issuer: t.keyNames.name,
          fingerprint: t.keys.fingerprint,
          armor: t.keys.armor,
          mark: sql<string>`${t.keys.seq} || ':' || ${t.keys.revision}`,
        })
        .from(t.keyNames)
        .innerJoin(t.keys, eq(t.keys.seq, t.keyNames.keySeq))
        .where(
          sql`${t.keyNames.name} in (select value from json_each(${p('issuers')})) and ${t.keyNames.rank} < 2 and ${t.keys.removedAt} is null`,
        )
        .orderBy(t.keys.seq),
    ),
    staleDigests: prepare(() =>
      db
        .select({ digest: t.verdicts.digest, facts: t.verdicts.facts })
        .from(t.verdicts)
        .where(sql`digest in (select value from json_each(${p('digests')})) and ${isOutdated}`)
        .limit(p('limit')),
    ),
    staleOfKeys: prepare(() =>
      db
        .select({ digest: t.verdicts.digest, facts: t.verdicts.facts })
        .from(t.verdicts)
        .where(
          sql`digest in (select si.digest from signature_issuers si where ${outdated} and si.issuer in (select value from json_each(${p('names')}) union all select n.name from keys k join key_names n on n.key_seq = k.seq where k.fingerprint in (select value from json_each(${p('names')}))))`,
        )
        .limit(p('limit')),
    ),
    settleVerdicts: prepare(() =>
      db
        .update(t.verdicts)
        .set({
          verdict: sql`json_extract(x.value, '$.verdict')`,
          why: sql`json_extract(x.value, '$.why')`,
          signers: sql`json_extract(x.value, '$.signers')`,
          marks: sql`json_extract(x.value, '$.marks')`,
        })
        .from(sql`json_each(${p('judged')}) x`)
        .where(sql`verdicts.digest = json_extract(x.value, '$.digest')`),
    ),
    settleIssuers: prepare(() =>
      db
        .update(t.signatureIssuers)
        .set({ marks: sql`json_extract(x.value, '$.keys')` })
        .from(sql`json_each(${p('seen')}) x`)
        .where(
          sql`signature_issuers.digest = json_extract(x.value, '$.digest') and signature_issuers.issuer = json_extract(x.value, '$.issuer')`,
        ),
    ),
    window: prepare(() =>
      db
        .select({
          digest: t.verdicts.digest,
          outdated: sql<number>`${isOutdated}`,
        })
        .from(t.verdicts)
        .where(sql`digest in (${window})`)
        .orderBy(t.verdicts.digest),
    ),
    forget: prepare(() =>
      db
        .delete(t.verdicts)
        .where(
          sql`digest in (${window}) and not exists (select 1 from images i where i.digest = verdicts.digest and i.blob_id is not null)`,
        ),
    ),
    unexamined: prepare(() =>
      db
        .select({ digest: t.images.digest, key: t.blobs.key, size: t.blobs.size })
        .from(t.images)
        .innerJoin(t.blobs, sql`${t.blobs.id} = ${t.images.blobId} and ${isLive}`)
        .where(
          sql`signed = 1 and ${t.images.digest} > ${text('after')} and ${t.images.digest} < ${text('until')} and not exists (select 1 from verdicts v where v.digest = ${t.images.digest})`,
        )
        .groupBy(t.images.digest)
        .orderBy(t.images.digest)
        .limit(p('limit')),
    ),
    standing: prepare(() =>
      db
        .select({
          digest: t.images.digest,
          collection: sql<string>`${t.entities.name} || '/' || ${t.collections.name}`.as(
            'collection',
          ),
          policy: t.collections.policy,
          policyKeys: t.collections.policyKeys,
          signed:
            sql<number>`exists (select 1 from images i where i.digest = ${t.images.digest} and i.signed = 1)`.as(
              'signed',
            ),
          verdict: t.verdicts.verdict,
          why: t.verdicts.why,
          signers: t.verdicts.signers,
          accepted:
            sql<number>`${acceptedBy(sql`${t.collections.id}`, sql`coalesce(${p('marks')}, ${t.verdicts.marks}, '[]')`)}`.as(
              'accepted',
            ),
        })
        .from(t.images)
        .innerJoin(t.containers, eq(t.containers.id, t.images.containerId))
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .leftJoin(t.verdicts, eq(t.verdicts.digest, t.images.digest))
        .where(eq(t.images.id, text('imageId'))),
    ),
    policyGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inCollection, 3),
        found: sql`exists (select 1 from collections where id = ${p('collectionId')})`,
      }),
    ),
    policySet: audited(db, {
      action: 'policy.set',
      object: sql`'collection ' || ${p('collectionId')}`,
      name: nameOfCollection(p('collectionId').getSQL()),
      detail: sql`${p('policy')} || (select coalesce(' ' || group_concat(value, ' '), '') from json_each(${p('policyKeys')}))`,
      when: sql`exists (select 1 from collections where id = ${p('collectionId')} and (policy <> ${p('policy')} or policy_keys <> ${p('policyKeys')}))`,
    }),
    setPolicy: prepare(() =>
      db
        .update(t.collections)
        .set({
          policy: sql`${p('policy')}`,
          policyKeys: sql`${p('policyKeys')}`,
          updatedAt: sql`${p('now')}`,
        })
        .where(eq(t.collections.id, text('collectionId'))),
    ),
    dropGuard: dropGuard(db),
  }
  const store = storeVerdict(db)
  const toFacts = (row: { digest: string; facts: string }) => ({
    digest: row.digest,
    facts: JSON.parse(row.facts) as SignatureFacts,
  })

  return {
    async keysOf(issuers) {
      const [rows] = await handle.read(q.keysOf({ issuers: JSON.stringify(issuers) }))
      return rows
    },
    async stale(of) {
      const { limit } = of
      if ('digests' in of) {
        const digests = JSON.stringify(of.digests)
        const [rows] = await handle.read(q.staleDigests({ digests, limit }))
        return rows.map(toFacts)
      }
      // a key that was forgotten has no names any more but these
      const names = of.keys.flatMap((key) => [
        key,
        key.length > 40 ? key.slice(0, 16) : key.slice(-16),
      ])
      const [rows] = await handle.read(q.staleOfKeys({ names: JSON.stringify(names), limit }))
      return rows.map(toFacts)
    },
    async settle(judged) {
      const seen = judged.flatMap(({ digest, judged: { seen } }) =>
        seen.map((one) => ({ digest, ...one })),
      )
      const rows = judged.map(({ digest, judged: { seen: _seen, ...row } }) => ({ digest, ...row }))
      await handle.write(
        q.settleVerdicts({ judged: JSON.stringify(rows) }),
        q.settleIssuers({ seen: JSON.stringify(seen) }),
      )
    },
    async window(after, limit) {
      const values = { after, limit }
      const [rows] = await handle.write(q.window(values), q.forget(values))
      return {
        last: rows.length < limit ? null : (rows.at(-1)?.digest ?? null),
        outdated: rows.filter((row) => row.outdated === 1).map(({ digest }) => digest),
      }
    },
    // no digest is behind a letter that is no hex digit
    async unexamined(after, limit, until = 'g') {
      const [rows] = await handle.read(q.unexamined({ after, until, limit }))
      return rows
    },
    async record(digest, facts, judged) {
      await handle.write(...store(verdictValues(digest, facts, judged)))
    },
    async standing(imageId, judged) {
      const marks = judged === null ? null : JSON.stringify(judged.marks)
      const [rows] = await handle.read(q.standing({ imageId, marks }))
      const [row] = rows
      if (row === undefined) return null
      const stored: PolicyStanding['judgement'] =
        row.verdict === null
          ? row.signed === 1
            ? NOT_EXAMINED
            : { verdict: 'unsigned', why: null, signers: [] }
          : { verdict: row.verdict as Verdict, why: row.why, signers: row.signers ?? [] }
      return {
        digest: row.digest,
        collection: row.collection,
        policy: { mode: row.policy, fingerprints: row.policyKeys } satisfies Policy,
        signed: row.signed === 1,
        judgement: judged ?? stored,
        accepted: row.accepted === 1,
      }
    },
    async setPolicy({ collectionId, policy, by }) {
      const values = {
        ...writerValues(by),
        collectionId,
        policy: policy.mode,
        policyKeys: JSON.stringify(policy.fingerprints),
      }
      await guarded(
        handle.write(
          q.policyGuard(values),
          q.policySet(values),
          q.setPolicy(values),
          q.dropGuard(),
        ),
        {
          may_write: () =>
            new RegistryError('denied', 'You may not set the policy of this collection any more.'),
          found: () =>
            new RegistryError('not_found', 'That collection does not exist.', {
              subject: 'collection',
            }),
        },
      )
    },
  }
}
