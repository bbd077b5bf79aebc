/** Test runner settings: `npm test` runs everything, the real client included. */
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Processes, not threads: tests count file descriptors and memory, and change the umask.
    pool: 'forks',
    // Servers and clients started by tests need the other half of a small machine.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // Nothing but a test's own clock may decide what a test sees.
    env: { TZ: 'UTC' },
  },
})
