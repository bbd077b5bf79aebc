/**
 * Links that hand out one image to whoever has them (R61). Who makes one vouches for it: it works as
 * long as they may read the image themselves.
 */
import { RegistryError } from '../errors.ts'
import type { Clock, Database, Ids } from '../ports.ts'
import { absent, identify, type Access } from './access.ts'
import { actorOf, containerFacts, factsOfContainer, selectorOf } from './catalog.ts'
import { randomHex, sha256Hex } from './digest.ts'
import type { Claims, Identity, Share, SharedImage } from './model.ts'
import { isId } from './names.ts'
import { parsePath, parseRef } from './ref.ts'

const DAY_MS = 86_400_000
const DEFAULT_LIFE_MS = 7 * DAY_MS
/** Longest life of a link, in days. */
export const LONGEST_SHARE_DAYS = 90

export type Shares = ReturnType<typeof createShares>

export function createShares(deps: {
  database: Database
  clock: Clock
  ids: Ids
  access: Access
  shortRefs: 'default' | 'unique'
}) {
  const { database, clock, ids, shortRefs } = deps
  const { authorise, decide } = deps.access

  /** Whose links those are; a link is more than a bound token may hand on (R14). */
  function maker(identity: Identity): string | null {
    if (identity.kind === 'user' && identity.collectionId !== '')
      throw new RegistryError(
        'denied',
        'Your token is bound to a collection, so it cannot make or show share links.',
        { subject: 'share' },
      )
    return identity.kind === 'user' ? identity.userId : null
  }

  const factsOf = (share: Share) => containerFacts('image', share)

  return {
    /**
     * Makes a link to what the ref means now; it stays that image when the tag moves on. `lifeMs` null
     * is a week, or what is left of the token if that is less; `count` null is any number of
     * downloads. The secret is returned this once.
     */
    async create(
      draft: {
        ref: string
        arch: string | null
        lifeMs: number | null
        count: number | null
        note: string
      },
      claims: Claims | null,
    ): Promise<{ id: string; secret: string; expiresAt: Date; count: number | null }> {
      const wanted = parseRef(draft.ref, { shortRefs })
      const found = await database.catalog.findImage(
        wanted.path,
        selectorOf(wanted, draft.arch),
        claims,
        clock.now(),
      )
      const identity = identify(claims, found.standing)
      const image = found.value
      const facts = image === null ? null : containerFacts('image', image)
      authorise(identity, 'download', facts)
      authorise(identity, 'share', facts)
      if (image === null || claims === null) throw absent('image')
      const now = clock.now().getTime()
      const latest = identity.kind === 'user' ? claims.expiresAt.getTime() : Infinity
      const ends = now + (draft.lifeMs ?? Math.min(DEFAULT_LIFE_MS, latest - now))
      if (ends > latest)
        throw new RegistryError(
          'denied',
          `Your token ends at ${claims.expiresAt.toISOString()}, and a link that it makes cannot live longer.`,
          { subject: 'share' },
        )
      const id = ids.next()
      const secret = newSecret()
      const expiresAt = new Date(ends)
      await database.shares.create({
        id,
        imageId: image.id,
        hash: sha256Hex(secret),
        note: draft.note,
        // made on the host, it is the word of whoever owns the image
        createdBy: maker(identity) ?? image.ownerId,
        expiresAt,
        count: draft.count,
        by: actorOf(identity, clock),
      })
      return { id, secret, expiresAt, count: draft.count }
    },

    /**
     * The asker's own links; with `entity/collection/container`, those of that container: all of them
     * for its owner, else the asker's own.
     */
    async list(ref: string | null, claims: Claims | null): Promise<Share[]> {
      const now = clock.now()
      if (ref === null) {
        const standing = claims === null ? null : await database.tokens.standing(claims, now)
        const creatorId = maker(identify(claims, standing))
        return database.shares.list(creatorId === null ? {} : { creatorId }, claims, now)
      }
      const [entity = '', collection = '', name = ''] = parsePath(ref, 3)
      const path = { entity, collection, container: name }
      const { standing, value } = await database.catalog.findContainer(path, claims, now)
      const identity = identify(claims, standing)
      const container = value?.container ?? null
      const facts = container === null ? null : factsOfContainer(container)
      authorise(identity, 'see', facts, ref, 'container')
      const creatorId = maker(identity)
      if (container === null) throw absent('container')
      const all = decide(identity, 'oversee', facts) === 'allow' || creatorId === null
      const of = { containerId: container.id, ...(all ? {} : { creatorId }) }
      return database.shares.list(of, claims, now)
    },

    /** Ends a link and the downloads it has allowed, for who made it and for owners; twice is success. */
    async revoke(id: string, claims: Claims | null): Promise<void> {
      if (!isId(id)) throw noLink()
      const { standing, value } = await database.shares.find(id, claims, clock.now())
      const identity = identify(claims, standing)
      const creatorId = maker(identity)
      if (value === null) throw noLink()
      const facts = factsOf(value)
      // it only takes away: any token of the maker's will do, also when they have lost their access
      const mine = value.creatorId === creatorId
      // to others than its maker and the owners of the image a link does not exist
      if (!mine && decide(identity, 'oversee', facts) !== 'allow') throw noLink()
      if (!mine) authorise(identity, 'manage', facts, 'this link')
      await database.shares.revoke(id, actorOf(identity, clock))
    },

    /** Spends one download of a link; `not_found` in the same words for all that are not good. */
    take: (secret: string) => good(secret, 'take'),
    /** The image of a link, without spending anything. */
    look: (secret: string) => good(secret, 'look'),
  }

  async function good(secret: string, how: 'take' | 'look'): Promise<SharedImage> {
    const image = await database.shares[how](sha256Hex(secret), clock.now())
    if (image === null)
      throw new RegistryError(
        'not_found',
        'This link is not good, or not any more: it may be over, used up or revoked. Ask who gave it to you for a new one.',
        { subject: 'share' },
      )
    return image
  }
}

const noLink = () =>
  new RegistryError('not_found', 'There is no such link here.', { subject: 'share' })

/** 128 random bits, safe in URLs. */
function newSecret(): string {
  const bytes = randomHex(16).match(/../g) ?? []
  return btoa(String.fromCharCode(...bytes.map((byte) => Number.parseInt(byte, 16))))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '')
}
