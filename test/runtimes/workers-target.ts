/**
 * The protocol suites' target in workerd: what `npm run start:workers` starts, here in the tests' own
 * process, which has loaded Miniflare once, or as a process of its own. Users and tokens are made by
 * the admin API, with the first admin's token; the local D1 and R2 are SQLite files and blobs in the
 * data folder, which is how the store is looked at and damaged.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import Sqlite from 'better-sqlite3'
import { decodeJwt } from 'jose'
// @ts-expect-error -- a script without types
import { startWorkers } from '../../scripts/local-workers.mjs'
import { parseSigningKeys } from '../../adapters/signing-keys.ts'
import { tokenIssuer } from '../../src/admin.ts'
import { SCOPES, type Scope } from '../../src/core/model.ts'
import type { AccessTarget } from '../protocol/access.ts'
import type { StoreAccess, TargetOptions } from './target.ts'

const SCRIPT = fileURLToPath(new URL('../../scripts/start-workers.mjs', import.meta.url))
const HOUR_MS = 3_600_000

/** A registry in workerd that has been started. */
type Running = {
  url: string
  /** Process id of workerd itself, which begins anew when it crashes. */
  workerd(): number
  /** Ends it as a signal does; resolves with the exit code, null when the signal ended the process itself. */
  end(signal: NodeJS.Signals): Promise<number | null>
  /** What was said on stderr so far. */
  words(): string
}

export type WorkersTarget = AccessTarget & Running

/** A registry in workerd, with a fresh data folder unless one is given. */
export const workersTarget = (options: TargetOptions = {}) =>
  // Miniflare reads whom it trusts when it is loaded
  targetOf(options.env?.['NODE_EXTRA_CA_CERTS'] === undefined ? inside : beside, options)

/** The same as a process of its own, which can be killed. */
export const workersProcess = (options: TargetOptions = {}) => targetOf(beside, options)

/** What the script gives. */
type Started = {
  url: string
  process(): ChildProcess | undefined
  end(signal: NodeJS.Signals): Promise<void>
}
type Start = (data: string, port: string, env: NodeJS.ProcessEnv) => Promise<Running>

const inside: Start = async (data, port, env) => {
  let words = ''
  const say = (line: string) => void (words += `${line}\n`)
  const started: Started = await startWorkers({ host: '127.0.0.1', port, data, env, say })
  return {
    url: started.url,
    workerd: () => started.process()?.pid ?? 0,
    end: (signal) => started.end(signal).then(() => 0),
    words: () => words,
  }
}

const beside: Start = async (data, port, env) => {
  const child = spawn(process.execPath, [SCRIPT, '--port', port, '--data', data], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
  let words = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (words += text))
  const url = await new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).on('line', (line) => {
      const listening = /^listening on (\S+)$/.exec(line)
      if (listening?.[1] !== undefined) resolve(listening[1])
    })
    child.once('error', reject)
    void ended.then(() => reject(new Error(`start:workers ended at its start: ${words}`)))
  })
  return {
    url,
    workerd: () => childOf(child.pid ?? 0),
    end(signal) {
      child.kill(signal)
      return ended
    },
    words: () => words,
  }
}

async function targetOf(start: Start, options: TargetOptions): Promise<WorkersTarget> {
  const data = options.data ?? (await mkdtemp(join(tmpdir(), 'sreg-workers-')))
  const port = options.env?.['SREG_PORT'] ?? '0'
  const env = { ...process.env, SREG_LOG: 'off', ...options.env }
  const running = await start(data, port, env)
  const { url } = running
  const admin = (await readFile(join(data, 'first-admin-token'), 'utf8')).trim()

  async function ask(method: string, path: string, body?: object): Promise<any> {
    const answer = await fetch(url + path, {
      method,
      headers: { authorization: `Bearer ${admin}` },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const json = (await answer.json()) as { data?: unknown; error?: { message: string } }
    // a user that is there already is what was wanted
    if (answer.status !== 200 && !(path === '/v1/users' && answer.status === 409))
      throw new Error(`${method} ${path}: ${answer.status} ${json.error?.message}`)
    return json.data
  }

  return {
    ...running,
    data,
    store: options.store ?? r2Files(data),
    bareRefusals: 'workerd answers what is no HTTP itself, in plain text',

    async mint(user, { scopes = null, admin: asAdmin = false, expires } = {}) {
      await ask('POST', '/v1/users', { name: user, admin: asAdmin })
      const ends = expires ?? new Date(Date.now() + HOUR_MS)
      const past = ends.getTime() <= Date.now()
      const made = await ask('POST', '/v1/tokens', {
        user,
        name: 'test',
        ...(scopes === null ? {} : { scopes }),
        expiresAt: (past ? new Date(Date.now() + HOUR_MS) : ends).toISOString(),
      })
      return { id: made.id, jwt: past ? await expired(data, made.token, ends) : made.token }
    },
    revoke: (id) => ask('DELETE', `/v1/tokens/${id}`),
    setPrivate: (ref, value) => ask('PUT', '/v1/privacy', { ref, private: value }),

    execute(sql, ...values) {
      const database = new Sqlite(sqliteIn(data, 'd1/miniflare-D1DatabaseObject'))
      try {
        database.prepare(sql).run(...values)
      } finally {
        database.close()
      }
    },
    signingKey: async () => (await keysOf(data)).current,

    async stop({ keep = false } = {}) {
      const code = await running.end('SIGTERM')
      if (!keep) await rm(data, { recursive: true, force: true })
      if (code !== 0) throw new Error(`start:workers ended with ${code}:\n${running.words()}`)
    },
  }
}

const keysOf = async (data: string) =>
  parseSigningKeys(await readFile(join(data, 'signing-keys.json'), 'utf8'))

/** The admin API makes no token that has expired already: the same one, signed for another time. */
async function expired(data: string, jwt: string, expiresAt: Date): Promise<string> {
  const claims = decodeJwt(jwt)
  const registryId = String(claims.iss).replace('urn:sreg:', '')
  const { current } = await keysOf(data)
  return tokenIssuer({ registryId, signingKey: current }).issue({
    tokenId: String(claims.jti),
    userId: String(claims.sub),
    scopes: SCOPES.filter((scope: Scope) => String(claims['scope']).split(' ').includes(scope)),
    issuedAt: new Date(expiresAt.getTime() - HOUR_MS),
    expiresAt,
  })
}

/** The one database file of a kind; Miniflare names it by a hash. */
function sqliteIn(data: string, folder: string): string {
  const path = join(data, 'workerd', folder)
  const file = readdirSync(path).find((name) => /^[0-9a-f]{64}\.sqlite$/.test(name))
  if (file === undefined) throw new Error(`no database in ${path}`)
  return join(path, file)
}

/** The local R2: rows name the objects and parts, files beside them hold the bytes. */
function r2Files(data: string): StoreAccess {
  const blobFile = (id: string) => join(data, 'workerd/r2/BLOBS/blobs', id)
  function query(sql: string, ...values: unknown[]): Record<string, unknown>[] {
    const database = new Sqlite(sqliteIn(data, 'r2/miniflare-R2BucketObject'))
    try {
      const statement = database.prepare(sql)
      if (statement.reader) return statement.all(...values) as Record<string, unknown>[]
      statement.run(...values)
      return []
    } finally {
      database.close()
    }
  }
  const ENTRIES = `
    SELECT key AS name, size, blob_id FROM _mf_objects WHERE key LIKE 'blobs/%'
    UNION ALL
    SELECT upload_id || '/' || part_number, size, blob_id FROM _mf_multipart_parts
    WHERE object_key IS NULL`
  const entry = (name: string) => {
    const [row] = query(`SELECT * FROM (${ENTRIES}) WHERE name = ?`, name)
    if (row === undefined) throw new Error(`the local R2 holds no ${name}`)
    return row
  }
  return {
    comparesParts: false,
    names: async () =>
      query(ENTRIES)
        .map((row) => String(row['name']))
        .toSorted(),
    size: async (name) => Number(entry(name)['size']),
    async cut(name, size) {
      await truncate(blobFile(String(entry(name)['blob_id'])), size)
      query('UPDATE _mf_objects SET size = ? WHERE key = ?', size, name)
    },
    async remove(name) {
      const { blob_id: id } = entry(name)
      query('DELETE FROM _mf_objects WHERE key = ?', name)
      await rm(blobFile(String(id)))
    },
  }
}

/** The workerd that a process has started. */
function childOf(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')
  // those that have ended show no command line
  const workerd = children.find((child) =>
    readFileSync(`/proc/${child}/cmdline`, 'utf8').includes('/workerd\0serve'),
  )
  if (workerd === undefined) throw new Error('the process has started no workerd')
  return Number(workerd)
}
