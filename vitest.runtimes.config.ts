/** Test runner settings where Bun or Deno itself runs vitest, for what only they have. */
import { defineConfig } from 'vitest/config'

const inBun = process.versions.bun !== undefined
const runtime = inBun ? 'bun' : 'deno'
/** It takes times, like those that are alone in vitest.config.ts; scripts/test.mjs sees to it. */
const SERVER = `test/${runtime}/server.test.ts`

const common = {
  // What each of them has of Node's ways to start a worker.
  pool: inBun ? ('threads' as const) : ('forks' as const),
  testTimeout: 30_000,
  hookTimeout: 60_000,
  env: { TZ: 'UTC' },
}

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      {
        test: {
          ...common,
          name: runtime,
          include: [`test/${runtime}/**/*.test.ts`],
          exclude: [SERVER],
        },
      },
      { test: { ...common, name: `${runtime}-alone`, include: [SERVER] } },
    ],
  },
})
