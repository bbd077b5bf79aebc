/** Test runner settings where Bun or Deno itself runs vitest, for what only they have. */
import { defineConfig } from 'vitest/config'

const inBun = process.versions.bun !== undefined

export default defineConfig({
  test: {
    name: inBun ? 'bun' : 'deno',
    include: [inBun ? 'test/bun/**/*.test.ts' : 'test/deno/**/*.test.ts'],
    // What each of them has of Node's ways to start a worker.
    pool: inBun ? 'threads' : 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    env: { TZ: 'UTC' },
  },
})
