/** Files of others that pages need, from the folder that the build has put them into. */
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Assets } from '../../src/ports.ts'

/** Beside the bundle, or in the package they come from where the source runs. */
const FOLDERS = ['assets/', '../../node_modules/swagger-ui-dist/'].map((folder) =>
  fileURLToPath(new URL(folder, import.meta.url)),
)

export const hostAssets: Assets = {
  async get(name) {
    if (!/^[\w-]+(?:\.[\w-]+)+$/.test(name)) return null
    for (const folder of FOLDERS) {
      const bytes = await readFile(folder + name).catch((error: unknown) => {
        if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null
        throw error
      })
      if (bytes !== null) return bytes
    }
    return null
  },
}
