/**
 * Pushes against a quota, tag moves, grants, members, freezing, share links and deletes of the same
 * few things at once, in orders that fast-check chooses and can repeat: the audit log, replayed, is
 * what the tables say, and nothing in it was done by who might not (R6, R8, R25, R57, R61).
 * `SREG_TEST_EPISODES` says how many, `SREG_TEST_SEED` repeats a run.
 */
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import type { Claims } from '../../src/core/model.ts'
import { createPeople } from '../../src/core/people.ts'
import { createPopularity } from '../../src/core/popularity.ts'
import { createQuotas } from '../../src/core/quotas.ts'
import { parseRef } from '../../src/core/ref.ts'
import { createShares } from '../../src/core/shares.ts'
import { createSharing } from '../../src/core/sharing.ts'
import { createTeams } from '../../src/core/teams.ts'
import { isRegistryError } from '../../src/errors.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { sha256 } from '../protocol/client.ts'
import { coreWith, heldClock, surrounded, type Core } from './inside.ts'

const ASKED = process.env.SREG_TEST_EPISODES
const EPISODES = Number(ASKED ?? 100)
/** Unless a number is asked for, a busy machine runs fewer. */
const BUDGET_MS = 12_000
const SEED = process.env.SREG_TEST_SEED
const CONTENTS = ['one', 'two', 'three', 'four'].map((content) =>
  sampleSif({ content: content.padEnd(1000) }),
)
const [SIZE = 0] = CONTENTS.map(({ length }) => length)
const DIGESTS = CONTENTS.map((bytes) => sha256(bytes))
const TAGS = ['latest', 'stable']
const LEVELS = ['none', 'reader', 'contributor'] as const
const PLACE = 'alice/c/n'
const PATH = { entity: 'alice', collection: 'c', container: 'n' }
const config = { shortRefs: 'default' } as const

const content = fc.nat(CONTENTS.length - 1)
const tag = fc.constantFrom(...TAGS)
const guest = fc.constantFrom('bob', 'carol')
const anybody = fc.constantFrom('alice', 'bob', 'carol')
const step = fc.oneof(
  { weight: 12, arbitrary: fc.record({ do: fc.constant('push'), who: anybody, content, tag }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('move'), who: anybody, content, tag }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('untag'), who: anybody, tag }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('delete image'), who: anybody, content }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('grant'),
      to: fc.constantFrom('bob', 'carol', 'crew'),
      level: fc.nat(2),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('member'), user: guest, in: fc.boolean() }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('freeze'),
      what: fc.constantFrom('', ...TAGS),
      // thawed more often, or nothing moves any more
      frozen: fc.constantFrom(true, false, false),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant('quota'), images: fc.constantFrom(0, 1, 2, 3) }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('read'), who: guest, content }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('share'),
      content,
      count: fc.integer({ min: 1, max: 2 }),
    }),
  },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('take'), link: fc.nat(1) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('unshare'), link: fc.nat(1) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('star'), who: anybody, given: fc.boolean() }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('delete container') }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('delete collection') }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('delete team') }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('delete user'), user: guest }) },
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

/** Without anything racing: something to fight about, and two who may. */
const BEGINNING: Step[] = [
  { do: 'push', who: 'alice', content: 0, tag: 'latest' },
  { do: 'quota', images: 2 },
  { do: 'grant', to: 'bob', level: 2 },
  { do: 'grant', to: 'crew', level: 2 },
  { do: 'member', user: 'carol', in: true },
  { do: 'share', content: 0, count: 1 },
]

type Entry = {
  seq: number
  actor: string
  action: string
  object: string
  name: string
  detail: string
}

/** What the audit log says that is there, entry by entry. */
class State {
  tags = new Map<string, string>()
  frozen = new Set<string>()
  grants = new Map<string, number>()
  members = new Set<string>()
  deleted = new Set<string>()

  level(user: string): number {
    if (this.deleted.has(user)) return 0
    const byTeam = this.members.has(user) ? this.grants.get('team crew') : 0
    return user === 'alice' ? 3 : Math.max(this.grants.get(`user ${user}`) ?? 0, byTeam ?? 0)
  }

  /** Takes one entry in; throws when it is one that must not follow on what was before. */
  take({ actor, action, object, name, detail }: Entry): void {
    const forbidden = (why: string) =>
      new Error(`${actor} ${action} ${name} (${detail}) although ${why}`)
    const demand = (level: number) => {
      if (actor === 'root' || actor.startsWith('cli:')) return
      if (this.level(actor) < level) throw forbidden(`they had level ${this.level(actor)}`)
    }
    const thawed = (key: string) => {
      if (this.frozen.has(key) || this.frozen.has(PLACE)) throw forbidden('it was frozen')
    }
    const image = object.replace('image ', '')
    const drop = (key: string) => {
      thawed(key)
      this.tags.delete(key)
      this.frozen.delete(key)
    }
    if (action === 'image.push') demand(2)
    if (action === 'tag.set') {
      demand(2)
      const [, from = '', to = ''] =
        /^amd64(?:, from image (\w+)|, new), to image (\w+)$/.exec(detail) ?? []
      if ((this.tags.get(name) ?? '') !== from) throw forbidden(`it was ${this.tags.get(name)}`)
      if (from !== '') thawed(name)
      this.tags.set(name, to)
    }
    if (action === 'tag.delete') {
      demand(3)
      if (this.tags.get(name) !== image) throw forbidden(`it was ${this.tags.get(name)}`)
      drop(name)
    }
    if (action === 'image.delete') {
      demand(3)
      for (const [key, of] of this.tags) if (of === image) drop(key)
    }
    if (action === 'container.delete' || action === 'collection.delete') {
      demand(3)
      for (const key of this.tags.keys()) drop(key)
      if (this.frozen.has(PLACE)) throw forbidden('it was frozen')
    }
    if (action === 'collection.delete') this.grants.clear()
    if (action === 'grant.set') {
      demand(3)
      const at = detail.lastIndexOf(' ')
      const level = LEVELS.indexOf(detail.slice(at + 1) as (typeof LEVELS)[number])
      if (level > 0) this.grants.set(detail.slice(0, at), level)
      else this.grants.delete(detail.slice(0, at))
    }
    if (action === 'frozen.set') {
      demand(3)
      if (detail.startsWith('frozen')) this.frozen.add(name)
      else this.frozen.delete(name)
    }
    if (action === 'team.member') this.members.add(detail.replace(/ (owner|member)$/, ''))
    if (action === 'team.remove') this.members.delete(detail)
    if (action === 'team.delete') {
      this.members.clear()
      this.grants.delete('team crew')
    }
    if (action === 'user.delete') {
      this.deleted.add(name)
      this.members.delete(name)
      this.grants.delete(`user ${name}`)
    }
  }
}

const audit = (core: Core, after = 0) =>
  core.rows(`SELECT * FROM audit WHERE seq > ${after} AND outcome = 'done' ORDER BY seq`) as Entry[]

/** Whether something was so at some moment between two entries of the log, both included. */
function everSo(core: Core, from: number, to: number, so: (state: State) => boolean): boolean {
  const state = new State()
  let found = from === 0 && so(state)
  const entries = audit(core)
  for (const [at, entry] of entries.entries()) {
    if (entry.seq > to) break
    state.take(entry)
    const next = entries[at + 1]?.seq ?? Infinity
    if (next > from && so(state)) found = true
  }
  return found
}

/** What nobody may ever see in the tables, at any moment. */
function expectSound(core: Core): void {
  expect(core.rows('PRAGMA foreign_key_check')).toEqual([])
  expect(core.rows('SELECT * FROM violations')).toEqual([])
  for (const [what, sql] of Object.entries({
    used: `SELECT e.name, e.used, (SELECT coalesce(sum(size), 0) FROM (SELECT DISTINCT i.digest, i.size FROM images i
        JOIN containers n ON n.id = i.container_id JOIN collections c ON c.id = n.collection_id
        WHERE c.entity_id = e.id AND i.blob_id IS NOT NULL)) AS really FROM entities e WHERE e.used <> really`,
    holdings: `SELECT * FROM holdings h WHERE h.images <> (SELECT count(*) FROM images i JOIN containers n ON n.id = i.container_id
        JOIN collections c ON c.id = n.collection_id WHERE c.entity_id = h.entity_id AND i.digest = h.digest AND i.blob_id IS NOT NULL)`,
    grants: `SELECT g.* FROM grants g LEFT JOIN users u ON u.id = g.user_id WHERE u.deleted_at IS NOT NULL`,
    members: `SELECT m.* FROM team_members m JOIN users u ON u.id = m.user_id WHERE u.deleted_at IS NOT NULL`,
    'teams without an owner': `SELECT * FROM teams t WHERE NOT EXISTS (SELECT 1 FROM team_members m WHERE m.team_id = t.id AND m.owner = 1)`,
    'tags of nothing': `SELECT * FROM tags t WHERE NOT EXISTS (SELECT 1 FROM images i WHERE i.id = t.image_id AND i.container_id = t.container_id AND i.blob_id IS NOT NULL)`,
    stars: `SELECT * FROM containers n WHERE n.stars <> (SELECT count(*) FROM stars s WHERE s.container_id = n.id)`,
    'stars of who has gone': `SELECT * FROM stars s JOIN users u ON u.id = s.user_id WHERE u.deleted_at IS NOT NULL`,
    shares: `SELECT * FROM shares WHERE left_count < 0 OR used < 0`,
    search: `SELECT rowid FROM search WHERE rowid NOT IN (SELECT seq FROM images WHERE blob_id IS NOT NULL)`,
    guard: `SELECT * FROM guard`,
  }))
    expect(core.rows(sql), what).toEqual([])
}

/** Notes what must never happen, in the transaction that does it: if it is undone, so is the note. */
const WATCH = `
  CREATE TABLE violations (what TEXT);
  CREATE TRIGGER watch_quota AFTER UPDATE OF used ON entities WHEN NEW.used > OLD.used AND NEW.quota > 0 AND NEW.used > NEW.quota
    BEGIN INSERT INTO violations VALUES ('over quota'); END;
  CREATE TRIGGER watch_moves AFTER UPDATE OF image_id ON tags WHEN NEW.image_id <> OLD.image_id
      AND (OLD.frozen = 1 OR (SELECT frozen FROM containers WHERE id = OLD.container_id) = 1)
    BEGIN INSERT INTO violations VALUES ('a frozen tag was moved'); END;
  CREATE TRIGGER watch_deletes BEFORE DELETE ON tags WHEN OLD.frozen = 1 OR (SELECT frozen FROM containers WHERE id = OLD.container_id) = 1
    BEGIN INSERT INTO violations VALUES ('a frozen tag was deleted'); END;
`

const total = { episodes: 0, steps: 0, done: 0, refused: 0, full: 0, frozen: 0 }

async function episode(scheduler: fc.Scheduler, actors: Step[][]): Promise<void> {
  /** Every call of a port waits before and after until it is its turn. */
  let racing = false
  const turn = () => (racing ? scheduler.schedule(Promise.resolve()) : Promise.resolve())
  const around = surrounded(turn)
  const clock = heldClock()
  const core = await coreWith({ blobs: memoryBlobs({ clock }), clock, graceSeconds: 3600, around })
  const { shared, catalog } = core
  const [sharing, teams, shares, quotas, popularity] = [
    createSharing(shared),
    createTeams(shared),
    createShares(shared),
    createQuotas(shared),
    createPopularity(shared),
  ]
  const issuer = { issue: async () => '', issueOci: async () => '' }
  const people = createPeople({ ...shared, issuer, tokenMaxAge: 1e9 })

  const enter = async (name: string, role: 'user' | 'admin' = 'user') =>
    (await core.user(name, { private: true, powerful: true, role })).claims
  const [alice, root] = [await enter('alice'), await enter('root', 'admin')]
  const claims: Record<string, Claims> = {
    alice,
    bob: await enter('bob'),
    carol: await enter('carol'),
  }
  const seq = () => Number(core.rows('SELECT coalesce(max(seq), 0) AS seq FROM audit')[0]?.['seq'])
  core.exec(WATCH)

  /** Images by content, as somebody who pushed knows them. */
  const images = new Map<number, string>()
  const links: { id: string; secret: string; count: number; taken: number; ended: boolean }[] = []

  /** The container, made anew by its owner if it was deleted. */
  async function place(who: string): Promise<string> {
    const as = claims[who] ?? null
    if (who !== 'alice') return (await catalog.container(PATH, as)).container.id
    const { entity } = await catalog.entity('alice', as)
    const draft = { description: '', private: true }
    const inside = { ...draft, name: 'c', entity: entity.id }
    const collection = await catalog.createCollection(inside, as)
    const { id } = await catalog.createContainer(
      { ...draft, name: 'n', collection: collection.id },
      as,
    )
    return id
  }

  /** Carries a step out; what it returns must stand in the log now, or have been so without it. */
  async function carryOut(its: Step): Promise<{
    by: string
    action: string
    about: RegExp
    unless?: (state: State) => boolean
  } | null> {
    switch (its.do) {
      case 'push': {
        const container = await place(its.who)
        const who = { claims: claims[its.who] as Claims, container }
        const imageId = await core.push(who, CONTENTS[its.content] as Uint8Array)
        images.set(its.content, imageId)
        await catalog.setTag(container, { arch: 'amd64', tag: its.tag, imageId }, who.claims)
        return moved(its.who, its.tag, imageId)
      }
      case 'move': {
        const imageId = images.get(its.content)
        if (imageId === undefined) return null
        const container = await place(its.who)
        const change = { arch: 'amd64', tag: its.tag, imageId }
        await catalog.setTag(container, change, claims[its.who] ?? null)
        return moved(its.who, its.tag, imageId)
      }
      case 'untag': {
        const ref = parseRef(`${PLACE}:${its.tag}`, config)
        await catalog.deleteImage(ref, 'amd64', claims[its.who] ?? null)
        return { by: its.who, action: 'tag.delete', about: new RegExp(`:${its.tag} `) }
      }
      case 'delete image': {
        const ref = parseRef(`${PLACE}:sha256.${DIGESTS[its.content]}`, config)
        await catalog.deleteImage(ref, 'amd64', claims[its.who] ?? null)
        return {
          by: its.who,
          action: 'image.delete',
          about: new RegExp(DIGESTS[its.content] ?? ''),
        }
      }
      case 'grant': {
        const level = LEVELS[its.level] ?? 'none'
        if (its.to === 'crew' && core.rows('SELECT 1 FROM teams').length === 0) {
          const draft = { name: 'crew', description: '', open: false, owner: null }
          await teams.create(draft, alice)
        }
        const to = its.to === 'crew' ? { team: 'crew' } : { user: its.to }
        await sharing.grant('alice/c', to, level, alice)
        return { by: 'alice', action: 'grant.set', about: new RegExp(`${its.to} ${level}`) }
      }
      case 'member':
        if (its.in) await teams.setMember('crew', its.user, false, alice)
        else await teams.removeMember('crew', its.user, alice)
        return {
          by: 'alice',
          action: its.in ? 'team.member' : 'team.remove',
          about: new RegExp(its.user),
        }
      case 'freeze': {
        const ref = its.what === '' ? PLACE : `${PLACE}:${its.what}`
        await sharing.setFrozen(ref, null, its.frozen, alice)
        const about = new RegExp(`${ref} ${its.frozen ? 'frozen' : 'thawed'}`)
        return { by: 'alice', action: 'frozen.set', about }
      }
      case 'quota': {
        await quotas.set('alice', its.images * SIZE, root)
        return { by: 'root', action: 'quota.set', about: /alice/ }
      }
      case 'read': {
        const from = seq()
        const ref = parseRef(`${PLACE}:sha256.${DIGESTS[its.content]}`, config)
        await catalog.image(ref, null, claims[its.who] ?? null, 'download')
        if (!everSo(core, from, seq(), (state) => state.level(its.who) > 0))
          throw new Error(`${its.who} read what they had lost`)
        return null
      }
      case 'share': {
        const draft = { arch: null, lifeMs: null, note: '', count: its.count }
        const ref = `${PLACE}:sha256.${DIGESTS[its.content]}`
        const { id, secret } = await shares.create({ ...draft, ref }, alice)
        links.push({ id, secret, count: its.count, taken: 0, ended: false })
        return { by: 'alice', action: 'share.create', about: new RegExp(id) }
      }
      case 'take': {
        const link = links[its.link]
        if (link === undefined) return null
        const { ended } = link
        await shares.take(link.secret)
        link.taken += 1
        if (ended) throw new Error('a revoked link was good')
        if (link.taken > link.count) throw new Error('a link was good too often')
        return null
      }
      case 'unshare': {
        const link = links[its.link]
        if (link === undefined || link.ended) return null
        await shares.revoke(link.id, alice)
        link.ended = true
        return null
      }
      case 'star':
        await popularity.setStar(PLACE, its.given, claims[its.who] ?? null)
        return null
      case 'delete container':
        await catalog.deleteContainer(PATH, alice)
        return { by: 'alice', action: 'container.delete', about: /alice/ }
      case 'delete collection':
        await catalog.deleteCollection('alice', 'c', alice)
        return { by: 'alice', action: 'collection.delete', about: /alice/ }
      case 'delete team':
        await teams.delete('crew', alice)
        return { by: 'alice', action: 'team.delete', about: /crew/ }
      case 'delete user':
        await people.remove(its.user, null, root)
        return { by: 'root', action: 'user.delete', about: new RegExp(its.user) }
    }
  }
  const moved = (by: string, of: string, imageId: string) => ({
    by,
    action: 'tag.set',
    about: new RegExp(`:${of} .*to image ${imageId}`),
    // a tag that pointed there is not moved, and nothing is said of that
    unless: (state: State) => state.tags.get(`${PLACE}:${of}`) === imageId,
  })

  async function act(steps: Step[]): Promise<void> {
    for (const its of steps) {
      const before = seq()
      total.steps += 1
      try {
        const said = await carryOut(its)
        if (said !== null) {
          const { by, action, about, unless } = said
          const written = audit(core, before).some(
            (entry) =>
              entry.actor === by &&
              entry.action === action &&
              about.test(`${entry.object} ${entry.name} ${entry.detail}`),
          )
          if (!written && !(unless !== undefined && everSo(core, before, seq(), unless)))
            throw new Error(`no trace in the log of ${JSON.stringify(its)}`)
        }
        total.done += 1
      } catch (error) {
        if (isRegistryError(error, 'quota_exceeded')) total.full += 1
        else if (isRegistryError(error) && /frozen/.test(error.message)) total.frozen += 1
        else if (
          !isRegistryError(error, 'conflict', 'not_found', 'denied') &&
          !(isRegistryError(error, 'unauthenticated') && 'who' in its)
        )
          throw error
        else total.refused += 1
      }
      expectSound(core)
    }
  }
  await act(BEGINNING)
  racing = true
  await scheduler.waitFor(Promise.all(actors.map(act)))
  racing = false

  const state = new State()
  for (const entry of audit(core)) state.take(entry)
  const tags = core.rows(`SELECT 'alice/c/n:' || name AS name, image_id AS image FROM tags`)
  expect(tags.map((row) => [row['name'], row['image']]).toSorted()).toEqual(
    [...state.tags].toSorted(),
  )
  const frozen =
    core.rows(`SELECT 'alice/c/n' AS name FROM containers WHERE frozen = 1 AND name = 'n' AND stars >= 0
    UNION ALL SELECT 'alice/c/n:' || name FROM tags WHERE frozen = 1`)
  expect(frozen.map((row) => row['name']).toSorted()).toEqual([...state.frozen].toSorted())
  const granted =
    core.rows(`SELECT coalesce('user ' || u.name, 'team ' || t.name) AS who, g.level FROM grants g
    LEFT JOIN users u ON u.id = g.user_id LEFT JOIN teams t ON t.id = g.team_id`)
  expect(granted.map((row) => [row['who'], row['level']]).toSorted()).toEqual(
    [...state.grants].toSorted(),
  )
  for (const { id, taken } of links) {
    const [row] = core.rows(`SELECT used FROM shares WHERE id = '${id}'`)
    if (row !== undefined) expect(row['used']).toBe(taken)
  }
  core.close()
  total.episodes += 1
}

test(
  'R6, R8, R25, R57, R61: no order of changes breaks quota, tags, grants or links',
  { timeout: 600_000 },
  async () => {
    const actors = fc.array(fc.array(step, { minLength: 3, maxLength: 8 }), {
      minLength: 3,
      maxLength: 4,
    })
    await fc.assert(fc.asyncProperty(fc.scheduler(), actors, episode), {
      numRuns: EPISODES,
      ...(SEED === undefined ? {} : { seed: Number(SEED) }),
      ...(ASKED === undefined ? { interruptAfterTimeLimit: BUDGET_MS } : {}),
    })
    console.log(`access races: ${JSON.stringify(total)}`)
    expect(total.done).toBeGreaterThan(total.episodes)
  },
)
