/** Export and import by the command line on data folders: R41, R42, R10. */
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import BetterSqlite3 from 'better-sqlite3'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { runCommand, type MovingServices } from '../../adapters/host/cli.ts'
import { movingServices } from '../../adapters/host/program.ts'
import { moving, openAdmin, platform } from '../../adapters/node/main.ts'
import { systemClock } from '../../adapters/system.ts'
import { readArchive } from '../../src/admin.ts'
import { libraryClient, sha256 } from '../protocol/client.ts'
import { ociClient } from '../protocol/oci.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { diskStore, nodeTarget, type Target } from '../runtimes/target.ts'
import { fill, REPOSITORIES, repositories, seen, shared } from './world.ts'

type Ended = { code: number; out: Uint8Array; err: string; printed: string }

/** Runs a command in this process; `input` is standard input. */
async function sreg(
  args: string[],
  input?: Uint8Array,
  services: MovingServices = moving,
): Promise<Ended> {
  const out: Uint8Array[] = []
  let [err, printed] = ['', '']
  const code = await runCommand(args, {
    version: '0.0.0',
    env: { PATH: '' },
    home: tmpdir(),
    osUser: 'someone',
    hostname: 'here',
    clock: systemClock,
    openAdmin,
    moving: {
      ...services,
      async *bytesIn() {
        yield input ?? new Uint8Array()
      },
      // what is written may be used again afterwards
      bytesOut: async (chunk) => void out.push(chunk.slice()),
    },
    serve: () => Promise.reject(new Error('not in this process')),
    readStandardInput: () => Promise.resolve(''),
    print: (text) => (printed += text),
    say: (line) => (err += `${line}\n`),
  })
  return { code, out: Buffer.concat(out), err, printed }
}

/** Every row of every table of a data folder, and the names of its blobs. */
async function dump(data: string): Promise<unknown> {
  const sqlite = new BetterSqlite3(join(data, 'sreg.sqlite3'), { readonly: true })
  try {
    const tables = sqlite
      .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
      .all() as { name: string }[]
    const rows = tables.map(({ name }) => [name, sqlite.prepare(`SELECT * FROM "${name}"`).all()])
    return { rows, blobs: await diskStore(data).names() }
  } finally {
    sqlite.close()
  }
}

let base: string
let source: Target
let world: Awaited<ReturnType<typeof fill>>
let file: string
const targets: Target[] = []
const target = async (data?: string) => {
  const made = await nodeTarget(data === undefined ? {} : { data })
  targets.push(made)
  return made
}

beforeAll(async () => {
  // what the commands log goes to the runner's stderr else
  process.env['SREG_LOG'] = 'off'
  base = await mkdtemp(join(tmpdir(), 'sreg-move-'))
  source = await target()
  world = await fill(source, 50)
  file = join(base, 'registry.sreg')
  const { code, err } = await sreg(['export', file, '--data', source.data])
  expect([code, err]).toEqual([0, expect.stringMatching(/^Exported \d+ rows and 49 blobs of /)])
})
afterAll(async () => {
  for (const made of targets) await made.stop()
  await rm(base, { recursive: true, force: true })
})

describe('a registry moves by one file', () => {
  it('the file is for its owner only, and holds no secret', async () => {
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    const text = (await readFile(file)).toString('latin1')
    const keys = await readFile(join(source.data, 'signing-keys.json'), 'utf8')
    const { d } = (JSON.parse(keys) as { current: { d: string } }).current
    const secret = (await readFile(join(source.data, 'secret'), 'utf8')).trim()
    expect([text.includes(d), text.includes(secret)]).toEqual([false, false])
    expect(world.tokens.filter(({ jwt }) => text.includes(jwt))).toEqual([])
  })

  it('50 images of 5 users, private places, shared bytes: all the same on the other side', async () => {
    const copy = await target()
    const { code, err } = await sreg(['import', file, '--data', copy.data])
    expect([code, err]).toEqual([0, expect.stringContaining('Imported 50 images')])
    // tokens are of the other registry: live ones are to be made anew, each with its owner
    const reissue = err
      .split('\n')
      .filter((line) => /^ {2}(ada|bob|cleo|dora|emil): test/.test(line))
    expect(reissue).toHaveLength(5)

    const there = await source.mint('boss', { admin: true, scopes: ['pull', 'admin'] })
    const here = await copy.mint('boss', { admin: true, scopes: ['pull', 'admin'] })
    const before = await seen(source.url, there.jwt, world.refs)
    expect(before.length).toBeGreaterThan(60)
    const stored = await repositories(source.url, there.jwt)
    expect(stored).toHaveLength(REPOSITORIES)
    expect(await repositories(copy.url, here.jwt)).toEqual(stored)
    expect(await seen(copy.url, here.jwt, world.refs)).toEqual(before)
    // what strangers see
    const public_ = await seen(source.url, null, world.refs)
    expect(await seen(copy.url, null, world.refs)).toEqual(public_)
    expect(public_).not.toEqual(before)
    // owners are owners
    const ada = await copy.mint('ada')
    const adas = world.refs.filter((ref) => ref.startsWith('ada/'))
    const own = world.tokens.find(({ user, revoked }) => user === 'ada' && !revoked)?.jwt ?? ''
    expect(await seen(copy.url, ada.jwt, adas)).toEqual(await seen(source.url, own, adas))
    // an import is not held to quotas, and what comes after it is
    const later = (jwt: string, ref: string) =>
      libraryClient(copy.url, jwt).push(ref, sampleSif({ content: 'later' }))
    await expect(later(ada.jwt, 'ada/c1/n9')).rejects.toThrow('of the 1 bytes it may use')
    await later((await copy.mint('bob')).jwt, 'bob/c1/n9')

    // and once more changes nothing
    const still = await dump(copy.data)
    const again = await sreg(['import', file, '--data', copy.data])
    expect([again.code, again.err]).toEqual([0, expect.stringContaining('imported before')])
    expect(await dump(copy.data)).toEqual(still)
  })

  it('with its secrets it goes on as the same registry, tokens and revocations included', async () => {
    const whole = join(base, 'secrets.sreg')
    expect((await sreg(['export', whole, '--with-secrets', '--data', source.data])).code).toBe(0)
    const data = join(base, 'restored')
    const { code, err } = await sreg(['import', whole, '--with-secrets', '--data', data])
    expect([code, err]).toEqual([0, expect.stringContaining('Imported 50 images')])
    expect(err).not.toContain('Make new ones')
    const restored = await target(data)
    const roles = async (of: string) => {
      const { admin: books, close } = await openAdmin(of)
      const users = await books.listUsers()
      close()
      // whom another issuer vouches for comes back by itself
      return users
        .filter(({ name }) => !name.startsWith('oidc:'))
        .map(({ name, role, managerId }) => [name, role, managerId])
        .toSorted()
    }
    expect(await roles(data)).toEqual(await roles(source.data))
    expect(await roles(data)).toContainEqual(['sven', 'staff', null])
    for (const { user, jwt, revoked } of world.tokens) {
      const client = libraryClient(restored.url, jwt)
      expect((await client.call('GET', `/v1/entities/${user}`)).status).toBe(revoked ? 401 : 200)
    }
    const admin = await readFile(join(source.data, 'signing-keys.json'), 'utf8')
    expect(await readFile(join(data, 'signing-keys.json'), 'utf8')).toBe(admin)
    // not over anything that is there
    const twice = await sreg(['import', whole, '--with-secrets', '--data', data])
    expect([twice.code, twice.err]).toEqual([1, expect.stringContaining('is not empty')])
    const without = await sreg(['import', file, '--with-secrets', '--data', join(base, 'none')])
    expect([without.code, without.err]).toEqual([2, expect.stringContaining('holds no secrets')])
    await expect(stat(join(base, 'none'))).rejects.toThrow('ENOENT')
  })

  it('to standard output and from standard input', async () => {
    const { code, out } = await sreg(['export', '-', '--data', source.data])
    expect(code).toBe(0)
    const copy = await target()
    expect((await sreg(['import', '-', '--data', copy.data], out)).err).toContain('50 images')
    expect(await seen(copy.url, null, world.refs)).toEqual(await seen(source.url, null, world.refs))
  })
})

describe('a file that is not whole', () => {
  let victim: Target
  let bytes: Buffer
  let before: unknown
  beforeAll(async () => {
    victim = await target()
    // small: each case reads the whole file
    const small = await target()
    await fill(small, 6)
    const path = join(base, 'small.sreg')
    expect((await sreg(['export', path, '--data', small.data])).code).toBe(0)
    bytes = await readFile(path)
    const mallory = await victim.mint('mallory')
    await libraryClient(victim.url, mallory.jwt).push('mallory/c/n', sampleSif())
    before = await dump(victim.data)
  })
  const refused = async (altered: Uint8Array, what: unknown) => {
    const { code, err } = await sreg(['import', '-', '--data', victim.data], altered)
    expect([what, code, err]).toEqual([what, 2, expect.stringMatching(/\S/)])
  }

  it('is refused at every kind of place it may end, and changes nothing', async () => {
    const text = bytes.toString('latin1')
    const lines = [...text.matchAll(/\n/g)].map(({ index }) => index)
    const blob = text.indexOf('{"type":"blob"')
    const raw = text.indexOf('\n', blob) + 1
    const cuts = [
      0,
      1,
      18,
      19,
      lines[1] ?? 0,
      (lines[1] ?? 0) + 1,
      (lines[3] ?? 0) - 5,
      (lines[3] ?? 0) + 1,
      blob,
      blob + 20,
      raw,
      raw + 1,
      raw + 32_768,
      text.lastIndexOf('{"type":"blob"'),
      text.lastIndexOf('{"type":"end"'),
      bytes.length - 30,
      bytes.length - 1,
    ]
    for (const cut of cuts) await refused(bytes.subarray(0, cut), cut)
    await refused(Buffer.concat([bytes, Buffer.from('\n')]), 'one byte more')
    await refused(Buffer.concat([bytes, bytes]), 'twice')
    expect(await dump(victim.data)).toEqual(before)
  })

  it('is refused with any one byte altered, and changes nothing', async () => {
    // places spread over the file and, as rows are the smaller part of it, over the rows
    const blob = bytes.indexOf('{"type":"blob"')
    let state = 42
    const random = (below: number) => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
      return Math.floor((state / 2 ** 32) * below)
    }
    for (let n = 0; n < 60; n += 1) {
      const place =
        n < 25 ? random(blob) : n < 50 ? random(bytes.length) : bytes.length - 1 - random(110)
      const altered = Buffer.from(bytes)
      altered[place] = (altered[place] ?? 0) ^ (1 + random(255))
      await refused(altered, `${place} of ${bytes.length}`)
    }
    expect(await dump(victim.data)).toEqual(before)
    // the control: unaltered, it is fine
    const fine = await sreg(['import', '-', '--data', victim.data], bytes)
    expect([fine.code, fine.err]).toEqual([0, expect.stringContaining('Imported 6 images')])
  })
})

describe('what stands in the way', () => {
  it('is listed by name, and nothing is imported', async () => {
    const other = await target()
    const bob = await other.mint('bob')
    await libraryClient(other.url, bob.jwt).push('bob/mine/own', sampleSif())
    // waits without anything in it: no obstacle
    await other.mint('cleo')
    const before = await dump(other.data)
    const { code, err } = await sreg(['import', file, '--data', other.data])
    expect(code).toBe(1)
    expect(err).toContain('entity bob holds collections here already')
    expect(err).not.toMatch(/entity (ada|cleo|dora|emil)/)
    expect(await dump(other.data)).toEqual(before)
  })

  it('is not a user of the same name, who is the same user', async () => {
    const other = await target()
    const cleo = await other.mint('cleo')
    expect((await sreg(['import', file, '--data', other.data])).code).toBe(0)
    const cleos = world.refs.filter((ref) => ref.startsWith('cleo/'))
    const own = world.tokens.find(({ user, revoked }) => user === 'cleo' && !revoked)?.jwt ?? ''
    expect(await seen(other.url, cleo.jwt, cleos)).toEqual(await seen(source.url, own, cleos))
  })

  it('an import makes nobody administrator, and says so', async () => {
    const small = await target()
    await small.mint('chief', { admin: true, scopes: ['pull', 'admin'] })
    const path = join(base, 'chief.sreg')
    await sreg(['export', path, '--data', small.data])
    const other = await target()
    const { err } = await sreg(['import', path, '--data', other.data])
    expect(err).toContain('ordinary users here are: chief')
    const { admin, close } = await openAdmin(other.data)
    const users = await admin.listUsers()
    close()
    expect(users.map(({ name, role }) => [name, role])).toEqual([
      ['admin', 'admin'],
      ['chief', 'user'],
    ])
  })
})

describe('what the logs tell, and what was left behind', () => {
  it('an export and an import leave a row in the audit log and a line in the log', async () => {
    const copy = await target()
    const lines: string[] = []
    const write = process.stderr.write.bind(process.stderr)
    process.stderr.write = (text: string | Uint8Array) => lines.push(String(text)) > 0
    vi.stubEnv('SREG_LOG', 'json')
    try {
      const told = movingServices(platform)
      const path = join(base, 'told.sreg')
      await sreg(['export', path, '--data', source.data], undefined, told)
      await sreg(['import', path, '--data', copy.data], undefined, told)
      for (const event of ['export', 'import'])
        await vi.waitFor(() =>
          expect(lines.join('')).toMatch(new RegExp(`"event":"${event}".*"by":"cli:`)),
        )
    } finally {
      process.stderr.write = write
      vi.unstubAllEnvs()
    }
    const rows = [source.data, copy.data].flatMap((data) => {
      const sqlite = new BetterSqlite3(join(data, 'sreg.sqlite3'), { readonly: true })
      const found = sqlite.prepare('SELECT actor, action, name FROM audit ORDER BY seq DESC').all()
      sqlite.close()
      return found.slice(0, 1) as { actor: string; action: string; name: string }[]
    })
    expect(rows).toMatchObject([{ action: 'export' }, { action: 'import' }])
    expect(rows[0]?.actor).toMatch(/^cli:./)
    expect(rows[1]?.name).toBe(rows[0]?.name)
  })

  it('an open import is listed, and aborted with its bytes', async () => {
    const other = await target()
    const before = await other.store.names()
    const bytes = await readFile(file)
    const cut = bytes.indexOf('{"type":"blob"', bytes.length / 2)
    const broken = (async function* () {
      yield new Uint8Array(bytes.subarray(0, cut))
      throw new Error('the connection ended')
    })()
    const into = await moving.open(other.data)
    await expect(readArchive(broken, into.sink)).rejects.toThrow('the connection ended')
    into.close()
    expect((await other.store.names()).length).toBeGreaterThan(before.length)
    const list = async () =>
      JSON.parse((await sreg(['imports', 'list', '--json', '--data', other.data])).printed) as {
        id: string
        bytes: number
      }[]
    const [open, ...more] = await list()
    expect(more).toEqual([])
    expect(open?.bytes).toBeGreaterThan(0)
    const words = (await sreg(['imports', 'list', '--data', other.data])).printed
    expect(words).toContain(open?.id)
    const abort = () => sreg(['imports', 'abort', open?.id ?? '', '--data', other.data])
    expect(await abort()).toMatchObject({ code: 0, err: expect.stringContaining('Aborted import') })
    expect(await list()).toEqual([])
    expect(await other.store.names()).toEqual(before)
    expect(await abort()).toMatchObject({ code: 1, err: expect.stringContaining('no open import') })
    expect((await sreg(['imports', 'abort', 'x', '--data', other.data])).code).toBe(1)
  })
})

describe('a file of an older version', () => {
  it('comes without what it does not know: roles, quotas, frozen names', async () => {
    const other = await target()
    const old = join(import.meta.dirname, '../fixtures/export-0.1.sreg')
    const { code, err } = await sreg(['import', old, '--data', other.data])
    expect([code, err]).toEqual([0, expect.stringContaining('Imported 1 images')])
    const boss = await other.mint('boss', { admin: true, scopes: ['pull', 'admin'] })
    const { facts } = await shared(other, boss.jwt, [])
    expect(facts).toContainEqual(expect.stringMatching(/"name":"latest".*"frozen":false/))
    const got = await fetch(`${other.url}/v1/imagefile/olga/c/n:latest?arch=amd64`)
    expect(sha256(new Uint8Array(await got.arrayBuffer()))).toBe(
      sha256(sampleSif({ content: 'old' })),
    )
    const olga = await other.mint('olga')
    await libraryClient(other.url, olga.jwt).push('olga/c/m', sampleSif({ content: 'new' }))
  })
})

describe('beside a running server', () => {
  it('pushes go on while an import runs, and what they store is used', async () => {
    const other = await target()
    const zoe = await other.mint('zoe')
    const client = libraryClient(other.url, zoe.jwt)
    const importing = { still: true }
    const pushes = (async () => {
      let n = 0
      for (; importing.still; n += 1)
        await client.push(`zoe/c/n${n}`, sampleSif({ content: `zoe ${n}` }))
      return n
    })()
    const { code } = await sreg(['import', file, '--data', other.data])
    importing.still = false
    const pushed = await pushes
    expect(code).toBe(0)
    expect(pushed).toBeGreaterThan(0)
    expect(await seen(other.url, null, world.refs)).toEqual(
      await seen(source.url, null, world.refs),
    )
  })

  it('bytes that are here already are not stored again', async () => {
    const other = await target()
    const zoe = await other.mint('zoe')
    // the bytes of an image of the file, pushed here by somebody else
    const ref = world.refs.find((name) => name === 'ada/c0/n0') ?? ''
    const own = world.tokens.find(({ user, revoked }) => user === 'ada' && !revoked)?.jwt ?? ''
    const got = await fetch(`${source.url}/v1/imagefile/${ref}:v0?arch=amd64`, {
      headers: { authorization: `Bearer ${own}` },
    })
    const bytes = new Uint8Array(await got.arrayBuffer())
    await libraryClient(other.url, zoe.jwt).push('zoe/c/n', bytes)
    // and the config of the images of OCI
    await ociClient(other.url, zoe.jwt).blob('zoe/c/oci', Buffer.from('{}'))
    expect((await sreg(['import', file, '--data', other.data])).code).toBe(0)
    expect(await other.store.names()).toHaveLength(49)
    const ada = await other.mint('ada')
    const mine = await fetch(`${other.url}/v1/imagefile/${ref}:v0?arch=amd64`, {
      headers: { authorization: `Bearer ${ada.jwt}` },
    })
    expect(sha256(new Uint8Array(await mine.arrayBuffer()))).toBe(sha256(bytes))
  })
})
