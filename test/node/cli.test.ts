/** The command line as a program: exit codes, what goes to stdout, work on a data folder. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { openDatabase, type OpenDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { parseDuration, runCommand } from '../../adapters/host/cli.ts'
import { openDataFolder, readOrCreateSigningKeys } from '../../adapters/host/data-folder.ts'
import { clientUrl, handOverFirstAdmin, linesToType } from '../../adapters/host/first-run.ts'
import { moving, openAdmin } from '../../adapters/node/main.ts'
import { consoleLog, logForm, systemClock } from '../../adapters/system.ts'
import { tokenVerifier } from '../../src/admin.ts'
import { SCOPES } from '../../src/core/model.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { libraryClient } from '../protocol/client.ts'
import { nodeTarget, type Target } from '../runtimes/target.ts'

const main = fileURLToPath(new URL('../../adapters/node/main.ts', import.meta.url))
const migrations = fileURLToPath(new URL('../../migrations', import.meta.url))

let base: string
let data: string
beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'sreg-cli-'))
  data = join(base, 'sreg-data')
})
afterEach(() => rm(base, { recursive: true }))

type Ended = { code: number | null; out: string; err: string }
type More = { stdin?: string; env?: Record<string, string> }

/** Runs a command in this process, with its data folder, home and clients' files in `base`. */
async function sreg(args: string[], more: More = {}): Promise<Ended> {
  const ended = { code: 0, out: '', err: '' }
  ended.code = await runCommand(args, {
    version: '0.0.0',
    env: { PATH: '', SREG_DATA: data, ...more.env },
    home: base,
    osUser: 'someone',
    hostname: 'here',
    clock: systemClock,
    openAdmin,
    moving,
    serve: () => Promise.reject(new Error('not in this process')),
    readStandardInput: () => Promise.resolve(more.stdin ?? ''),
    print: (output) => (ended.out += output),
    say: (line) => (ended.err += `${line}\n`),
  })
  return ended
}

/** Runs the program itself, in `base`. */
async function program(args: string[], more: More = {}): Promise<Ended> {
  const child = spawn(process.execPath, [main, ...args], {
    cwd: base,
    env: { PATH: '', HOME: base, ...more.env },
  })
  const closed = once(child, 'close')
  child.stdin.end(more.stdin ?? '')
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)])
  const [code] = (await closed) as [number | null]
  return { code, out, err }
}

/** A data folder as the first start of a server leaves it. */
async function startedFolder(): Promise<void> {
  const folder = await openDataFolder(data, { create: true })
  await readOrCreateSigningKeys(folder)
  const opened = await openDatabase(folder.database, { mode: 'server', migrations })
  await opened.database.settings.setOnce('registry_id', 'ab'.repeat(12))
  opened.close()
}

/** The claims of a token, checked with the folder's own keys; null when it is not good. */
async function claimsOf(jwt: string) {
  const folder = await openDataFolder(data, { create: false })
  const { d: _, ...key } = (await readOrCreateSigningKeys(folder)).current
  const registryId = 'ab'.repeat(12)
  return tokenVerifier({ registryId, keys: [key], clock: systemClock }).verify(jwt)
}

describe('usage', () => {
  it('prints help and version on stdout with exit code 0', async () => {
    for (const args of [
      ['--help'],
      ['serve', '--help'],
      ['token', 'create', '--help'],
      ['claim', '--help'],
    ]) {
      const { code, out, err } = await sreg(args)
      expect({ code, err }).toEqual({ code: 0, err: '' })
      expect(out).toMatch(/^Usage: sreg-lite/)
    }
    const { out } = await program(['--version'])
    expect(out).toMatch(/^[1-9\d]*\.\d+\.\d+\S*\n$/)
    const settings = (await sreg(['serve', '--help'])).out
    expect(settings).toContain('SREG_MAX_CONNECTIONS')
    for (const [line] of settings.matchAll(/^ +SREG_.*$/gm)) expect(line).toMatch(/^ {2}\S+ {2}/)
  })

  it('ends without a word when nobody reads on', async () => {
    const child = spawn(process.execPath, [main, 'serve', '--help'], { cwd: base })
    child.stdout.destroy()
    const [err, [code]] = await Promise.all([text(child.stderr), once(child, 'close')])
    expect({ code, err }).toEqual({ code: 141, err: '' })
  })

  it('says that there is no such file to import', async () => {
    await startedFolder()
    const { code, err } = await program(['import', 'nothing.sreg', '--data', data])
    expect({ code, err }).toEqual({
      code: 1,
      err: expect.stringMatching(/^[^\n]*nothing\.sreg'?\n$/),
    })
  })

  it.each([
    [[]],
    [['bogus']],
    [['user', 'add']],
    [['user', 'add', 'a', 'b']],
    [['token', 'create', 'a', '--expires', '3']],
    [['token', 'create', 'a', '--scopes', 'pull,all']],
    [['serve', '--port', 'x']],
    [['connect', '127.0.0.1:8080', '--token', 't']],
    [['connect', 'http://192.0.2.1', '--token', 't']],
    [['connect', '--token', 't', '--token-file', 'f']],
    [['connect', 'http://127.0.0.1:1', '--token', 't', '--name', 'a b']],
  ])('exits with 2 and words on stderr alone for %j', async (args) => {
    const { code, out, err } = await sreg(args)
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).not.toMatch(/\n\s+at /)
  })

  it('R44: names what is missing when there is no registry, and makes nothing', async () => {
    for (const args of [
      ['user', 'list'],
      ['token', 'revoke', 'x'],
      ['private', 'a/b'],
    ]) {
      const { code, out, err } = await sreg(args)
      expect({ code, out }).toEqual({ code: 1, out: '' })
      expect(err).toContain('Start the server first')
    }
    await expect(stat(data)).rejects.toThrow('ENOENT')
  })

  it('reads durations', () => {
    expect(parseDuration('30m')).toBe(1_800_000)
    expect(parseDuration('90d')).toBe(90 * 86_400_000)
    expect(parseDuration('1y')).toBe(365 * 86_400_000)
    for (const bad of ['0d', '11y', '1', 'd', '-1d', '1.5h', '1 d', ''])
      expect(parseDuration(bad)).toBeNull()
  })
})

describe('users and tokens', () => {
  beforeEach(startedFolder)

  it('adds users and lists them', async () => {
    expect(await sreg(['user', 'add', 'alice'])).toMatchObject({ code: 0, out: '' })
    expect(await program(['user', 'add', 'root', '--admin'], { stdin: '' })).toMatchObject({
      code: 0,
    })
    expect(await sreg(['user', 'add', 'alice'])).toMatchObject({ code: 1 })
    expect(await sreg(['user', 'add', 'Alice'])).toMatchObject({ code: 2 })
    expect(JSON.parse((await sreg(['user', 'list', '--json'])).out)).toMatchObject([
      { name: 'alice', role: 'user' },
      { name: 'root', role: 'admin' },
    ])
    expect((await sreg(['user', 'list'])).out).toMatch(/^NAME +ROLE.*\nalice +user/)
  })

  it('prints the token and nothing else, with the default scopes and life', async () => {
    await sreg(['user', 'add', 'alice'])
    const { code, out } = await sreg(['token', 'create', 'alice'])
    expect(code).toBe(0)
    expect(out).toMatch(/^\S{200,}\n$/)
    const claims = await claimsOf(out.trim())
    expect(claims?.scopes).toEqual(['pull', 'push', 'delete', 'keys'])
    const days = ((claims?.expiresAt.getTime() ?? 0) - systemClock.now().getTime()) / 86_400_000
    expect(days).toBeGreaterThan(364.9)
    expect(days).toBeLessThanOrEqual(365)
  })

  it('takes scopes, expiry, name and the data folder, and revokes', async () => {
    const env = { SREG_DATA: join(base, 'elsewhere') }
    await sreg(['user', 'add', 'alice', '--data', data], { env })
    const options = ['--scopes', 'pull, push', '--expires', '12h', '--name', 'ci']
    const { out } = await sreg(['token', 'create', 'alice', ...options])
    const claims = await claimsOf(out.trim())
    expect(claims?.scopes).toEqual(['pull', 'push'])
    const listed = async () => {
      const answer = await sreg(['token', 'list', 'alice', '--json'])
      expect(answer.out).not.toContain(out.trim())
      return JSON.parse(answer.out) as { id: string; name: string; revokedAt: string | null }[]
    }
    expect(await listed()).toMatchObject([{ id: claims?.tokenId, name: 'ci', revokedAt: null }])
    expect(await sreg(['token', 'revoke', claims?.tokenId ?? ''])).toMatchObject({ code: 0 })
    expect((await listed())[0]?.revokedAt).not.toBeNull()
    expect((await sreg(['token', 'list', 'alice'])).out).toContain('revoked')
    expect(await sreg(['token', 'create', 'nobody'])).toMatchObject({ code: 1, out: '' })
    // over their own things only
    expect(await sreg(['token', 'create', 'alice', '--scopes', 'admin'])).toMatchObject({ code: 0 })
  })

  it('says so when there is nothing to make private', async () => {
    expect(await sreg(['private', 'alice/none'])).toMatchObject({ code: 1 })
    expect(await sreg(['public', 'library://alice/a/b/c'])).toMatchObject({ code: 2 })
  })
})

describe('R59: connect', () => {
  let server: Server
  let url: string
  let opened: OpenDatabase | null = null
  const seen: string[] = []
  let good = 'tok.en'

  beforeAll(async () => {
    // Answers as protocol.md §1 says; a token is good by the registry's own books where it has them.
    server = createServer((request, response) => {
      const bearer = request.headers.authorization?.replace('Bearer ', '')
      seen.push(`${request.url}`)
      const answer = (status: number, body: unknown) =>
        response.writeHead(status).end(JSON.stringify(body))
      const standing = async () => {
        if (opened === null || bearer === undefined) return bearer === good ? 'alice' : null
        const claims = await claimsOf(bearer)
        if (claims === null) return null
        return (await opened.database.tokens.standing(claims, systemClock.now()))?.userName ?? null
      }
      void standing().then((user) => {
        const service = { uri: url }
        if (request.url === '/assets/config/config.prod.json') {
          return answer(200, { libraryAPI: service, keystoreAPI: service, tokenAPI: service })
        }
        if (user === null) return answer(404, { error: { code: 404, message: 'no' } })
        return answer(200, request.url?.includes('rbac') ? { username: user } : {})
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  afterAll(() => void server.close())
  beforeEach(() => {
    seen.length = 0
    good = 'tok.en'
  })
  afterEach(() => {
    opened?.close()
    opened = null
  })

  const stored = async (path = '.apptainer/remote.yaml') =>
    parse(await readFile(join(base, path), 'utf8')) as {
      Active: string
      Remotes: Record<string, { URI: string; Token: string }>
    }

  it('stores a token from standard input after asking the server about it', async () => {
    const { code, out, err } = await program(['connect', url, '--token-file', '-'], {
      stdin: `${good}\n`,
    })
    expect({ code, out }).toEqual({ code: 0, out: '' })
    expect(err).toContain('apptainer push -U image.sif library://alice/default/NAME:latest')
    expect(err).not.toContain(good)
    expect(seen).toEqual([
      '/assets/config/config.prod.json',
      '/v1/token-status',
      '/v1/rbac/users/current',
    ])
    expect(await stored()).toMatchObject({
      Active: 'sreg',
      Remotes: { sreg: { URI: url, Token: good, Insecure: true } },
    })
    expect((await stat(join(base, '.apptainer'))).mode & 0o777).toBe(0o700)
    expect((await stat(join(base, '.apptainer/remote.yaml'))).mode & 0o777).toBe(0o600)
  })

  it('writes nothing for a token that the server does not take', async () => {
    const { code, err } = await sreg(['connect', url, '--token', 'other'])
    expect(code).toBe(1)
    expect(err).toContain('does not accept this token')
    await expect(stat(join(base, '.apptainer'))).rejects.toThrow('ENOENT')
  })

  it('writes nothing when nobody answers', async () => {
    const { code, err } = await sreg(['connect', 'http://127.0.0.1:1', '--token', 'other'])
    expect(code).toBe(1)
    expect(err).toContain('Nothing answers at http://127.0.0.1:1')
    await expect(stat(join(base, '.apptainer'))).rejects.toThrow('ENOENT')
  })

  it('sends no token to a token service on plain http elsewhere', async () => {
    const there = url
    url = 'http://192.0.2.1'
    const { code } = await sreg(['connect', there, '--token', good])
    url = there
    expect(code).toBe(2)
    expect(seen).toEqual(['/assets/config/config.prod.json'])
  })

  it('follows links, narrows modes, and writes where the variables say', async () => {
    await mkdir(join(base, 'kept'), { mode: 0o755 })
    await mkdir(join(base, 'cfg'), { mode: 0o755 })
    const kept = join(base, 'kept/remote.yaml')
    await writeFile(kept, 'Active: x\nRemotes:\n    x:\n        URI: a.b\n        Token: secret\n')
    await chmod(kept, 0o644)
    await symlink(kept, join(base, 'cfg/remote.yaml'))
    const env = { APPTAINER_CONFIGDIR: join(base, 'cfg'), SINGULARITY_CONFIGDIR: join(base, 's') }
    const { code, err } = await sreg(['connect', url, '--token', good, '--name', 'lab'], { env })
    expect(code).toBe(0)
    expect(err).not.toContain('secret')
    expect(err).toContain('ps shows it')
    expect((await stat(kept)).mode & 0o777).toBe(0o600)
    expect((await stat(join(base, 'cfg'))).mode & 0o777).toBe(0o700)
    for (const file of ['kept/remote.yaml', 'cfg/remote.yaml']) {
      const { Active, Remotes } = await stored(file)
      expect(Active).toBe('lab')
      expect(Remotes['x']).toEqual({ URI: 'a.b', Token: 'secret' })
    }
    expect((await stored('s/remote.yaml')).Remotes['lab']?.URI).toBe(url)
    await expect(stat(join(base, '.apptainer'))).rejects.toThrow('ENOENT')
  })

  it('takes a link from singularity to apptainer for apptainer', async () => {
    const bin = join(base, 'bin')
    await mkdir(bin)
    await writeFile(join(bin, 'apptainer'), '#!/bin/sh\n', { mode: 0o755 })
    await symlink('apptainer', join(bin, 'singularity'))
    expect(await sreg(['connect', url, '--token', good], { env: { PATH: bin } })).toMatchObject({
      code: 0,
    })
    await expect(stat(join(base, '.singularity'))).rejects.toThrow('ENOENT')

    await rm(join(bin, 'singularity'))
    await writeFile(join(bin, 'singularity'), '#!/bin/sh\n', { mode: 0o755 })
    const env = { PATH: [join(base, 'none'), bin].join(delimiter) }
    await sreg(['connect', url, '--token', good], { env })
    expect((await stored('.singularity/remote.yaml')).Active).toBe('sreg')
  })

  it('makes user and token by itself on the host of the data folder, once the server answers', async () => {
    await startedFolder()
    const { database } = await openDataFolder(data, { create: false })
    opened = await openDatabase(database, { mode: 'server', migrations })
    await writeFile(join(data, 'server-url'), `${url}\n`)

    const down = await sreg(['connect', 'http://127.0.0.1:1', '--user', 'bob'])
    expect(down.code).toBe(1)
    expect(await opened.database.users.list()).toEqual([])

    const { code, err } = await sreg(['connect', '--user', 'bob'])
    expect(err).toContain('library://bob/default/NAME:latest')
    expect(code).toBe(0)
    const token = (await stored()).Remotes['sreg']?.Token ?? ''
    const claims = await claimsOf(token)
    expect(claims?.scopes).toEqual(['pull', 'push', 'delete', 'keys'])
    expect(err).not.toContain(token)

    expect(await sreg(['connect', '--user', 'bob'])).toMatchObject({ code: 0 })
    expect(await opened.database.users.list()).toHaveLength(1)
  })

  it('revokes the token it made when another registry answers there', async () => {
    await startedFolder()
    const { code, err } = await sreg(['connect', url, '--user', 'bob'])
    expect(code).toBe(1)
    expect(err).toContain('does not use the data folder')
    const tokens = JSON.parse((await sreg(['token', 'list', 'bob', '--json'])).out) as {
      revokedAt: string | null
    }[]
    expect(tokens.map(({ revokedAt }) => revokedAt === null)).toEqual([false])
    await expect(stat(join(base, '.apptainer'))).rejects.toThrow('ENOENT')
  })

  const missing = spawnSync('apptainer', ['--version']).status !== 0
  it.skipIf(missing && !process.env['CI'])(
    'is understood by the real client (skipped where no apptainer is on PATH)',
    async () => {
      await sreg(['connect', url, '--token', good])
      const client = spawn('apptainer', ['remote', 'status'], {
        env: { ...process.env, HOME: base },
        stdio: ['ignore', 'pipe', 'ignore'],
      })
      expect(await text(client.stdout)).toMatch(/Logged in as: alice[^]*Valid authentication token/)
    },
  )
})

describe('a server over HTTP', () => {
  const SECRET = 'a setup secret of more than thirty-two characters'
  let target: Target
  let admin: string
  beforeAll(async () => {
    target = await nodeTarget({ env: { SREG_SETUP_SECRET: SECRET } })
    admin = (await target.mint('boss', { admin: true, scopes: [...SCOPES] })).jwt
  })
  afterAll(() => target.stop())

  const remote = (args: string[], stdin = `${admin}\n`) =>
    sreg([...args, '--server', target.url, '--token-file', '-'], { stdin })

  it('does what the commands do on a data folder, and makes none', async () => {
    expect(await remote(['user', 'add', 'alice'])).toMatchObject({ code: 0, out: '' })
    expect(await remote(['user', 'add', 'alice'])).toMatchObject({ code: 1, out: '' })
    expect(await remote(['user', 'add', 'Alice'])).toMatchObject({ code: 2, out: '' })
    expect((await remote(['user', 'list'])).out).toMatch(/^NAME +ROLE.*\n(.*\n)?alice +user/)

    const options = ['--scopes', 'pull,push', '--expires', '30m', '--name', 'ci']
    const { code, out, err } = await remote(['token', 'create', 'alice', ...options])
    expect(code).toBe(0)
    expect(out).toMatch(/^\S{200,}\n$/)
    const alice = libraryClient(target.url, out.trim())
    await alice.push('alice/c/box', sampleSif({ content: 'remote' }))
    const [row] = JSON.parse((await remote(['token', 'list', 'alice', '--json'])).out)
    expect(row).toMatchObject({ name: 'ci', scopes: ['pull', 'push'], revokedAt: null })
    expect(err).toContain(row.id)
    expect((await remote(['token', 'list', 'alice'])).out).toMatch(/ci +pull,push .* valid\n/)

    const seen = async () =>
      (await libraryClient(target.url).call('GET', '/v1/containers/alice/c/box')).status
    expect(await remote(['private', 'library://alice/c'])).toMatchObject({ code: 0 })
    expect(await seen()).toBe(404)
    expect(await remote(['public', 'alice/c'])).toMatchObject({ code: 0 })
    expect(await seen()).toBe(200)

    expect(await remote(['token', 'revoke', row.id])).toMatchObject({ code: 0 })
    expect((await alice.call('GET', '/v1/entities')).status).toBe(401)
    await expect(stat(data)).rejects.toThrow('ENOENT')
  })

  it("R14: without --expires a token lives no longer than the administrator's", async () => {
    await remote(['user', 'add', 'bob'])
    expect((await remote(['token', 'create', 'bob'])).code).toBe(0)
    const long = await remote(['token', 'create', 'bob', '--expires', '90d'])
    expect(long).toMatchObject({ code: 1, out: '' })
    expect(long.err).toContain('cannot live longer')
  })

  it('shows the sentence of the server', async () => {
    const { jwt } = await target.mint('carol')
    const denied = await remote(['user', 'list'], jwt)
    expect(denied).toMatchObject({ code: 1, out: '' })
    expect(denied.err).toContain('scope admin')
    expect((await remote(['user', 'list'], 'not.a.token')).err).toContain('not valid')
    expect((await remote(['token', 'revoke', '../users'])).err).toContain('no token of that id')
  })

  it('says so when nobody, or another program, answers', async () => {
    const other = createServer((request, response) => {
      const away = { location: 'http://127.0.0.1:1/' }
      response.writeHead(request.url === '/v1/users' ? 307 : 200, away).end('<html>')
    })
    other.listen(0, '127.0.0.1')
    await once(other, 'listening')
    const url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`
    try {
      const options = ['--server', url, '--token-file', '-']
      for (const args of [
        ['user', 'list', ...options],
        ['token', 'list', 'alice', ...options],
        ['claim', url, '--secret-file', '-'],
      ]) {
        const { code, out, err } = await sreg(args, { stdin: 'tok.en' })
        expect({ code, out }).toEqual({ code: 1, out: '' })
        expect(err).toContain('not as sreg-lite does')
      }
    } finally {
      other.close()
    }
    const { err } = await sreg(
      ['user', 'list', '--server', 'http://127.0.0.1:1', '--token-file', '-'],
      {
        stdin: 'tok.en',
      },
    )
    expect(err).toContain('Nothing answers')
  })

  it.each([
    [['--server', 'http://127.0.0.1:1']],
    [['--token-file', '-']],
    [['--insecure']],
    [['--server', '127.0.0.1:8080', '--token-file', '-']],
    [['--server', 'http://192.0.2.1', '--token-file', '-']],
    [['--server', 'http://127.0.0.1:1', '--token-file', '-', '--data', 'x']],
  ])('R59: exits with 2 for %j', async (options) => {
    const { code, out } = await sreg(['user', 'list', ...options], { stdin: 'tok.en' })
    expect({ code, out }).toEqual({ code: 2, out: '' })
  })

  it('R19: claims the token of a setup secret, once, and prints only it', async () => {
    const file = join(base, 'secret')
    await writeFile(file, `${SECRET}\n`)
    expect(await sreg(['claim', 'http://192.0.2.1', '--secret-file', file])).toMatchObject({
      code: 2,
    })
    const options = ['--secret-file', file, '--expires', '90d']
    const claimed = await program(['claim', target.url, ...options])
    expect(claimed.code).toBe(0)
    expect(claimed.out).toMatch(/^\S{200,}\n$/)
    expect(claimed.err).not.toContain(claimed.out.trim())
    expect(JSON.parse((await remote(['user', 'list', '--json'], claimed.out)).out)).toEqual(
      expect.arrayContaining([expect.objectContaining({ name: 'boss', role: 'admin' })]),
    )
    const again = await sreg(['claim', target.url, '--secret-file', '-'], { stdin: SECRET })
    expect(again).toMatchObject({ code: 1, out: '' })
    expect(again.err).toContain('not valid here or has been used')
  })
})

describe('serve', () => {
  it('R19, R45, R59: serves, keeps a second one out, connects with nothing to copy, and stops', async () => {
    const server = spawn(process.execPath, [main, 'serve', '--port', '0', '--data', data], {
      cwd: base,
      env: { PATH: '', HOME: base, SREG_PORT: '1', SREG_LOG: 'off' },
    })
    const closed = once(server, 'close')
    const words = text(server.stderr)
    try {
      const [line] = (await once(server.stdout, 'data')) as [Buffer]
      const url = /^listening on (http:\/\/127\.0\.0\.1:\d+)\n$/.exec(line.toString())?.[1] ?? ''
      expect((await readFile(join(data, 'server-url'), 'utf8')).trim()).toBe(url)

      const second = await program(['serve', '--port', '0', '--data', data])
      expect(second).toMatchObject({ code: 1, out: '' })
      expect(second.err).toContain('Another sreg-lite serve is using')

      expect(await sreg(['connect'])).toMatchObject({ code: 0, out: '' })
      const { Remotes } = parse(await readFile(join(base, '.apptainer/remote.yaml'), 'utf8')) as {
        Remotes: Record<string, { URI: string; Token: string }>
      }
      const status = async (token: string) => {
        const headers = { authorization: `Bearer ${token}` }
        return (await fetch(`${Remotes['sreg']?.URI}/v1/token-status`, { headers })).status
      }
      expect(await status(Remotes['sreg']?.Token ?? '')).toBe(200)

      const first = (await readFile(join(data, 'first-admin-token'), 'utf8')).trim()
      expect(await status(first)).toBe(200)
      const { out } = await sreg(['token', 'list', 'admin', '--json'])
      const [made] = JSON.parse(out) as { id: string }[]
      expect(await sreg(['token', 'revoke', made?.id ?? ''])).toMatchObject({ code: 0 })
      expect(await status(first)).toBe(404)
    } finally {
      server.kill('SIGTERM')
    }
    expect(await closed).toEqual([0, null])
    expect(await words).toContain('first-admin-token')
    expect(await words).not.toMatch(/eyJ/)
  })
})

describe('first run', () => {
  const firstAdmin = { user: 'admin', jwt: 'the.first.token', expiresAt: new Date(86_400_000) }

  it('R19: shows the first token on a terminal only', async () => {
    const folder = await openDataFolder(data, { create: true })
    const shown = await handOverFirstAdmin(firstAdmin, folder, true)
    expect(shown).toContain('the.first.token')
    await expect(stat(folder.firstAdminToken)).rejects.toThrow('ENOENT')
  })

  it('R19: puts it into a file for its owner alone where a journal listens', async () => {
    const folder = await openDataFolder(data, { create: true })
    const lines = await handOverFirstAdmin(firstAdmin, folder, false)
    expect(lines.join('\n')).not.toContain('the.first.token')
    expect(lines.join('\n')).toContain(folder.firstAdminToken)
    expect(await readFile(folder.firstAdminToken, 'utf8')).toBe('the.first.token\n')
    expect((await stat(folder.firstAdminToken)).mode & 0o777).toBe(0o600)
  })

  it('offers connect with a port, and remote add where the client can store the address', () => {
    const lines = (url: string) => linesToType(url, { data: './sreg-data' }, 'alice').join('\n')
    expect(lines('http://127.0.0.1:8080')).toContain('cannot store a port (8080)')
    expect(lines('http://127.0.0.1:8080')).not.toContain('apptainer remote add ')
    expect(lines('https://reg.example')).toContain('apptainer remote add sreg https://reg.example')
    expect(lines('http://127.0.0.1')).toContain('remote add --insecure sreg http://127.0.0.1')
    expect(lines('http://10.0.0.1:1')).toContain('npx sreg-lite connect --insecure')
    const local = ['http://localhost', { data: './sreg-data' }, 'alice'] as const
    expect(linesToType(...local, 'bun')).toContain('  bunx --bun sreg-lite connect')
    expect(linesToType(...local, 'deno')).toContain('  deno run -A npm:sreg-lite connect')
    expect(linesToType('http://localhost', { data: "/a b'c" }, 'x').join('\n')).toContain(
      String.raw`connect --data '/a b'\''c'`,
    )
  })

  it('never sends clients to an address that means "all"', () => {
    expect(clientUrl({ publicUrl: null }, 'http://0.0.0.0:80')).toBe('http://127.0.0.1')
    expect(clientUrl({ publicUrl: null }, 'http://[::]:8080')).toBe('http://[::1]:8080')
    expect(clientUrl({ publicUrl: 'https://r.example' }, 'http://0.0.0.0:1')).toBe(
      'https://r.example',
    )
  })
})

describe('consoleLog', () => {
  it('gathers lines, one for each event whatever its fields hold', async () => {
    const writes: string[] = []
    const log = consoleLog({ form: 'json', write: (lines) => writes.push(lines) })
    log.event('info', 'request', { path: 'a\nb\u202e', status: 200 })
    log.event('info', 'request')
    expect(writes).toEqual([])
    await new Promise((resolve) => setTimeout(resolve, 80))
    expect(writes).toHaveLength(1)
    const lines = (writes[0] ?? '').trimEnd().split('\n')
    expect(lines).toHaveLength(2)
    expect(lines[0]).not.toContain('\u202e')
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({
      level: 'info',
      event: 'request',
      path: 'a\nb\u202e',
      status: 200,
    })
  })

  it('writes errors at once, and nothing when it is off', () => {
    const writes: string[] = []
    const write = (lines: string) => writes.push(lines)
    consoleLog({ form: 'pretty', write }).event('error', 'sweep', { why: 'disk\nfull', n: 1 })
    consoleLog({ form: 'off', write }).event('error', 'sweep')
    expect(writes).toEqual([
      expect.stringMatching(/^[\d:.]{12} error sweep why="disk\\nfull" n=1\n$/),
    ])
    expect(logForm('json')).toBe('json')
  })
})
