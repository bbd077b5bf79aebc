/**
 * Runs vitest and ends with one line counted from its JSON reports: `N passed, N failed, N skipped`.
 * Exits non-zero when anything failed or nothing ran.
 *
 *   npm test                  Node with SQLite and disk, workerd with D1 and R2, the real client
 *   npm run test:others       Bun, Deno, S3: the same suites again, and what only they have; and in workerd
 *                             the matrices of access and roles, OCI, export and import, forged tokens, abuse, limits;
 *                             the flood of guesses
 *   npm test -- FILES OPTIONS whatever is named
 */
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync } from 'node:fs'
import { freemem, tmpdir } from 'node:os'
import { delimiter, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
mkdirSync(join(root, '.cache'), { recursive: true })
const folder = mkdtempSync(join(root, '.cache', 'test-'))

// The repository's own Node, also when this file was started with the machine's; CI names others.
const bin = (name) => join(root, 'node_modules/.bin', name)
const node =
  process.env.SREG_TEST_NODE ?? (existsSync(bin('node')) ? bin('node') : process.execPath)
const client = join(root, '.cache/apptainer/bin')

/** Bytes that must be free for that. Chosen: how much tests have at one time has not been measured. */
const PLENTY = 10 * 2 ** 30
/**
 * Where tests put their data: in memory, where there is plenty and nobody said otherwise. They flush
 * with every write, and a shared disk was seen to hold a flush up for a third of a second. What is about a disk
 * goes to SREG_TEST_DISK.
 */
function temporary() {
  const memory = '/dev/shm'
  if (process.env.TMPDIR !== undefined || !existsSync(memory)) return tmpdir()
  const { bavail, bsize } = statfsSync(memory)
  if (Math.min(freemem(), bavail * bsize) < PLENTY) return tmpdir()
  const made = mkdtempSync(join(memory, 'sreg-tests-'))
  process.once('exit', () => rmSync(made, { recursive: true, force: true }))
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1))
  return made
}
const TMPDIR = temporary()

let runs = 0
let passed = 0
let failed = 0
let skipped = 0

/** Runs vitest with `start`, the program and its first arguments, and counts what it reports. */
async function run(start, ...settings) {
  const [program, ...first] = start
  const report = join(folder, `report-${(runs += 1)}.json`)
  const { code, signal, error } = await new Promise((resolve) => {
    const child = spawn(
      program,
      [
        ...first,
        join(root, 'node_modules/vitest/vitest.mjs'),
        'run',
        ...settings,
        // some arguments name files of one runtime only; no test at all is noticed below
        '--passWithNoTests',
        '--reporter=default',
        `--reporter=${join(root, 'scripts/verdicts.mjs')}`,
        '--reporter=json',
        `--outputFile.json=${report}`,
        ...args,
      ],
      {
        cwd: root,
        stdio: ['ignore', 'inherit', 'inherit'],
        env: {
          ...process.env,
          TMPDIR,
          SREG_TEST_DISK: process.env.SREG_TEST_DISK ?? tmpdir(),
          SREG_TEST_WITHOUT: without.join(' '),
          SREG_TEST_RUNTIMES: runtimes.join(' '),
          // The client that setup brought comes last: one that is on PATH wins.
          PATH: [process.env.PATH, ...(existsSync(client) ? [client] : [])].join(delimiter),
        },
      },
    )
    child.once('error', (error) => resolve({ error }))
    child.once('exit', (code, signal) => resolve({ code, signal }))
  })
  const failedBefore = failed
  if (existsSync(report)) {
    for (const file of JSON.parse(readFileSync(report, 'utf8')).testResults) {
      const cases = file.assertionResults
      passed += cases.filter((test) => test.status === 'passed').length
      failed += cases.filter((test) => test.status === 'failed').length
      skipped += cases.filter((test) => !['passed', 'failed'].includes(test.status)).length
      // A file that did not load, or whose hook failed, has no failed case to show for it.
      if (file.status === 'failed' && !cases.some((test) => test.status === 'failed')) {
        failed += 1
        console.log(
          `failed: did not run: ${relative(root, file.name)}: ${file.message.split('\n')[0]}`,
        )
      }
    }
  }
  if (code !== 0 && failed === failedBefore) {
    failed += 1
    const end = error?.message ?? signal ?? `code ${code}`
    console.log(`failed: vitest under ${program} ended with ${end} and named no failed test`)
  }
}

/**
 * What the names of the others' files hold; the matrices, OCI, moving, forged tokens, abuse and limits take
 * minutes in workerd, and the flood of guesses takes a third of one in which nothing else may run.
 */
const OTHERS = ['bun', 'deno', 's3', 'guessers', 'workers-']
/** Files that ask the same of each runtime. */
const ALIKE = [
  'faults/connections',
  'faults/start-stop',
  'runtimes/aside',
  'runtimes/limits',
  'runtimes/tls',
]
const given = process.argv.slice(2)
const others = given.includes('--others')
const named = given.some((argument) => !argument.startsWith('-'))
const args = given.filter((argument) => argument !== '--others')
/** The runtimes that those files are about now: on another Node, Bun and Deno are what they were before. */
const runtimes = others
  ? ['bun', 'deno']
  : ['node', ...(named && process.env.SREG_TEST_NODE === undefined ? ['bun', 'deno'] : [])]
/** Patterns of files that are left out; `--exclude` does not reach the projects of the configuration. */
const without = process.env.SREG_TEST_WITHOUT?.split(' ') ?? []
if (others) args.push(...OTHERS, ...ALIKE)
else if (!named) without.push(...OTHERS.map((name) => `test/**/*${name}*.test.ts`))

await run([node])
// Run by Bun and Deno themselves. Half of their time is waiting for locks, so they can go at once; but what
// takes times goes after that, and by itself.
const everywhere = others || (named && !given.some((argument) => argument.startsWith('--project')))
if (everywhere && process.env.SREG_TEST_NODE === undefined) {
  const config = ['--config', join(root, 'vitest.runtimes.config.ts')]
  const bun = [bin('bun'), '--bun', '--no-install']
  const deno = [bin('deno'), 'run', '--no-lock', '--allow-all']
  await Promise.all([run(bun, ...config, '--project=bun'), run(deno, ...config, '--project=deno')])
  await run(bun, ...config, '--project=bun-alone')
  await run(deno, ...config, '--project=deno-alone')
}
rmSync(folder, { recursive: true, force: true })
if (passed + failed === 0) console.log('no test ran')
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`)
