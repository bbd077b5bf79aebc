/** sreg-lite usage, quota, share, star and stats: on a data folder, and asked of a server. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parseSize } from '../../adapters/host/commands/quotas.ts'
import { SERVER_URL_FILE } from '../../adapters/host/data-folder.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { libraryClient, sha256 } from '../protocol/client.ts'
import { nodeTarget, type Target } from '../runtimes/target.ts'
import { command } from './command.ts'

const IMAGE = sampleSif({ content: 'commanded' })
let base: string
let target: Target
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'sreg-quotas-'))
  target = await nodeTarget()
  // as the program notes it when it serves
  await writeFile(join(target.data, SERVER_URL_FILE), target.url)
  for (const user of ['alice', 'bob'])
    await writeFile(join(base, user), (await target.mint(user)).jwt)
  const { jwt } = await target.mint('alice')
  await libraryClient(target.url, jwt).push('alice/c/box', IMAGE)
})
afterAll(async () => {
  await target.stop()
  await rm(base, { recursive: true, force: true })
})

const sreg = (args: string[]) => command(base, args)
/** On the data folder, beside the running server. */
const local = (...args: string[]) => sreg([...args, '--data', target.data])
const as = (user: string, ...args: string[]) =>
  sreg([...args, '--server', target.url, '--token-file', join(base, user)])

it('shows usage and sets quotas', async () => {
  const used = `${Math.round(IMAGE.length / 1024)} KiB`
  expect((await as('alice', 'usage')).out).toBe(
    `ENTITY  USED    LIMIT  ON ITS WAY  COLLECTIONS  CONTAINERS  IMAGES\nalice   ${used}  none               1            1           1\n`,
  )
  expect(await local('quota', 'alice', '20GiB')).toEqual({
    code: 0,
    out: '',
    err: `alice may use 20 GiB, and uses ${used}.\n`,
  })
  const [mine] = JSON.parse((await as('alice', 'usage', '--json')).out)
  expect(mine).toMatchObject({ entity: 'alice', used: IMAGE.length, limit: 20 * 1024 ** 3 })
  expect((await local('quota', 'alice', '1B')).err).toContain('nothing new fits')
  expect((await local('quota', 'alice', 'none')).err).toContain('any amount')
  expect(await local('quota', 'alice', 'default')).toMatchObject({ code: 0 })
  expect(await local('quota', 'alice', 'much')).toEqual({
    code: 2,
    out: '',
    err: 'error: Use a size such as 100GiB or 500MB, or none, or default.\n',
  })
  expect(await as('alice', 'quota', 'alice', 'none')).toMatchObject({ code: 1 })
  expect(await as('bob', 'usage', 'alice')).toMatchObject({ code: 1 })
  expect((await local('usage')).out.split('\n').map((line) => line.split(' ')[0])).toEqual(
    expect.arrayContaining(['alice', 'bob']),
  )
})

it('reads sizes as people write them', () => {
  const sizes = { '1': 1, '10B': 10, '1kB': 1000, '1KiB': 1024, '1.5 GiB': 1.5 * 1024 ** 3 }
  for (const [text, bytes] of Object.entries(sizes))
    expect([text, parseSize(text)]).toEqual([text, bytes])
  for (const text of ['', '0', 'GiB', '-1', '1iB', '9999999TiB', '1e3'])
    expect(() => parseSize(text), text).toThrow(/100GiB/)
})

it('makes, lists and revokes links, which whoever has them follows', async () => {
  for (const run of [as.bind(null, 'alice'), local]) {
    const made = await run(
      'share',
      'library://alice/c/box:latest',
      '--count',
      '1',
      '--expires',
      '30m',
    )
    expect(made.err).toMatch(/^Link [0-9a-f]{24}, good until \S+, for 1 download\.\n$/)
    expect(made.out).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/share\?s=[\w-]{22}\n$/)
    const url = made.out.trim()
    expect(sha256(new Uint8Array(await (await fetch(url)).arrayBuffer()))).toBe(sha256(IMAGE))
    expect((await fetch(url)).status).toBe(404)
  }
  const { err } = await as('alice', 'share', 'alice/c/box', '--note', 'for \u202eBob')
  const id = err.slice(5, 29)
  const list = await as('alice', 'share', 'list', 'alice/c/box')
  expect(list.out).toMatch(new RegExp(`${id} +alice/c/box +alice +good .* any +for \ufffdBob`))
  expect(list.out.match(/used up/g)).toHaveLength(2)
  expect(await as('bob', 'share', 'revoke', id)).toMatchObject({ code: 1 })
  expect(await as('alice', 'share', 'revoke', id)).toMatchObject({ code: 0 })
  const [newest] = JSON.parse((await as('alice', 'share', 'list', '--json')).out)
  expect(newest).toMatchObject({ id, revokedAt: expect.stringMatching(/^\d{4}/) })
  expect(await as('bob', 'share', 'alice/c/box')).toMatchObject({ code: 1, out: '' })
  expect(await as('alice', 'share', 'alice/c/box', '--count', '0')).toMatchObject({ code: 2 })
  expect(await as('alice', 'share', 'alice/c/box', '--expires', '1y')).toMatchObject({ code: 2 })
})

it('gives stars, takes them back, and shows statistics', async () => {
  expect(await as('bob', 'star', 'alice/c/box')).toMatchObject({ code: 0 })
  expect((await as('bob', 'star')).out).toBe('CONTAINER    STARS\nalice/c/box  1\n')
  const stats = await as('bob', 'stats', 'alice/c/box')
  expect(stats.out.split('\n')).toHaveLength(15)
  expect(stats.err).toBe('1 star.\n')
  expect(await as('bob', 'unstar', 'alice/c/box')).toMatchObject({ code: 0 })
  expect(JSON.parse((await local('stats', 'alice/c/box', '--json')).out).stars).toBe(0)
  expect(await local('star', 'alice/c/box')).toMatchObject({ code: 1 })
})
