/**
 * Makes a clone ready: installs what package-lock.json names, builds dist/, brings the real clients.
 * Runs before `npm start` and `npm test`, so with whatever Node the machine has (≥ 18), before any
 * dependency is there. Says nothing when nothing is to do.
 *
 *   node scripts/setup.mjs [--build] [--client]
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inputsHash } from './inputs.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const path = (name) => join(root, name)
const wants = (option) => process.argv.includes(option)
const say = (line) => process.stderr.write(`setup: ${line}\n`)
const read = (name) => {
  try {
    return readFileSync(path(name), 'utf8')
  } catch {
    return null
  }
}

const ownNode = path('node_modules/.bin/node')
const lockHash = createHash('sha256').update(read('package-lock.json')).digest('hex')
const STAMP = 'node_modules/.sreg-stamp'

// --- what is missing -------------------------------------------------------------------------

/** Whether npm's own record of node_modules names the same packages as package-lock.json. */
function matchesLock() {
  const record = read('node_modules/.package-lock.json')
  if (record === null) return false
  const wanted = JSON.parse(read('package-lock.json')).packages
  const found = JSON.parse(record).packages
  return (
    Object.entries(found).every(([name, entry]) => wanted[name]?.version === entry.version) &&
    Object.entries(wanted).every(([name, entry]) => name === '' || entry.optional || found[name])
  )
}

function installed() {
  // A link to another checkout's node_modules: its owner installs, never we.
  if (lstatSync(path('node_modules'), { throwIfNoEntry: false })?.isSymbolicLink()) return true
  if (!existsSync(ownNode)) return false
  if (read(STAMP) === lockHash) return true
  // Installed by hand: no need to do it again.
  if (!matchesLock()) return false
  writeFileSync(path(STAMP), lockHash)
  return true
}

function built() {
  return (
    existsSync(path('dist/main.mjs')) &&
    existsSync(path('dist/launcher.mjs')) &&
    existsSync(path('dist/assets')) &&
    read('dist/.inputs') === inputsHash(root)
  )
}

function onPath(program) {
  const folders = (process.env.PATH ?? '').split(delimiter)
  return folders.some((folder) => folder !== '' && existsSync(join(folder, program)))
}

/** The real clients of the tests: who is missing on PATH comes from Debian's packages into .cache. */
const CLIENTS = [
  { name: 'apptainer', programs: ['apptainer'] },
  { name: 'oci-clients', programs: ['skopeo', 'crane', 'oras', 'busybox'] },
]

function hasClient({ name, programs }) {
  // `layout` is written last, by clients that have been seen to start.
  return programs.every(onPath) || existsSync(path(`.cache/${name}/layout`))
}

// --- doing it --------------------------------------------------------------------------------

/** Runs a program with its words on stderr, so that stdout stays the caller's. */
function run(program, args, options = {}) {
  const { status, signal, error } = spawnSync(program, args, {
    cwd: root,
    stdio: ['ignore', 2, 2],
    ...options,
  })
  if (error) say(`${program} did not start: ${error.message}`)
  else if (status !== 0) say(`${program} ended with ${signal ?? `code ${status}`}`)
  return status === 0
}

function install() {
  say('installing dependencies (npm ci), once')
  // node_modules/.bin leads PATH inside npm scripts; npm ci removes that folder while it runs.
  const env = { ...process.env }
  env.PATH = (env.PATH ?? '')
    .split(delimiter)
    .filter((folder) => !folder.startsWith(path('node_modules')))
    .join(delimiter)
  const npm = process.env.npm_execpath
  const node = process.env.npm_node_execpath ?? process.execPath
  const useNode = npm !== undefined && /npm-cli\.[cm]?js$/.test(npm) && !node.startsWith(root)
  const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error']
  const done = useNode
    ? run(node, [npm, ...args], { env })
    : run('npm', args, { env, shell: process.platform === 'win32' })
  if (!done || !existsSync(ownNode)) {
    say(
      done
        ? 'node_modules/.bin/node is missing: is ignore-scripts set in your npm configuration?'
        : 'npm ci failed; its message stands above',
    )
    process.exit(1)
  }
  writeFileSync(path(STAMP), lockHash)
}

function bringClient({ name, programs }) {
  const words = programs.join(', ')
  say(`not all on PATH (${words}): bringing them from Debian packages into .cache/${name}, once`)
  const script = path(`test/e2e/install-${name}.sh`)
  if (process.platform === 'linux' && run('bash', [script, path(`.cache/${name}`)])) return
  if (process.env.CI === 'true') {
    say(`no ${name} here, and CI=true makes the tests with real clients required`)
    process.exit(1)
  }
  say(`no ${name} here: tests that need ${words} will be skipped`)
}

// --- one at a time ---------------------------------------------------------------------------

const LOCK = path('.cache/setup.lock')

function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

/** Waits for another run in this clone; takes the lock over when its owner has died. */
function lock() {
  mkdirSync(path('.cache'), { recursive: true })
  for (let told = false; ;) {
    try {
      // A link is there whole or not at all, and never replaces one that is there.
      writeFileSync(`${LOCK}.${process.pid}`, String(process.pid))
      linkSync(`${LOCK}.${process.pid}`, LOCK)
      process.on('exit', () => rmSync(LOCK, { force: true }))
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
        process.on(signal, () => process.exit(1))
      return
    } catch (error) {
      if (error.code !== 'EEXIST') throw error
    } finally {
      rmSync(`${LOCK}.${process.pid}`, { force: true })
    }
    const owner = Number(read('.cache/setup.lock') ?? 0)
    if (owner !== 0 && !isAlive(owner)) {
      try {
        // Only one of several waiters succeeds in moving it away.
        renameSync(LOCK, `${LOCK}.${process.pid}`)
        rmSync(`${LOCK}.${process.pid}`, { force: true })
      } catch (error) {
        if (error.code !== 'ENOENT') throw error
      }
      continue
    }
    if (!told) say(`waiting for another setup in this clone (pid ${owner})`)
    told = true
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
  }
}

const complete = () =>
  installed() && (!wants('--build') || built()) && (!wants('--client') || CLIENTS.every(hasClient))

if (!complete()) {
  lock()
  // Asked again: the run that held the lock may have done it.
  if (!installed()) install()
  if (wants('--build') && !built()) {
    if (!run(ownNode, [path('scripts/build.mjs')])) process.exit(1)
  }
  if (wants('--client')) CLIENTS.filter((client) => !hasClient(client)).forEach(bringClient)
}
