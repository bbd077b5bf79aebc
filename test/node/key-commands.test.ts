/** sreg-lite key: on a data folder, and asked of a server with an ordinary token (R46). */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { clearSign, makeKey, revoked } from '../fixtures/make-key.ts'
import { nodeTarget, type Target } from '../runtimes/target.ts'
import { command } from './command.ts'

let base: string
let target: Target
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'sreg-keys-'))
  target = await nodeTarget()
  for (const user of ['alice', 'bob']) await tokenFile(user, (await target.mint(user)).jwt)
  await tokenFile('boss', (await target.mint('boss', { admin: true, scopes: ['admin'] })).jwt)
})
afterAll(async () => {
  await target.stop()
  await rm(base, { recursive: true, force: true })
})

const file = async (name: string, text: string) => {
  await writeFile(join(base, name), text)
  return join(base, name)
}
const tokenFile = (user: string, jwt: string) => file(`token-${user}`, jwt)

const sreg = (args: string[], stdin = '') => command(base, args, stdin)
/** On the data folder, beside the running server. */
const local = (args: string[], stdin = '') => sreg([...args, '--data', target.data], stdin)
const as = (user: string, args: string[], stdin = '') =>
  sreg([...args, '--server', target.url, '--token-file', join(base, `token-${user}`)], stdin)

const listed = async (run: Promise<{ out: string }>) =>
  JSON.parse((await run).out) as { fingerprint: string; owner: string | null }[]

describe('key on a data folder', () => {
  it('adds, lists, gives to a user and removes for good', async () => {
    const key = await makeKey('Local \u202e key')
    const { fingerprint } = key
    const added = await local(['key', 'add', await file('local.asc', key.armor)])
    expect(added).toEqual({ code: 0, out: '', err: `Received ${fingerprint}\n` })
    const list = await local(['key', 'list'])
    expect(list.out).toMatch(/^FINGERPRINT +OWNER +STATE +CREATED +USER ID\n/)
    expect(list.out).toContain(fingerprint)
    expect(list.out).not.toContain('\u202e')
    expect(await local(['key', 'claim', fingerprint])).toMatchObject({ code: 2, out: '' })
    expect(await local(['key', 'claim', fingerprint, '--user', 'nobody'])).toMatchObject({
      code: 1,
    })
    expect(await local(['key', 'claim', fingerprint, '--user', 'alice'])).toMatchObject({ code: 0 })
    expect(await listed(local(['key', 'list', '--json']))).toMatchObject([
      { fingerprint, owner: 'alice' },
    ])
    const spaced = fingerprint.toLowerCase().replace(/(.{4})/g, '$1 ')
    expect(await local(['key', 'remove', spaced])).toMatchObject({ code: 0 })
    expect(await listed(local(['key', 'list', '--json']))).toEqual([])
    expect(await local(['key', 'remove', fingerprint])).toMatchObject({ code: 1 })
  })

  it('refuses what is no key and no fingerprint', async () => {
    expect(await local(['key', 'add', '-'], 'nothing')).toMatchObject({ code: 2, out: '' })
    const secret = (await makeKey('Secret')).secret.armor()
    const refused = await local(['key', 'add', '-'], secret)
    expect(refused.err).toMatch(/secret key/)
    expect(refused.err).not.toContain(secret.slice(60, 90))
    expect(await local(['key', 'remove', '0x12'])).toMatchObject({ code: 2 })
  })
})

describe('key on a server', () => {
  it('add, claim in two steps, list, remove', async () => {
    const key = await makeKey('Remote')
    const { fingerprint } = key
    expect(await as('alice', ['key', 'add', '-'], key.armor)).toEqual({
      code: 0,
      out: '',
      err: `Received the key ${fingerprint}\n`,
    })
    expect(await listed(as('alice', ['key', 'list', '--json']))).toEqual([])
    const challenge = await as('alice', ['key', 'claim', fingerprint])
    expect(challenge.code).toBe(0)
    const signed = await clearSign(challenge.out.trimEnd(), key)
    const stolen = await as('bob', ['key', 'claim', fingerprint, '--signed', '-'], signed)
    expect(stolen).toMatchObject({ code: 1, out: '' })
    expect(stolen.err).toMatch(/another key or account/)
    expect(await as('alice', ['key', 'claim', fingerprint, '--signed', '-'], signed)).toEqual({
      code: 0,
      out: '',
      err: `The key ${fingerprint} is yours now.\n`,
    })
    expect(await listed(as('alice', ['key', 'list', '--json']))).toMatchObject([
      { fingerprint, owner: 'alice' },
    ])
    expect((await as('alice', ['key', 'list'])).out).toMatch(/ alice +valid /)
    expect(await as('bob', ['key', 'remove', fingerprint])).toMatchObject({ code: 1 })
    expect(await as('alice', ['key', 'remove', fingerprint])).toMatchObject({ code: 0 })
    expect((await as('alice', ['key', 'list'])).out).toMatch(/ removed /)
    expect(await as('alice', ['key', 'add', '-'], await revoked(key))).toMatchObject({ code: 0 })
    expect((await as('alice', ['key', 'list'])).out).toMatch(/ revoked /)
  })

  it('an administrator sees and removes every key', async () => {
    const key = await makeKey('Spam')
    await as('bob', ['key', 'add', '-'], key.armor)
    const all = await listed(as('boss', ['key', 'list', '--json']))
    expect(all.map(({ fingerprint }) => fingerprint)).toContain(key.fingerprint)
    expect(await as('boss', ['key', 'remove', key.fingerprint])).toMatchObject({ code: 0 })
    const refused = await as('boss', ['key', 'remove', key.fingerprint])
    expect(refused).toMatchObject({ code: 1, err: expect.stringMatching(/no such key/) })
  })
})
