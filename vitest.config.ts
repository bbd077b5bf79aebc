/** Test runner settings: `npm test` runs everything, the real client included. */
import { cloudflareTest, readD1Migrations } from '@cloudflare/vitest-plugin'
import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** Patterns that scripts/test.mjs leaves out. */
const without = (process.env.SREG_TEST_WITHOUT ?? '').split(' ').filter((word) => word !== '')

/** Files that take times, of others or of their own answers: nothing else may run meanwhile. */
const ALONE = [
  'test/databases/busy.test.ts',
  'test/faults/connections.test.ts',
  'test/faults/guessers.test.ts',
  'test/faults/start-stop.test.ts',
  'test/node/transfer.test.ts',
  'test/runtimes/*-abuse.test.ts',
  'test/unit/openpgp.test.ts',
]

/** Files that take a minute or more, the longest first. */
const LONG = [
  'runtimes/workers.test.ts',
  'runtimes/workers-roles.test.ts',
  'runtimes/workers-access.test.ts',
  'runtimes/workers-oci.test.ts',
  'runtimes/bun.test.ts',
  'runtimes/node-s3.test.ts',
  'e2e/workers.test.ts',
  'runtimes/bun-s3.test.ts',
  'runtimes/deno.test.ts',
  'e2e/bun.test.ts',
  'e2e/deno.test.ts',
  'e2e/node.test.ts',
  'runtimes/workers-s3.test.ts',
  'runtimes/node.test.ts',
  'faults/crash.test.ts',
]

/**
 * They begin first. Vitest goes by the size of a file until it has run, and these are small, for their
 * suites are in others: the last one ran for minutes while the other core had nothing to do.
 */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification) => {
      const at = LONG.findIndex((end) => moduleId.endsWith(`/${end}`))
      return at === -1 ? LONG.length : at
    }
    const group = ({ project }: TestSpecification) => project.config.sequence.groupOrder
    const sorted = await super.sort(files)
    return sorted.toSorted((a, b) => group(a) - group(b) || place(a) - place(b))
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: LongestFirst },
    // Servers and clients started by tests need the other half of a small machine.
    maxWorkers: 2,
    projects: [
      {
        test: {
          name: 'node',
          include: ['test/**/*.test.ts'],
          exclude: ['test/workerd/**', 'test/bun/**', 'test/deno/**', ...ALONE, ...without],
          globalSetup: ['test/fixtures/radosgw-setup.ts'],
          // Processes, not threads: tests count descriptors and memory, and change the umask.
          pool: 'forks',
          testTimeout: 30_000,
          hookTimeout: 60_000,
          // Nothing but a test's own clock may decide what a test sees.
          env: { TZ: 'UTC' },
        },
      },
      {
        test: {
          name: 'alone',
          include: ALONE,
          exclude: without,
          // After the others, which share group 0, and one after the other.
          sequence: { groupOrder: 1 },
          maxWorkers: 1,
          pool: 'forks',
          testTimeout: 30_000,
          hookTimeout: 60_000,
          env: { TZ: 'UTC' },
        },
      },
      {
        // Inside workerd, as Cloudflare runs it: each file has an isolate, a D1 and an R2 of its own.
        plugins: [
          cloudflareTest(async () => ({
            miniflare: {
              // No later than the workerd that the plugin brings.
              compatibilityDate: '2026-11-02',
              compatibilityFlags: ['nodejs_compat'],
              d1Databases: ['DB'],
              r2Buckets: ['BLOBS'],
              ratelimits: { LIMIT_TRIES: { namespace_id: '1', simple: { limit: 20, period: 60 } } },
              bindings: { MIGRATIONS: await readD1Migrations('migrations') },
            },
          })),
        ],
        test: {
          name: 'workerd',
          include: ['test/workerd/**/*.test.ts'],
          testTimeout: 30_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
})
