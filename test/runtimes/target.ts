/**
 * What the protocol suites run against: a registry that listens on loopback, and the means to make
 * users and tokens in it. `nodeTarget` serves in this process, so that database trips can be
 * counted; other runtimes start a process and leave the counting out.
 */
import { chmod, mkdtemp, readdir, rm, stat, truncate, unlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { migrations, openAdmin, platform } from '../../adapters/node/main.ts'
import { startRegistry } from '../../adapters/host/registry.ts'
import { parseConfig } from '../../src/config.ts'
import type { Scope } from '../../src/core/model.ts'
import { isRegistryError } from '../../src/errors.ts'

export type Trip = { kind: 'read' | 'write'; statements: number }

/** What the blob store holds, looked at and damaged behind the registry's back. */
export type StoreAccess = {
  /** Whether it compares each part with a SHA-256, for which clients are asked then. */
  comparesParts: boolean
  /** Names of everything in it, finished or on its way, sorted; not the registry's id. */
  names(): Promise<string[]>
  size(name: string): Promise<number>
  /** Cuts what is stored under the name to `size` bytes. */
  cut(name: string, size: number): Promise<void>
  remove(name: string): Promise<void>
}

export type Target = {
  /** `http://127.0.0.1:PORT`. */
  url: string
  /** The folder that holds its state: what `makeTarget({ data })` opens again. */
  data: string
  store: StoreAccess
  /** Makes the user unless there is one, and a token for them; `scopes` null is the default set. */
  mint(
    user: string,
    options?: { scopes?: Scope[] | null; admin?: boolean; expires?: Date },
  ): Promise<{ jwt: string; id: string }>
  revoke(tokenId: string): Promise<void>
  setPrivate(ref: string, value: boolean): Promise<void>
  /** Database trips since the last call; absent where they cannot be counted. */
  trips?: () => Trip[]
  /** Why requests that are no HTTP get a status without a sentence; absent where they get both. */
  bareRefusals?: string
  /** Stops the server; its data folder stays when `keep`. */
  stop(options?: { keep?: boolean }): Promise<void>
}

export type TargetOptions = {
  /** SREG_* settings. */
  env?: Record<string, string>
  /** An existing data folder to serve. */
  data?: string
  /** What shows the blobs where they are not in the data folder. */
  store?: StoreAccess
}

/** The blobs of a data folder. */
export function diskStore(data: string): StoreAccess {
  return {
    comparesParts: false,
    async names() {
      const files = await readdir(data, { recursive: true, withFileTypes: true })
      return files
        .filter((file) => file.isFile() && /\/(?:blobs\/..|uploads)$/.test(file.parentPath))
        .map((file) => join(file.parentPath, file.name))
        .toSorted()
    },
    size: async (name) => (await stat(name)).size,
    async cut(name, size) {
      await chmod(name, 0o600)
      await truncate(name, size)
    },
    remove: (name) => unlink(name),
  }
}

/** Makes users and tokens like the command line: by another connection on the same data folder. */
export function booksOf(data: string): Pick<Target, 'mint' | 'revoke' | 'setPrivate'> {
  async function withAdmin<T>(
    work: (admin: Awaited<ReturnType<typeof openAdmin>>['admin']) => Promise<T>,
  ) {
    const { admin, close } = await openAdmin(data)
    try {
      return await work(admin)
    } finally {
      close()
    }
  }
  return {
    mint: (user, { scopes = null, admin: asAdmin = false, expires } = {}) =>
      withAdmin(async (admin) => {
        await admin.addUser(user, { admin: asAdmin }).catch((error: unknown) => {
          if (!isRegistryError(error, 'conflict')) throw error
        })
        return admin.createToken({
          user,
          name: 'test',
          expires: expires ?? new Date(Date.now() + 3_600_000),
          scopes,
        })
      }),
    revoke: (id) => withAdmin((admin) => admin.revokeToken(id)),
    async setPrivate(ref, value) {
      const { api, close } = await openAdmin(data)
      try {
        await api.call('PUT', '/v1/privacy', { ref, private: value })
      } finally {
        close()
      }
    },
  }
}

/** A registry on Node in this process, with a fresh data folder unless one is given. */
export async function nodeTarget(options: TargetOptions = {}): Promise<Target> {
  const data = options.data ?? (await mkdtemp(join(tmpdir(), 'sreg-test-')))
  const trips: Trip[] = []
  const config = parseConfig({
    SREG_PORT: '0',
    SREG_LOG: 'off',
    SREG_DATA: data,
    SREG_MIN_FREE: '0',
    ...options.env,
  })
  const registry = await startRegistry(config, {
    platform,
    version: '0.0.0-test',
    migrations: migrations(),
    onTrip: (kind, statements) => trips.push({ kind, statements }),
  })
  return {
    url: registry.url,
    data,
    store: options.store ?? diskStore(data),
    ...booksOf(data),
    trips: () => trips.splice(0),
    async stop({ keep = false } = {}) {
      await registry.close()
      if (!keep) await rm(data, { recursive: true, force: true })
    },
  }
}
