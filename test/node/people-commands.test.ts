/** sreg-lite user, token, robot and transfer: on a data folder, and asked of a server. */
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
  base = await mkdtemp(join(tmpdir(), 'sreg-people-'))
  target = await nodeTarget()
  for (const user of ['alice', 'bob']) {
    const { jwt } = await target.mint(user, { scopes: [...SCOPES] })
    await writeFile(join(base, `token-${user}`), jwt)
  }
})
afterAll(async () => {
  await target.stop()
  await rm(base, { recursive: true, force: true })
})

const sreg = (args: string[]) => command(base, args)
/** On the data folder, beside the running server. */
const local = (...args: string[]) => sreg([...args, '--data', target.data])
const as = (user: string, ...args: string[]) =>
  sreg([...args, '--server', target.url, '--token-file', join(base, `token-${user}`)])
const client = (made: { out: string }) => libraryClient(target.url, made.out.trim())

describe('on the data folder', () => {
  it('adds, changes, lists and frees users', async () => {
    expect(await local('user', 'add', 'carol', '--role', 'staff')).toMatchObject({ code: 0 })
    expect(await local('user', 'add', 'carol')).toMatchObject({
      code: 1,
      err: expect.stringMatching(/already/),
    })
    expect(await local('user', 'add', 'x', '--role', 'robot')).toMatchObject({ code: 2 })
    expect(await local('user', 'add', 'x', '--role', 'user', '--admin')).toMatchObject({ code: 2 })
    expect(await local('user', 'set', 'carol')).toMatchObject({
      code: 2,
      err: expect.stringMatching(/--role/),
    })
    const set = await local('user', 'set', 'carol', '--role', 'user', '--disabled')
    expect(set).toEqual({ code: 0, out: '', err: 'carol is user, disabled now.\n' })
    expect((await local('user', 'list')).out).toMatch(/^carol +user +disabled /m)
    expect((await local('user', 'set', 'carol', '--enabled')).err).toBe('carol is user now.\n')
    expect(await local('user', 'remove', 'carol')).toMatchObject({
      code: 2,
      err: expect.stringMatching(/--hand-over/),
    })
    expect(await local('user', 'free', 'carol')).toMatchObject({
      code: 1,
      err: expect.stringMatching(/in use/),
    })
    expect(await local('user', 'remove', 'carol', '--remove-everything')).toMatchObject({ code: 0 })
    expect((await local('user', 'list')).out).toMatch(/^carol +user +deleted /m)
    expect(await local('user', 'add', 'carol')).toMatchObject({ code: 1 })
    expect(await local('user', 'free', 'carol')).toMatchObject({ code: 0 })
    expect(await local('user', 'add', 'carol')).toMatchObject({ code: 0 })
    expect(await local('user', 'remove', 'admin', '--remove-everything')).toMatchObject({
      code: 1,
      err: expect.stringMatching(/last administrator/),
    })
  })

  it('sees what is private: binds tokens there, and hands entities over', async () => {
    const owner = client(await local('token', 'create', 'alice'))
    await owner.push('alice/secret/box', sampleSif(), { privateCollection: true })
    expect(await local('token', 'create')).toMatchObject({
      code: 2,
      err: expect.stringMatching(/whose/),
    })
    const made = await local('token', 'create', 'alice', '--collection', 'library://alice/secret')
    expect(made).toMatchObject({ code: 0 })
    expect((await client(made).call('GET', '/v1/containers/alice/secret/box')).status).toBe(200)
    expect((await client(made).call('POST', '/v1/entities', { name: 'alice' })).status).toBe(403)
    expect((await local('token', 'list', 'alice')).out).toContain(' alice/secret ')
    expect(
      await local('token', 'create', 'alice', '--container', 'alice/secret/none'),
    ).toMatchObject({ code: 1 })
    expect(await local('transfer', 'library://alice', 'bob')).toEqual({
      code: 0,
      out: '',
      err: 'alice belongs to bob now.\n',
    })
    expect((await owner.call('GET', '/v1/containers/alice/secret/box')).status).toBe(404)
    expect(await local('transfer', 'alice', 'alice')).toMatchObject({ code: 0 })
    expect((await owner.call('GET', '/v1/containers/alice/secret/box')).status).toBe(200)
  })
})

describe('asked of a server with an ordinary token', () => {
  it('makes, lists and ends one’s own tokens', async () => {
    const made = await as('alice', 'token', 'create', '--scopes', 'pull', '--name', 'mine')
    expect(made).toMatchObject({
      code: 0,
      err: expect.stringMatching(/^Token [0-9a-f]{24}, valid/),
    })
    const [, id = ''] = /^Token (\w+)/.exec(made.err) ?? []
    expect((await as('alice', 'token', 'list')).out).toMatch(
      new RegExp(`^${id} +mine +pull +\\d.*valid$`, 'm'),
    )
    expect(await as('bob', 'token', 'revoke', id)).toMatchObject({ code: 1 })
    expect(await as('bob', 'token', 'list', 'alice')).toMatchObject({ code: 1 })
    expect(await as('bob', 'token', 'create', 'alice')).toMatchObject({ code: 1 })
    expect(await as('alice', 'token', 'revoke', id)).toMatchObject({ code: 0 })
    expect((await client(made).call('GET', '/v1/tokens')).status).toBe(401)
  })

  it('looks after robots', async () => {
    expect(await as('alice', 'robot', 'add', 'alice-ci')).toMatchObject({ code: 0 })
    expect((await as('alice', 'robot', 'list')).out).toMatch(/^alice-ci +alice +\d/m)
    expect((await as('bob', 'robot', 'list')).out).not.toContain('alice-ci')
    const made = await as('alice', 'token', 'create', 'alice-ci', '--scopes', 'pull')
    expect((await client(made).call('GET', '/v1/users/alice-ci')).status).toBe(200)
    expect(await as('bob', 'robot', 'remove', 'alice-ci')).toMatchObject({ code: 1 })
    expect(await as('alice', 'robot', 'remove', 'alice-ci')).toMatchObject({ code: 0 })
    expect((await client(made).call('GET', '/v1/users/alice-ci')).status).toBe(401)
  })

  it('hands an account over, and ends it', async () => {
    expect(await as('bob', 'user', 'list')).toMatchObject({ code: 1 })
    const gone = await as('bob', 'user', 'remove', 'bob', '--hand-over', 'alice')
    expect(gone).toMatchObject({ code: 0, err: expect.stringMatching(/alice has it all/) })
    expect(await as('bob', 'token', 'list')).toMatchObject({ code: 1 })
  })
})
