/** sreg-lite audit: on a data folder, and asked of a server (R44, R57). */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { nodeTarget, type Target } from '../runtimes/target.ts'
import { command } from './command.ts'

let base: string
let target: Target
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'sreg-audit-'))
  target = await nodeTarget()
  const { jwt } = await target.mint('boss', { admin: true, scopes: ['admin'] })
  await writeFile(join(base, 'token'), jwt)
})
afterAll(async () => {
  await target.stop()
  await rm(base, { recursive: true, force: true })
})

const sreg = (...args: string[]) => command(base, args)
const local = (...args: string[]) => sreg(...args, '--data', target.data)
const remote = (...args: string[]) =>
  sreg(...args, '--server', target.url, '--token-file', join(base, 'token'))

it('shows what was done beside the server and through it, and by whom', async () => {
  expect(await local('user', 'add', 'ann')).toMatchObject({ code: 0 })
  expect(await remote('user', 'add', 'bob')).toMatchObject({ code: 0 })
  const seen = await remote('audit', '--action', 'user')
  expect(seen.out).toMatch(/^TIME +ACTOR +ADDRESS +ACTION +NAME +DETAIL\n/)
  expect(seen.out).toMatch(/ boss +127\.0\.0\.1 +user\.create +bob +user\n/)
  expect(seen.out).toMatch(/ cli:\S+ +user\.create +ann +user\n/)
  expect(await local('audit', '--action', 'user')).toEqual(seen)

  const rows = async (...args: string[]) =>
    JSON.parse((await local('audit', '--json', ...args)).out) as { name: string; actor: string }[]
  expect(await rows('--ref', 'library://bob')).toMatchObject([{ name: 'bob', actor: 'boss' }])
  expect(await rows('--actor', 'boss', '--since', '1h', '--limit', '1')).toHaveLength(1)
  expect(await rows('--until', '1h')).toEqual([])
  expect(await rows('--since', '2001-01-01', '--action', 'user.create')).toHaveLength(4)
  expect(await rows('--denied')).toEqual([])
  for (const wrong of [['--limit', '0'], ['--since', 'soon'], ['--actor']]) {
    const { code, out, err } = await local('audit', ...wrong)
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).toMatch(/^error: \S/)
  }
})
