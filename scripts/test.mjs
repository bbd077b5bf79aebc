/**
 * Runs vitest and ends with one line counted from its JSON report: `N passed, N failed, N skipped`.
 * Arguments are passed on: `npm test -- test/unit/range.test.ts`. Exits non-zero when anything
 * failed or nothing ran.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { delimiter, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
mkdirSync(join(root, '.cache'), { recursive: true })
const folder = mkdtempSync(join(root, '.cache', 'test-'))
const report = join(folder, 'report.json')

// The repository's own Node, also when this file was started with the machine's; CI names others.
const own = join(root, 'node_modules/.bin/node')
const node = process.env.SREG_TEST_NODE ?? (existsSync(own) ? own : process.execPath)
const client = join(root, '.cache/apptainer/bin')
const { status, signal, error } = spawnSync(
  node,
  [
    join(root, 'node_modules/vitest/vitest.mjs'),
    'run',
    '--reporter=default',
    `--reporter=${join(root, 'scripts/skipped.mjs')}`,
    '--reporter=json',
    `--outputFile.json=${report}`,
    ...process.argv.slice(2),
  ],
  {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: {
      ...process.env,
      // The client that setup brought comes last: one that is on PATH wins.
      PATH: [process.env.PATH, ...(existsSync(client) ? [client] : [])].join(delimiter),
    },
  },
)

let passed = 0
let failed = 0
let skipped = 0
if (existsSync(report)) {
  for (const file of JSON.parse(readFileSync(report, 'utf8')).testResults) {
    const cases = file.assertionResults
    passed += cases.filter((test) => test.status === 'passed').length
    failed += cases.filter((test) => test.status === 'failed').length
    skipped += cases.filter((test) => !['passed', 'failed'].includes(test.status)).length
    // A file that did not load, or whose hook failed, has no failed case to show for it.
    if (file.status === 'failed' && !cases.some((test) => test.status === 'failed')) {
      failed += 1
      console.log(`did not run: ${relative(root, file.name)}: ${file.message.split('\n')[0]}`)
    }
  }
}
rmSync(folder, { recursive: true, force: true })
if (status !== 0 && failed === 0) {
  failed = 1
  const end = error?.message ?? signal ?? `code ${status}`
  console.log(`vitest ended with ${end} and named no failed test`)
}
if (passed + failed === 0) console.log('no test ran')
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`)
