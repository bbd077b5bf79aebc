/** What `npm pack` ships: installs alone, runs, and tells an old Node what is missing. */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { transformSync } from 'esbuild'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  version: string
  dependencies: Record<string, string>
}

/** The machine's own Node, where it is too old to run the program: the real case. */
const SYSTEM_NODE = '/usr/bin/node'
const systemVersion = existsSync(SYSTEM_NODE)
  ? execFileSync(SYSTEM_NODE, ['--version'], { encoding: 'utf8' }).trim().slice(1)
  : null
const systemIsOld = systemVersion !== null && Number(systemVersion.split('.')[0]) < 22

/** Without what npm tells its scripts about this package: inside another folder it misleads npm. */
const env = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^npm_(?!config_)|^npm_config_local/.test(name)),
)

let folder: string
let launcher: string

function run(program: string, args: string[]) {
  return spawnSync(program, args, { cwd: folder, env, encoding: 'utf8', timeout: 30_000 })
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sreg-pack-'))
  execFileSync(process.execPath, [join(root, 'scripts/setup.mjs'), '--build'], { stdio: 'pipe' })
  // Without prepack: that empties dist/, which other tests are running from.
  execFileSync('npm', ['pack', '--ignore-scripts', '--pack-destination', folder], {
    cwd: root,
    env,
    stdio: 'pipe',
  })
  const file = readdirSync(folder).find((name) => name.endsWith('.tgz')) ?? 'none'
  mkdirSync(join(folder, 'empty'))
  execFileSync(
    'npm',
    ['install', '--no-audit', '--no-fund', '--prefix', join(folder, 'empty'), join(folder, file)],
    { cwd: join(folder, 'empty'), env, stdio: 'pipe' },
  )
  launcher = join(folder, 'empty/node_modules/sreg-lite/dist/launcher.mjs')
}, 180_000)

afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe('the packed program', () => {
  test('holds the program, the migrations and the words, nothing else', () => {
    const shipped = join(folder, 'empty/node_modules/sreg-lite')
    const allowed = ['CHANGELOG.md', 'LICENSE', 'README.md', 'dist', 'migrations', 'package.json']
    expect(readdirSync(shipped).filter((name) => !allowed.includes(name))).toEqual([])
    expect(readdirSync(join(shipped, 'migrations'))).toEqual(readdirSync(join(root, 'migrations')))
    expect(readdirSync(join(shipped, 'dist'))).not.toContain('.inputs')
  })

  test('brings better-sqlite3 and its headers package, nothing else', () => {
    const installed = readdirSync(join(folder, 'empty/node_modules')).filter(
      (name) => !name.startsWith('.'),
    )
    expect(installed).toEqual(['better-sqlite3', 'node-addon-api', 'sreg-lite'])
    expect(Object.keys(manifest.dependencies)).toEqual(['better-sqlite3'])
  })

  test('prints its version, alone, on stdout', () => {
    const command = join(folder, 'empty/node_modules/.bin/sreg-lite')
    const { status, stdout, stderr } = run(process.execPath, [command, '--version'])
    expect({ status, stdout, stderr }).toEqual({
      status: 0,
      stdout: `${manifest.version}\n`,
      stderr: '',
    })
  })
})

test('a clone installs without a compiler: prebuilt binaries are not built anew', () => {
  // npm ci runs node-gyp for every package with a binding.gyp unless it is told not to; the lock
  // forgets what the package itself says about that whenever it is written anew.
  const read = (file: string) => JSON.parse(readFileSync(join(root, file), 'utf8'))
  expect(read('package-lock.json').packages['node_modules/better-sqlite3'].gypfile).toBe(false)
  expect(read('package.json').allowScripts['better-sqlite3']).toBe(false)
})

describe('the launcher', () => {
  test('has no static import and no syntax newer than Node 12', () => {
    const source = readFileSync(join(root, 'adapters/host/launcher.mjs'), 'utf8')
    expect(source).not.toMatch(/^\s*(?:import\s*['"{*\w]|export\b.*\bfrom\b)/m)
    const plain = { format: 'esm', loader: 'js' } as const
    const old = transformSync(source, { ...plain, target: 'node12.20' })
    expect(old.warnings).toEqual([])
    expect(old.code).toBe(transformSync(source, { ...plain, target: 'esnext' }).code)
  })

  const sentence = (version: string) =>
    `sreg-lite needs Node.js 22.12 or newer, and this is ${version}. Install a newer Node.js, or ` +
    'let npm bring one for this command: npx -p node@24 -p sreg-lite sreg-lite serve\n'

  test.each(['12.22.0', '20.20.2', '22.11.0', '9.0.0'])(
    'refuses Node %s with one sentence and code 2 (version simulated)',
    (version) => {
      const pretend = `data:text/javascript,Object.defineProperty(process,'versions',{value:{...process.versions,node:'${version}'}})`
      const result = run(process.execPath, ['--import', pretend, launcher, 'serve'])
      expect([result.status, result.stdout, result.stderr]).toEqual([2, '', sentence(version)])
    },
  )

  test.each(['22.12.0', '23.0.0', '100.0.0'])('accepts Node %s (version simulated)', (version) => {
    const pretend = `data:text/javascript,Object.defineProperty(process,'versions',{value:{...process.versions,node:'${version}'}})`
    const result = run(process.execPath, ['--import', pretend, launcher, '--version'])
    expect([result.status, result.stdout]).toEqual([0, `${manifest.version}\n`])
  })

  test(`refuses a real old Node (${SYSTEM_NODE}: ${systemVersion ?? 'none'})`, (context) => {
    if (!systemIsOld) context.skip(`${SYSTEM_NODE} is not older than 22; tested by simulation`)
    const result = run(SYSTEM_NODE, [launcher, 'serve'])
    expect([result.status, result.stdout, result.stderr]).toEqual([
      2,
      '',
      sentence(systemVersion ?? ''),
    ])
  })

  test('in a clone, an old Node hands over to the one that npm brought', (context) => {
    if (!systemIsOld) context.skip(`${SYSTEM_NODE} is not older than 22`)
    const result = run(SYSTEM_NODE, [join(root, 'dist/launcher.mjs'), '--version'])
    expect([result.status, result.stdout]).toEqual([0, `${manifest.version}\n`])
    // Exit codes come through too.
    expect(run(SYSTEM_NODE, [join(root, 'dist/launcher.mjs'), '--no-such-option']).status).not.toBe(
      0,
    )
  })
})
