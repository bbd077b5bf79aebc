/**
 * Export and import over HTTP against any runtime that listens: whole, in parts, interrupted, and
 * by administrators who lie (R8, R10, R41, R42).
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { runCommand } from '../../adapters/host/cli.ts'
import { moving, openAdmin } from '../../adapters/node/main.ts'
import { systemClock } from '../../adapters/system.ts'
import { writeArchive } from '../../src/admin.ts'
import type { MovedRow } from '../../src/core/model.ts'
import { buildSif, deffile, partition, sampleSif } from '../fixtures/sif.ts'
import { fill, REPOSITORIES, repositories, seen, shared } from '../moving/world.ts'
import { nodeTarget, type Target } from '../runtimes/target.ts'
import { expectRefusal } from './answers.ts'
import { libraryClient, sha256, type LibraryClient } from './client.ts'
import { ociClient } from './oci.ts'

/** D1 allows no more statements in one request on the free plan. */
const MOST_STATEMENTS = 50

/** From a registry on Node with `images` images and a large one to the runtime, and back again. */
export function describeMoving(
  name: string,
  makeTarget: () => Promise<Target>,
  { images = 12 }: { images?: number } = {},
): void {
  describe(`moving over HTTP on ${name}`, () => {
    const targets: Target[] = []
    let base: string
    let source: Target
    let world: Awaited<ReturnType<typeof fill>>
    let file: string
    let sharing: Awaited<ReturnType<typeof shared>>

    async function target(make = makeTarget): Promise<Target> {
      const made = await make()
      targets.push(made)
      return made
    }
    const boss = async (of: Target) =>
      (await of.mint('boss', { admin: true, scopes: ['pull', 'push', 'admin'] })).jwt

    /** The command line, against the server. */
    async function sreg(command: string, path: string, of: Target) {
      const tokenFile = join(base, 'token')
      await writeFile(tokenFile, await boss(of))
      let err = ''
      const args = [command, path, '--server', of.url, '--token-file', tokenFile]
      const code = await runCommand(args, {
        version: '0.0.0',
        env: { PATH: '' },
        home: base,
        osUser: 'someone',
        hostname: 'here',
        clock: systemClock,
        openAdmin,
        moving,
        serve: () => Promise.reject(new Error('not in this process')),
        readStandardInput: () => Promise.resolve(''),
        print: () => {},
        say: (line) => (err += `${line}\n`),
      })
      return { code, err }
    }

    beforeAll(async () => {
      base = await mkdtemp(join(tmpdir(), 'sreg-moving-'))
      source = await target(nodeTarget)
      world = await fill(source, images)
      // above 64 MiB: in parts on its way in, in ranges on its way out
      const large = buildSif({
        arch: 'arm64',
        objects: [deffile('large'), partition({ arch: 'arm64' })],
        trailing: 66 * 1024 * 1024,
      })
      await libraryClient(source.url, await boss(source)).push('boss/c/large', large, {
        arch: 'arm64',
      })
      world.refs.push('boss/c/large')
      file = join(base, 'registry.sreg')
      expect(await sreg('export', file, source)).toEqual({
        code: 0,
        err: expect.stringMatching(/^Exported \d+ rows and \d+ blobs of \d+ MiB to /),
      })
      sharing = await shared(source, await boss(source), world.refs)
    }, 180_000)
    afterAll(async () => {
      for (const made of targets) await made.stop()
      await rm(base, { recursive: true, force: true })
    })

    test('from Node to here and back to Node, all the same', async () => {
      const copy = await target()
      copy.trips?.()
      const { code, err } = await sreg('import', file, copy)
      expect([code, err]).toEqual([0, expect.stringContaining(`Imported ${images + 1} images`)])
      expect(err).toContain('ada: test')
      const there = await boss(source)
      const here = await boss(copy)
      // before anything is pulled, which counts
      expect(sharing.facts.filter((fact) => fact.includes('"frozen":true'))).not.toHaveLength(0)
      expect(sharing.facts).toContainEqual(expect.stringMatching(/^\["cleo","\w+",2\]$/))
      expect(sharing.reach).toContainEqual(expect.arrayContaining(['rob', 'bob/c1/n1', 200]))
      expect(await shared(copy, here, world.refs)).toEqual(sharing)
      const back = join(base, 'back.sreg')
      expect((await sreg('export', back, copy)).code).toBe(0)
      const stored = await repositories(source.url, there)
      expect(stored).toHaveLength(REPOSITORIES)
      expect(await repositories(copy.url, here)).toEqual(stored)
      expect(await seen(copy.url, here, world.refs)).toEqual(
        await seen(source.url, there, world.refs),
      )
      expect(await seen(copy.url, null, world.refs)).toEqual(
        await seen(source.url, null, world.refs),
      )
      const home = await target(nodeTarget)
      expect((await sreg('import', back, home)).err).toContain(`Imported ${images + 1} images`)
      expect(await shared(home, await boss(home), world.refs)).toEqual(sharing)
      expect(await repositories(home.url, await boss(home))).toEqual(stored)
      expect(await seen(home.url, await boss(home), world.refs)).toEqual(
        await seen(source.url, there, world.refs),
      )
      const again = await sreg('import', file, copy)
      expect([again.code, again.err]).toEqual([0, expect.stringContaining('imported before')])
    }, 180_000)

    test('no request takes more statements than D1 allows', async ({ skip }) => {
      const copy = await target()
      if (copy.trips === undefined) skip('statements are not counted on this runtime')
      const token = await boss(copy)
      const call = libraryClient(copy.url, token)
      const head = await importHead()
      const most: [string, number][] = []
      const counted = async (what: string, work: () => Promise<unknown>) => {
        copy.trips?.()
        await work()
        most.push([what, (copy.trips?.() ?? []).reduce((sum, trip) => sum + trip.statements, 0)])
      }
      await counted('export', () => call.call('POST', '/v1/exports'))
      await counted('rows', () => call.call('GET', '/v1/exports/rows'))
      let id = ''
      await counted('open', async () => {
        id = (await call.call('POST', '/v1/imports', head)).json.data.id
      })
      const { rows, bytes, digest } = small()
      await counted('list', () => call.call('GET', '/v1/imports'))
      await counted('stage', () => call.call('POST', `/v1/imports/${id}/rows`, { rows }))
      const path = `/v1/imports/${id}/blobs/${digest}`
      await counted('want', () => call.call('POST', path, { size: bytes.length }))
      await counted('put', () => call.call('PUT', path, bytes))
      const end = { head, rows: rows.length, sha256: digest }
      await counted('finish', async () => {
        expect((await call.call('POST', `/v1/imports/${id}`, end)).status).toBe(200)
      })
      for (const [what, statements] of most) {
        expect([what, statements > 0]).toEqual([what, true])
        expect([what, statements <= MOST_STATEMENTS]).toEqual([what, true])
      }
    })

    test('an altered file is refused and nothing of it stays', async () => {
      const copy = await target()
      const bytes = await smallFile()
      const token = await boss(copy)
      const before = await stateOf(copy, token)
      const places = [bytes.indexOf('"digest":"') + 12, bytes.indexOf('{"type":"blob"') + 9_000]
      for (const place of [...places, bytes.length - 20]) {
        const altered = Buffer.from(bytes)
        altered[place] = (altered[place] ?? 0) ^ 1
        const path = join(base, 'altered.sreg')
        await writeFile(path, altered)
        const { code, err } = await sreg('import', path, copy)
        expect([place, code, err]).toEqual([place, 2, expect.stringMatching(/\S/)])
      }
      expect(await stateOf(copy, token)).toEqual(before)
      // the control: unaltered, it is fine
      const path = join(base, 'whole.sreg')
      await writeFile(path, bytes)
      expect((await sreg('import', path, copy)).err).toContain('Imported 1 images')
    }, 60_000)

    describe('call by call', () => {
      let copy: Target
      let admin: LibraryClient
      beforeAll(async () => {
        copy = await target()
        admin = libraryClient(copy.url, await boss(copy))
      })
      const open = async (head: object) => {
        const opened = await admin.call('POST', '/v1/imports', head)
        expect(opened.status).toBe(200)
        return opened.json.data as { id: string; state: string }
      }
      const finish = (id: string, head: object, rows: number) =>
        admin.call('POST', `/v1/imports/${id}`, { head, rows, sha256: 'f'.repeat(64) })
      const stage = (id: string, rows: unknown[]) =>
        admin.call('POST', `/v1/imports/${id}/rows`, { rows })
      /** Asks, and sends when asked to. */
      async function send(id: string, bytes: Uint8Array, digest = sha256(bytes)) {
        const path = `/v1/imports/${id}/blobs/${digest}`
        const asked = await admin.call('POST', path, { size: bytes.length })
        return asked.json.data.wanted === true ? admin.call('PUT', path, bytes) : asked
      }

      test('nothing is visible before the end; what has arrived is not sent twice', async () => {
        const head = await importHead()
        const { rows, bytes, digest, ref } = small()
        const { id } = await open(head)
        await stage(id, rows)
        const path = `/v1/imports/${id}/blobs/${digest}`
        expect((await send(id, bytes)).json).toEqual({ data: {} })
        const nobody = libraryClient(copy.url)
        expect((await nobody.call('GET', `/v1/images/${ref}:latest`)).status).toBe(404)
        expect((await admin.call('GET', `/v1/containers/${ref}`)).status).toBe(404)
        // broken off, and begun anew
        const again = await open(head)
        expect(again).toEqual({ id, exportId: head.exportId, state: 'open', sha256: null })
        const asked = await admin.call('POST', path, { size: bytes.length })
        expect(asked.json.data.wanted).toBe(false)
        expect((await admin.call('GET', '/v1/imports')).json.data).toMatchObject([
          { id, exportId: head.exportId, rows: 0, bytes: bytes.length },
        ])
        // rows are sent again: those of the former run are forgotten
        expectRefusal(await finish(id, head, rows.length), 400, /do not fit together/)
        await stage(id, rows)
        const done = await finish(id, head, rows.length)
        expect(done.json.data.rows).toMatchObject({ user: 1, container: 1, image: 1, tag: 1 })
        expect((await admin.call('GET', '/v1/imports')).json.data).toEqual([])
        const got = await fetch(`${copy.url}/v1/imagefile/${ref}:latest`)
        expect(sha256(new Uint8Array(await got.arrayBuffer()))).toBe(digest)
        // once more is success, and changes nothing
        expect((await finish(id, head, rows.length)).status).toBe(200)
        expect((await open(head)).state).toBe('done')
        expectRefusal(await stage(id, small().rows), 409, /has ended/)
      })

      test('bytes are what their digest says, and a SIF image', async () => {
        const head = await importHead()
        const { id } = await open(head)
        const { rows, bytes, digest } = small()
        await stage(id, rows)
        const lie = Uint8Array.from(bytes, (byte, i) => (i === 9000 ? byte ^ 1 : byte))
        expectRefusal(await send(id, lie, digest), 400, /SHA-256|digest/i)
        const short = await admin.call('PUT', `/v1/imports/${id}/blobs/${digest}`, bytes.slice(1))
        expectRefusal(short, 400, /bytes/)
        expectRefusal(await send(id, new Uint8Array(500)), 400, /no SIF/)
        expectRefusal(await finish(id, head, rows.length), 503, /missing/)
        await send(id, bytes)
        expect((await finish(id, head, rows.length)).status).toBe(200)
      })

      test('rows are judged as at push, and belong to each other', async () => {
        const mine = (await admin.push('boss/c/own', sampleSif({ content: 'own' }))).container
        const { rows, bytes } = small()
        const edited = (type: string, change: object) =>
          rows.map((row) => (row.type === type ? { ...row, ...change } : row))
        for (const [wrong, words] of [
          [edited('user', { name: '../../etc' }), /name/],
          [edited('entity', { name: 'v1' }), /reserved/],
          [edited('tag', { name: 'sha256.0' }), /hash/],
          [edited('image', { digest: 'none' }), /digest/],
          [edited('user', { role: 'owner' }), /role/],
          [edited('entity', { quota: -1 }), /quota/],
          [edited('tag', { frozen: 1 }), /frozen/],
          [edited('image', { id: '../x' }), /id/],
          [edited('container', { private: 'no' }), /private/],
          [[{ type: 'blob' }], /does not know/],
          [repository(rows).map((row) => ({ ...row, digest: 'sha256:x' })), /digest/],
          [repository(rows).map((row) => ({ ...row, text: '{}' })), /another one/],
        ] as const) {
          const { id } = await open(await importHead())
          expectRefusal(await stage(id, [...wrong]), 400, words)
          await admin.call('DELETE', `/v1/imports/${id}`)
        }
        for (const wrong of [
          // into a container that is here and not in the file
          edited('image', { containerId: mine }),
          edited('tag', { containerId: mine }),
          edited('tag', { arch: 's390x' }),
          edited('image', { size: bytes.length + 1 }),
          rows.filter(({ type }) => type !== 'collection'),
        ]) {
          const head = await importHead()
          const { id } = await open(head)
          await stage(id, wrong)
          await send(id, bytes)
          expectRefusal(await finish(id, head, wrong.length), 400, /do not fit together/)
          await admin.call('DELETE', `/v1/imports/${id}`)
        }
        expect(
          (await admin.call('GET', '/v1/containers/boss/c/own')).json.data.images,
        ).toHaveLength(1)
      })

      test('manifests are what their digest says, blobs need be no SIF (R42)', async () => {
        const { rows, bytes, ref } = small()
        const more = repository(rows)
        const [, manifest] = more
        const all = [...rows, ...more]
        for (const [wrong, status, words] of [
          // no membership for what the manifest names
          [[...rows, manifest], 400, /do not fit together/],
          [all.filter(({ type }) => type !== 'container'), 400, /do not fit together/],
        ] as const) {
          const head = await importHead()
          const { id } = await open(head)
          await stage(id, wrong as unknown[])
          await send(id, bytes)
          await send(id, LAYER)
          expectRefusal(await finish(id, head, wrong.length), status, words)
          await admin.call('DELETE', `/v1/imports/${id}`)
        }
        const head = await importHead()
        const { id } = await open(head)
        // nobody has said yet that a repository has it
        expectRefusal(await send(id, LAYER), 400, /no SIF/)
        await stage(id, all)
        await send(id, bytes)
        expectRefusal(await finish(id, head, all.length), 503, /missing/)
        await send(id, LAYER)
        expect((await finish(id, head, all.length)).json.data.rows).toMatchObject({
          membership: 1,
          manifest: 1,
          ociTag: 1,
        })
        const nobody = ociClient(copy.url)
        const got = await nobody.call('GET', `/v2/${ref}/manifests/V_1`)
        expect([got.status, got.text]).toEqual([200, manifest?.text])
        const blob = await nobody.call('GET', `/v2/${ref}/blobs/sha256:${sha256(LAYER)}`)
        expect(Buffer.compare(blob.bytes, LAYER)).toBe(0)
      })

      test('what stands in the way is listed', async () => {
        const { rows, bytes } = small()
        const head = await importHead()
        const { id } = await open(head)
        await stage(id, rows)
        await send(id, bytes)
        expect((await finish(id, head, rows.length)).status).toBe(200)
        const next = await importHead()
        const second = await open(next)
        await stage(second.id, rows)
        await send(second.id, bytes)
        const refused = await finish(second.id, next, rows.length)
        expectRefusal(refused, 409, /entity mover\d+ holds collections here already/)
        await admin.call('DELETE', `/v1/imports/${second.id}`)
        expectRefusal(await finish(second.id, next, rows.length), 409, /has ended/)
      })

      test('blobs go out by digest, in ranges', async () => {
        const bytes = sampleSif({ content: 'ranged' })
        const { digest } = await admin.push('boss/c/ranged', bytes)
        const get = (range?: string) =>
          fetch(`${copy.url}/v1/exports/blobs/${digest}`, {
            headers: {
              authorization: `Bearer ${admin.token}`,
              ...(range === undefined ? {} : { range }),
            },
          })
        const whole = await get()
        expect([whole.status, sha256(new Uint8Array(await whole.arrayBuffer()))]).toEqual([
          200,
          digest,
        ])
        const part = await get('bytes=100-199')
        expect([part.status, new Uint8Array(await part.arrayBuffer())]).toEqual([
          206,
          bytes.slice(100, 200),
        ])
        const past = await get(`bytes=${bytes.length}-`)
        expect(past.status).toBe(416)
        await past.arrayBuffer()
      })
    })
  })
}

let made = 0
const hexId = () => `${(made += 1)}`.padStart(4, '0') + `${Date.now()}`.padStart(20, '0')

const importHead = async () => ({
  type: 'head',
  exportId: hexId(),
  registryId: 'elsewhere',
  keys: ['theirs'],
  createdAt: 0,
})

/** Rows and bytes of one tagged image of one new user. */
function small() {
  const name = `mover${(made += 1)}`
  const bytes = sampleSif({ content: name })
  const digest = sha256(bytes)
  const [user, entity, collection, container, image] = [hexId(), hexId(), hexId(), hexId(), hexId()]
  const times = { createdAt: 1000, updatedAt: 2000 }
  const rows = [
    {
      type: 'tag',
      containerId: container,
      name: 'latest',
      arch: 'amd64',
      imageId: image,
      updatedAt: 1,
    },
    {
      type: 'image',
      id: image,
      containerId: container,
      digest,
      size: bytes.length,
      arch: 'amd64',
      description: '',
      createdBy: user,
      ...times,
    },
    {
      type: 'container',
      id: container,
      collectionId: collection,
      name: 'n',
      description: '',
      fullDescription: '',
      private: false,
      downloads: 3,
      ...times,
    },
    {
      type: 'collection',
      id: collection,
      entityId: entity,
      name: 'c',
      description: '',
      private: false,
      ...times,
    },
    {
      type: 'entity',
      id: entity,
      ownerId: user,
      name,
      description: '',
      defaultPrivate: false,
      ...times,
    },
    { type: 'user', id: user, name, role: 'user', disabled: false, createdAt: 1 },
  ]
  return { rows, bytes, digest, ref: `${name}/c/n` }
}

const LAYER = Buffer.from('no image at all')

/** A tagged manifest of the container of those rows, and the blob that it names. */
function repository(rows: { type: string; id?: string; createdBy?: string }[]) {
  const containerId = rows.find(({ type }) => type === 'container')?.id
  const createdBy = rows.find(({ type }) => type === 'user')?.id
  const blob = { digest: `sha256:${sha256(LAYER)}`, size: LAYER.length }
  const mediaType = 'application/vnd.oci.image.manifest.v1+json'
  const text = JSON.stringify({
    schemaVersion: 2,
    config: { mediaType: 'application/x', ...blob },
    layers: [],
  })
  const digest = `sha256:${sha256(Buffer.from(text))}`
  return [
    { type: 'membership', containerId, ...blob, sha256: sha256(LAYER), createdAt: 1 },
    {
      type: 'manifest',
      containerId,
      digest,
      mediaType,
      text,
      pieces: 1,
      blobs: [],
      createdBy,
      createdAt: 2,
    },
    { type: 'ociTag', containerId, name: 'V_1', manifest: digest, frozen: false, updatedAt: 3 },
  ]
}

/** An export of them. */
async function smallFile(): Promise<Buffer> {
  const { rows, bytes } = small()
  const parts: Uint8Array[] = []
  const chunks = writeArchive({
    head: async () => ({ ...(await importHead()), type: 'head' }),
    page: async () => ({ rows: rows as MovedRow[], cursor: null }),
    async *blob() {
      yield bytes
    },
  })
  for await (const chunk of chunks) parts.push(chunk)
  return Buffer.concat(parts)
}

/** What an administrator sees of a whole registry, and what its store holds. */
async function stateOf(target: Target, token: string): Promise<unknown> {
  const admin = libraryClient(target.url, token)
  const users = await admin.call('GET', '/v1/users')
  const entities = await admin.call('GET', '/v1/entities')
  const name = ({ name }: { name: string }) => name
  return [
    users.json.data.map(name),
    entities.json.data.map(name).toSorted(),
    await target.store.names(),
  ]
}
