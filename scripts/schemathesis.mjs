/**
 * Asks a server what schemathesis makes up from its OpenAPI document, as nobody, as a user and as an
 * administrator, with names that are made up and with names that are there. Fails for a document that
 * is no OpenAPI 3.1, for any answer of 500 or more but the 501s that are meant, and for answers that
 * the document does not describe. Needs python3 with venv and a build; takes about two minutes.
 *
 *   node scripts/schemathesis.mjs [--examples 10] [--seed 1]
 */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { sampleSif } from '../test/fixtures/sif.ts'
import { libraryClient } from '../test/protocol/client.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const { values: options } = parseArgs({
  options: {
    examples: { type: 'string', default: '10' },
    seed: { type: 'string', default: '1' },
  },
})

const PACKAGES = ['schemathesis==4.32.5', 'openapi-spec-validator==0.9.0']
/**
 * Left out: `unsupported_method`, for `/v1/images/*` answers `GET /v1/images` too, with a 400 that says
 * which name is missing; `negative_data_rejection` and `positive_data_acceptance`, for old clients send
 * more than is described, and names have rules that no pattern holds.
 */
const CHECKS = [
  'not_a_server_error',
  'status_code_conformance',
  'content_type_conformance',
  'response_headers_conformance',
  'response_schema_conformance',
  'allow_header_conformance',
  'ignored_auth',
]
/** Remote builds and operations of other keyservers are refused with 501 on purpose. */
const SETTINGS = `
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501]
`

/** Installs the Python packages once for each list of versions. */
function python() {
  const folder = join(root, '.cache/schemathesis')
  const stamp = join(folder, 'packages')
  const wanted = PACKAGES.join('\n')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return join(folder, 'bin')
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(join(root, '.cache'), { recursive: true })
  run('python3', ['-m', 'venv', folder])
  run(join(folder, 'bin/pip'), ['install', '--quiet', '--disable-pip-version-check', ...PACKAGES])
  writeFileSync(stamp, wanted)
  return join(folder, 'bin')
}

function run(program, args) {
  const { status, error } = spawnSync(program, args, { stdio: ['ignore', 2, 2] })
  if (error !== undefined || status !== 0) throw new Error(`${program} failed`, { cause: error })
}

/** What is asked here a minute is more than a client asks in a day. */
const NO_LIMITS = Object.fromEntries(
  ['REQUESTS', 'LOGINS', 'SEARCHES', 'KEYS'].map((name) => [`SREG_LIMIT_${name}`, '0']),
)

/** The built server with a fresh data folder. */
async function serve(data) {
  const args = [join(root, 'dist/launcher.mjs'), 'serve', '--port', '0', '--data', data]
  const child = spawn(process.execPath, args, {
    env: { ...process.env, SREG_LOG: 'off', SREG_MIN_FREE: '0', ...NO_LIMITS },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  const url = await new Promise((resolve, reject) => {
    createInterface(child.stdout).on('line', (line) => {
      const [, at] = /^listening on (\S+)$/.exec(line) ?? []
      if (at !== undefined) resolve(at)
    })
    void ended.then(() => reject(new Error('the server ended at its start')))
  })
  return {
    url,
    admin: readFileSync(join(data, 'first-admin-token'), 'utf8').trim(),
    async stop() {
      child.kill('SIGTERM')
      return ended
    },
  }
}

/** A user with an image, and the settings that put their names and ids into paths. */
async function furnish({ url, admin }) {
  const { call } = libraryClient(url, admin)
  const data = async (method, path, body) => {
    const answer = await call(method, path, body)
    if (answer.status !== 200) throw new Error(`${method} ${path}: ${answer.text}`)
    return answer.json.data
  }
  await data('POST', '/v1/users', { name: 'alice' })
  const { token } = await data('POST', '/v1/tokens', { user: 'alice', name: 'schemathesis' })
  const ref = 'alice/tools/true'
  const pushed = await libraryClient(url, token).push(ref, sampleSif())
  const names = [
    { path: '/v1/(images|imagefile)/', ref: `${ref}:latest` },
    { path: '/v1/entities/', entity: 'alice' },
    { path: '/v1/collections/', collection: 'alice/tools' },
    { path: '/v1/containers/', container: ref },
    { path: '/tags/', id: pushed.container },
    { path: '/v2/imagefile/', id: pushed.image },
    { path: '/v1/users/', name: 'alice' },
    { path: '/v2/.name./', name: ref },
    { path: '/v1/exports/blobs/', digest: pushed.digest },
  ]
  const existing = names.map(
    ({ path, ...params }) => `
[[operations]]
include-path-regex = "^.*${path}"
[operations.parameters]
${Object.entries(params)
  .map(([name, value]) => `"path.${name}" = "${value}"`)
  .join('\n')}
`,
  )
  return { token, existing: existing.join('') }
}

/** One run over all operations, each of which counts as one. */
async function ask(bin, folder, url, name, token, settings, more = []) {
  process.stdout.write(`\n--- ${name}\n`)
  const config = join(folder, `${name}.toml`)
  const report = join(folder, `${name}.xml`)
  writeFileSync(config, settings)
  const args = [
    `--config-file=${config}`,
    'run',
    `${url}/openapi.json`,
    `--checks=${CHECKS.join(',')}`,
    '--phases=coverage,fuzzing',
    `--max-examples=${options.examples}`,
    `--seed=${options.seed}`,
    '--workers=2',
    '--max-redirects=0',
    '--warnings=off',
    '--generation-database=none',
    '--report=junit',
    `--report-junit-path=${report}`,
    ...(token === null ? [] : ['--header', `Authorization: Bearer ${token}`]),
    ...more,
  ]
  const child = spawn(join(bin, 'schemathesis'), args, {
    cwd: folder,
    stdio: ['ignore', 'inherit', 'inherit'],
    timeout: 120_000,
  })
  const code = await new Promise((resolve) => child.once('exit', resolve))
  const cases = read(report).match(/<testcase\b[^>]*?(?:\/>|>[\s\S]*?<\/testcase>)/g) ?? []
  const wrong = cases.filter((text) => /<(?:failure|error)\b/.test(text)).length
  count({ passed: cases.length - wrong, failed: code === 0 ? wrong : Math.max(1, wrong) })
}

const read = (file) => (existsSync(file) ? readFileSync(file, 'utf8') : '')

const bin = python()
const folder = mkdtempSync(join(root, '.cache', 'schemathesis-run-'))
let passed = 0
let failed = 0
const count = (result) => {
  passed += result.passed
  failed += result.failed
}
try {
  const server = await serve(join(folder, 'data'))
  try {
    const document = join(folder, 'openapi.json')
    writeFileSync(document, await (await fetch(`${server.url}/openapi.json`)).text())
    const validator = join(bin, 'openapi-spec-validator')
    const { status } = spawnSync(validator, ['--schema', '3.1', document], { stdio: 'inherit' })
    count({ passed: Number(status === 0), failed: Number(status !== 0) })

    const { token, existing } = await furnish(server)
    const { url, admin } = server
    const there = SETTINGS + existing
    // the image of the names that are there must stay there: made-up names reach the row below
    const keep = ['--exclude-operation-id', 'delete_v1_images_ref']
    await ask(bin, folder, url, 'anonymous', null, SETTINGS)
    await ask(bin, folder, url, 'anonymous-existing', null, there)
    await ask(bin, folder, url, 'user-existing', token, there, keep)
    await ask(bin, folder, url, 'admin-existing', admin, there, keep)
    await ask(bin, folder, url, 'user', token, SETTINGS)
    await ask(bin, folder, url, 'admin', admin, SETTINGS)
    const { ok } = await fetch(`${url}/readyz`)
    count({ passed: Number(ok), failed: Number(!ok) })
  } finally {
    const code = await server.stop()
    if (code !== 0) count({ passed: 0, failed: 1 })
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
process.stdout.write(`${passed} passed, ${failed} failed, 0 skipped\n`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
