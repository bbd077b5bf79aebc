/** What a deployment on Workers rests on: its bundle, its settings, its secrets and migrations. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { convertV4MiniflareOptions, Miniflare } from 'miniflare'
import { expect, test } from 'vitest'
import { MIGRATIONS } from '../adapters/cloudflare/migrations.ts'
import { parseSigningKeys } from '../adapters/signing-keys.ts'
import { parseConfig } from '../src/config.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const run = (args: string[], env: Record<string, string> = {}) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ...env },
  })
  if (status !== 0) throw new Error(`${args.join(' ')}: ${stderr}${stdout}`)
  return stdout
}

test('the bundle that wrangler makes is below 3 MB, without a network', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sreg-deploy-'))
  try {
    const said = run(
      ['node_modules/wrangler/bin/wrangler.js', 'deploy', '--dry-run', '--outdir', folder],
      { WRANGLER_SEND_METRICS: 'false', HTTPS_PROXY: 'http://127.0.0.1:9', CI: '1' },
    )
    const [, kib] = /gzip: ([\d.]+) KiB/.exec(said) ?? []
    console.log(`bundle of the Worker: ${kib} KiB gzip`)
    expect(Number(kib)).toBeGreaterThan(50)
    expect(Number(kib)).toBeLessThan(3 * 1024)
    expect(readdirSync(folder)).toContain('worker.js')
    expect(said).toContain('env.DB')
    expect(said).toContain('env.BLOBS')
    expect(said).toContain('env.ASSETS')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}, 60_000)

test('files of the viewer come from the static assets of a deployment', async () => {
  const { outputFiles } = await build({
    stdin: {
      contents: `
        import { workerAssets } from './adapters/cloudflare/assets.ts'
        export default {
          async fetch(request, env) {
            const found = await workerAssets(env.ASSETS).get(new URL(request.url).pathname.slice(1))
            return new Response(found, { status: found === null ? 204 : 200 })
          },
        }`,
      resolveDir: root,
    },
    bundle: true,
    format: 'esm',
    write: false,
  })
  const workerd = new Miniflare(
    convertV4MiniflareOptions({
      modules: true,
      script: outputFiles[0]?.text ?? '',
      compatibilityDate: '2026-11-02',
      assets: {
        directory: join(root, 'node_modules/swagger-ui-dist'),
        binding: 'ASSETS',
        // as `run_worker_first` in wrangler.toml
        routerConfig: { has_user_worker: true, invoke_user_worker_ahead_of_assets: true },
      },
    }),
  )
  try {
    const ask = (name: string) => workerd.dispatchFetch(`http://registry.test/${name}`)
    const style = await ask('swagger-ui.css')
    expect(style.status).toBe(200)
    expect(await style.text()).toBe(
      readFileSync(join(root, 'node_modules/swagger-ui-dist/swagger-ui.css'), 'utf8'),
    )
    expect((await ask('nothing.css')).status).toBe(204)
  } finally {
    await workerd.dispose()
  }
}, 60_000)

test('the Worker knows every migration', () => {
  const files = readdirSync(join(root, 'migrations')).filter((name) => name.endsWith('.sql'))
  expect([...MIGRATIONS]).toEqual(files.toSorted())
})

test('the date that all runs of workerd name is the same', () => {
  const dates = ['wrangler.toml', 'scripts/local-workers.mjs', 'vitest.config.ts'].map(
    (file) =>
      /compatibility_?date\W+(\d{4}-\d{2}-\d{2})/i.exec(
        readFileSync(join(root, file), 'utf8'),
      )?.[1],
  )
  expect(new Set(dates)).toEqual(new Set([dates[0]]))
  expect(dates[0]).toBeDefined()
})

test('the secrets that are printed are a configuration, new each time', () => {
  const make = () =>
    JSON.parse(run(['scripts/worker-secrets.mjs'])) as Record<
      'SREG_SECRET' | 'SREG_SIGNING_KEYS' | 'SREG_SETUP_SECRET',
      string
    >
  const [one, two] = [make(), make()]
  const config = parseConfig(one, 'workers')
  expect(config.secret?.reveal()).toBe(one.SREG_SECRET)
  expect(config.setupSecret?.reveal()).toBe(one.SREG_SETUP_SECRET)
  const keys = parseSigningKeys(one.SREG_SIGNING_KEYS)
  expect(keys.current.d).toMatch(/^[\w-]{43}$/)
  expect(Object.values(two)).not.toContain(one.SREG_SECRET)
  expect(parseSigningKeys(two.SREG_SIGNING_KEYS).current.d).not.toBe(keys.current.d)
})
