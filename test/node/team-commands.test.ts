/** sreg-lite team, grant, freeze and remove: on a data folder, and asked of a server. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { SCOPES } from '../../src/core/model.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { libraryClient } from '../protocol/client.ts'
import { nodeTarget, type Target } from '../runtimes/target.ts'
import { command } from './command.ts'

let base: string
let target: Target
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'sreg-teams-'))
  target = await nodeTarget()
  for (const user of ['alice', 'bob']) {
    const { jwt } = await target.mint(user, { scopes: [...SCOPES] })
    await writeFile(join(base, `token-${user}`), jwt)
    if (user === 'alice')
      await libraryClient(target.url, jwt).push('alice/c/box', sampleSif({ content: 'box' }))
  }
})
afterAll(async () => {
  await target.stop()
  await rm(base, { recursive: true, force: true })
})

const sreg = (args: string[], stdin = '') => command(base, args, stdin)
const local = (args: string[]) => sreg([...args, '--data', target.data])
const as = (user: string, args: string[], stdin = '') =>
  sreg([...args, '--server', target.url, '--token-file', join(base, `token-${user}`)], stdin)
const good = { code: 0 }

describe('team, at a server', () => {
  it('add, invite, accept, show, leave, remove', async () => {
    expect(await as('alice', ['team', 'add', 'lab', '--description', 'us'])).toMatchObject(good)
    const invited = await as('alice', ['team', 'invite', 'lab', '--expires', '1d'])
    expect(invited.out).toMatch(/^[0-9a-f]{32}\n$/)
    expect((await as('alice', ['team', 'invitations', 'lab'])).out).toMatch(/ alice /)
    expect((await as('bob', ['team', 'list'])).out).not.toContain('lab')
    // the token is from the file, so the secret may come from standard input
    expect(await as('bob', ['team', 'accept', '-'], invited.out)).toMatchObject({
      code: 0,
      err: 'You are in the team lab.\n',
    })
    expect(await as('bob', ['team', 'accept', '-'], invited.out)).toMatchObject({ code: 1 })
    expect((await as('bob', ['team', 'list'])).out).toMatch(/lab +by invitation +member +us/)
    const shown = JSON.parse((await as('bob', ['team', 'show', 'lab', '--json'])).out)
    expect(shown.members).toMatchObject([
      { user: 'alice', role: 'owner' },
      { user: 'bob', role: 'member' },
    ])
    expect(await as('bob', ['team', 'remove', 'lab'])).toMatchObject({ code: 1 })
    expect(await as('bob', ['team', 'leave', 'lab', 'bob'])).toMatchObject(good)
    expect(await as('alice', ['team', 'leave', 'lab', 'alice'])).toMatchObject({
      code: 1,
      err: expect.stringMatching(/keeps an owner/),
    })
    expect(await as('alice', ['team', 'change', 'lab', '--open'])).toMatchObject(good)
    expect(await as('bob', ['team', 'join', 'lab'])).toMatchObject(good)
    expect(await as('alice', ['team', 'member', 'lab', 'bob', '--remove'])).toMatchObject(good)
    expect(await as('alice', ['team', 'remove', 'lab'])).toMatchObject(good)
  })

  it('grant, private, freeze, thaw, remove', async () => {
    expect(await as('alice', ['private', 'alice/c'])).toMatchObject(good)
    expect(await as('alice', ['grant', 'set', 'alice/c', 'bob', 'reader'])).toMatchObject(good)
    expect((await as('alice', ['grant', 'list', 'alice/c'])).out).toMatch(/user +bob +reader/)
    expect(await as('bob', ['public', 'alice/c'])).toMatchObject({ code: 1 })
    expect(await as('alice', ['grant', 'set', 'alice/c', 'bob', 'king'])).toMatchObject({ code: 2 })
    const ref = 'library://alice/c/box:latest'
    expect(await as('alice', ['freeze', ref, '--arch', 'amd64'])).toMatchObject({
      code: 0,
      err: 'alice/c/box:latest is frozen now.\n',
    })
    expect(await as('alice', ['remove', 'alice/c/box'])).toMatchObject({
      code: 1,
      err: expect.stringMatching(/frozen/),
    })
    expect(await as('alice', ['thaw', ref])).toMatchObject(good)
    expect(await as('bob', ['remove', 'alice/c'])).toMatchObject({ code: 1 })
    expect(await as('alice', ['remove', 'alice/c'])).toMatchObject(good)
  })
})

describe('team, on a data folder', () => {
  it('needs an owner, and may all the rest', async () => {
    expect(await local(['team', 'add', 'ops'])).toMatchObject({ code: 2 })
    expect(await local(['team', 'add', 'ops', '--owner', 'alice'])).toMatchObject(good)
    expect((await local(['team', 'list'])).out).toContain('ops')
    expect(await local(['team', 'member', 'ops', 'bob', '--owner'])).toMatchObject(good)
    expect((await local(['team', 'invite', 'ops'])).out).toMatch(/^[0-9a-f]{32}\n$/)
    expect((await local(['team', 'join', 'ops'])).code).not.toBe(0)
    expect(await local(['team', 'remove', 'ops'])).toMatchObject(good)
  })
})
