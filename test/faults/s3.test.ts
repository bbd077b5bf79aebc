/**
 * Pushes into a bucket whose server fails at every turn (R7, R21, R22, R40): each succeeds or says
 * why not, nothing is ever half visible, and what failed is gone after the sweep.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { s3Blobs } from '../../adapters/blobs/s3.ts'
import { systemClock } from '../../adapters/system.ts'
import { PART_SIZE } from '../../src/core/uploads.ts'
import { parseRef } from '../../src/core/ref.ts'
import { isRegistryError } from '../../src/errors.ts'
import { describeWithRadosgw, makeBucket, radosgw, type TestBucket } from '../fixtures/radosgw.ts'
import { buildSif } from '../fixtures/sif.ts'
import { putBytes, sha256 } from '../protocol/client.ts'
import { bytesOf, coreWith, DAY_MS, HOUR_MS, keysOf, type Core } from './inside.ts'
import { FAULTS, startStoreProxy, type Fault, type StoreProxy } from './s3-proxy.ts'

/** Faults per way of the bytes and form of the upload, four of them. */
const WANTED = Math.ceil(Number(process.env['SREG_TEST_FAULTS'] ?? 40) / 4)
const SEED = Number(process.env['SREG_TEST_SEED'] ?? 1)
/** Requests of a push to the store, about: the fault strikes one of them. */
const REQUESTS = 9
/** A store that stalls is given up after this long; a minute in production. */
const IDLE_MS = 1500
/** Every so often an image has two parts, which are large. */
const TWO_PARTS_EVERY = 12

/** Numbers from 0 to below `bound`, the same for the same seed. */
function dice(seed: number): (bound: number) => number {
  let state = seed
  return (bound) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound)
  }
}

describeWithRadosgw('a failing S3 server', () => {
  let proxy: StoreProxy
  /** The fault strikes when this many more requests have passed. */
  let coming: { after: number; fault: Fault } | null = null
  let struck = 0
  const enough = () => struck >= WANTED
  beforeAll(async () => {
    proxy = await startStoreProxy(await radosgw(), () => {
      if (coming === null || coming.after-- > 0) return null
      const { fault } = coming
      coming = null
      struck += 1
      return fault
    })
  }, 90_000)
  afterAll(() => proxy.stop())

  for (const redirect of [false, true])
    for (const form of ['single', 'in parts'] as const)
      test(
        `pushes ${form}, redirect ${redirect ? 'on' : 'off'}`,
        async () => {
          const roll = dice(SEED + (redirect ? 1000 : 0) + (form === 'single' ? 0 : 500))
          const bucket = await makeBucket({ redirect, endpoint: proxy.url })
          const log = { event: () => {} }
          const blobs = await s3Blobs(bucket.config, { clock: systemClock, log, idleMs: IDLE_MS })
          expect(blobs.direct !== undefined).toBe(redirect)
          const core = await coreWith({ blobs, graceSeconds: 12 * 3600 })
          const alice = await core.user('alice')
          const counts = { pushed: 0, failed: 0, again: 0 }
          const byFault = Object.fromEntries(FAULTS.map((fault) => [fault, 0]))
          struck = 0
          for (let number = 0; !enough(); number++) {
            const twoParts = form === 'in parts' && number % TWO_PARTS_EVERY === TWO_PARTS_EVERY - 1
            const bytes = buildSif({
              objects: [{ type: 'generic', data: `${form} ${number}`.repeat(1 + roll(5000)) }],
              ...(twoParts ? { trailing: PART_SIZE } : {}),
            })
            const fault = FAULTS[roll(FAULTS.length)] ?? '500'
            coming = { after: roll(REQUESTS), fault }
            const before = struck
            const push = () => pushed(core, alice, bytes, form)
            const error = await push().then(
              () => null,
              (error: unknown) => error,
            )
            coming = null
            if (struck > before) byFault[fault] = (byFault[fault] ?? 0) + 1
            const what = `push ${number}, ${fault}: ${String(error)}`
            if (error === null) counts.pushed += 1
            else {
              counts.failed += 1
              expect(struck, what).toBeGreaterThan(before)
              expectSentence(error, what, bucket)
              await expectWholeOrNothing(core, alice, bytes, what)
              await push()
              counts.again += 1
            }
            expect(await shown(core, alice, bytes), what).toBe('whole')
          }
          await expectClean(core, bucket)
          core.close()
          const told = { seed: SEED, redirect, form, faults: struck, ...counts, ...byFault }
          process.stdout.write(`${JSON.stringify(told)}\n`)
        },
        Math.max(60_000, WANTED * 3000),
      )
})

type Alice = Awaited<ReturnType<Core['user']>>

/** A failure of the store itself, as the client that was sent there sees it. */
class StoreRefused extends Error {}

/** A push as clients do it: bytes to us, or to the store where it says so. */
async function pushed(core: Core, { claims, container }: Alice, bytes: Uint8Array, form: string) {
  const digest = sha256(bytes)
  const draft = { hash: `sha256.${digest}`, description: '', container }
  const image = await core.catalog.createImage(draft, claims)
  if (image.uploaded) return
  const { uploads } = core
  const soon = () => new Date(Date.now() + 60_000)
  if (form === 'single') {
    const upload = await uploads.openSingle(image.id, bytes.length, digest, claims)
    const { id, blobKey: key, handle } = upload
    const part = { number: 1, size: bytes.length, sha256: digest }
    if (handle === null) await uploads.receiveSingle({ upload: id, key, ...part }, bytesOf(bytes))
    else await putDirect(await uploads.partUrl({ upload: id, key, handle }, part, soon()), bytes)
    await uploads.completeSingle(image.id, claims)
    return
  }
  const upload = await uploads.openParts(image.id, bytes.length, claims)
  const { id, blobKey: key } = upload
  const handle = upload.handle ?? ''
  const parts: { number: number; etag: string }[] = []
  try {
    for (let number = 1; (number - 1) * PART_SIZE < bytes.length; number++) {
      const body = bytes.subarray((number - 1) * PART_SIZE, number * PART_SIZE)
      const part = { number, size: body.length, sha256: sha256(body) }
      const ticket = { upload: id, key, handle }
      const url = await uploads.partUrl(ticket, part, soon())
      const etag =
        url === null
          ? (await uploads.receivePart({ ...ticket, ...part, part: number }, bytesOf(body))).etag
          : await putDirect(url, body)
      parts.push({ number, etag })
    }
  } catch (error) {
    // as the client does; what comes of it is only logged there
    await uploads.abort(image.id, id, claims).catch(() => {})
    throw error
  }
  await uploads.completeParts(image.id, id, parts, claims)
}

async function putDirect(url: string | null, bytes: Uint8Array): Promise<string> {
  const answer = await Promise.race([
    putBytes(url ?? '', bytes),
    new Promise<never>((_, reject) => {
      setTimeout(() => reject(new Error('the client gave up')), 2 * IDLE_MS).unref()
    }),
  ]).catch((error: unknown) => {
    throw new StoreRefused('no answer', { cause: error })
  })
  await answer.text().catch(() => '')
  if (answer.status !== 200) throw new StoreRefused(String(answer.status))
  return answer.headers.get('etag') ?? ''
}

/** What the client prints: one sentence for people, without the store's inside. */
function expectSentence(error: unknown, what: string, { config }: TestBucket): void {
  if (error instanceof StoreRefused) return
  expect(isRegistryError(error), what).toBe(true)
  if (!isRegistryError(error)) return
  expect(error.message, what).toMatch(/^[A-Z].* .*\.$/)
  for (const secret of [config.bucket, '127.0.0.1', 'testtest', 'blobs/'])
    expect(error.message).not.toContain(secret)
}

/** `whole` when the image is there and is what was pushed. */
async function shown(core: Core, { claims }: Alice, bytes: Uint8Array): Promise<string> {
  const ref = parseRef(`alice/c/n:sha256.${sha256(bytes)}`, { shortRefs: 'default' })
  const image = await core.catalog.image(ref, null, claims, 'download').catch((error: unknown) => {
    if (isRegistryError(error, 'not_found')) return null
    throw error
  })
  if (image === null) return 'nothing'
  const read = await core.blobs.get(image.blob.key)
  const chunks: Uint8Array[] = []
  if (read !== null) for await (const chunk of read.stream()) chunks.push(chunk)
  return Buffer.concat(chunks).equals(bytes) ? 'whole' : 'something else'
}

async function expectWholeOrNothing(core: Core, alice: Alice, bytes: Uint8Array, what: string) {
  // An answer may be lost after all was done; what is visible is whole all the same.
  expect(['whole', 'nothing'], what).toContain(await shown(core, alice, bytes))
}

/** After the last deadline the store holds the blobs that the database knows, and nothing else. */
async function expectClean(core: Core, bucket: TestBucket): Promise<void> {
  core.clock.move(8 * DAY_MS)
  const sweep = core.startSweep()
  expect((await sweep({ now: true })).held).toBe(null)
  core.clock.move(2 * HOUR_MS)
  expect((await sweep({ now: true })).orphans).toBe(0)
  expect(await bucket.leftovers()).toEqual([])
  const keys = await keysOf(core.blobs)
  expect(keys).toHaveLength(await core.database.blobs.liveCount())
}
