/**
 * Bundles the entries of Node, Bun and Deno into dist/: everything but better-sqlite3 in a few ES
 * modules that they share, with the launcher beside them (docs/decisions/0008).
 *
 * Migrations are not copied: the package ships `migrations/` next to `dist/`, as in the repository,
 * so the built program reads `../migrations/` from its own folder. One copy, nothing to go stale.
 *
 *   node scripts/build.mjs [--clean]
 *
 * `--clean` empties dist/ first (for packing). Without it, chunks of earlier builds stay, because
 * a server started from them may still load one.
 */
import { build } from 'esbuild'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { copyAssets } from './assets.mjs'
import { inputsHash } from './inputs.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const dist = join(root, 'dist')
const args = process.argv.slice(2)
/** By the names that the launcher knows, and the thread's by the one that aside.ts does. */
const ENTRIES = {
  main: 'adapters/node/main.ts',
  bun: 'adapters/bun/main.ts',
  deno: 'adapters/deno/main.ts',
  'aside-thread': 'adapters/databases/aside-thread.ts',
}

// Before the build, so that a file saved while it runs counts as changed afterwards.
const stamp = inputsHash(root)
const result = await build({
  entryPoints: ENTRIES,
  absWorkingDir: root,
  outdir: dist,
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node22',
  outExtension: { '.js': '.mjs' },
  entryNames: '[name]',
  chunkNames: '[name]-[hash]',
  external: ['better-sqlite3', 'bun:*'],
  minifyWhitespace: true,
  minifySyntax: true,
  legalComments: 'none',
  metafile: true,
  // Bundled CommonJS (commander) calls require() for Node's own modules.
  banner: {
    js: "import{createRequire as __createRequire}from'node:module';const require=__createRequire(import.meta.url);",
  },
  write: false,
  logLevel: 'warning',
})

/** The licences of what is bundled, which ask to travel with it. */
function licences() {
  /** @type {Set<string>} */
  const packages = new Set()
  for (const input of Object.keys(result.metafile.inputs)) {
    const [, folder] = input.match(/^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//) ?? []
    if (folder) packages.add(folder)
  }
  return [...packages].sort().map((folder) => {
    const { name, version, license } = JSON.parse(
      readFileSync(join(root, folder, 'package.json'), 'utf8'),
    )
    const file = readdirSync(join(root, folder)).find((entry) => /^licen[cs]e/i.test(entry))
    const text = file ? readFileSync(join(root, folder, file), 'utf8').trim() : ''
    return `${name} ${version} (${license})\n\n${text}\n`
  })
}

if (args.includes('--clean')) rmSync(dist, { recursive: true, force: true })
mkdirSync(dist, { recursive: true })
// Whole files by rename, entries last: a server starting now sees the old program or the new one.
const isEntry = (file) => basename(file.path, '.mjs') in ENTRIES
for (const file of result.outputFiles.sort((a, b) => Number(isEntry(a)) - Number(isEntry(b)))) {
  writeFileSync(`${file.path}.new`, file.contents)
  renameSync(`${file.path}.new`, file.path)
}
copyAssets(join(dist, 'assets'))
copyFileSync(join(root, 'adapters/host/launcher.mjs'), join(dist, 'launcher.mjs.new'))
chmodSync(join(dist, 'launcher.mjs.new'), 0o755)
renameSync(join(dist, 'launcher.mjs.new'), join(dist, 'launcher.mjs'))
writeFileSync(
  join(dist, 'THIRD-PARTY-LICENSES.txt'),
  `Bundled into this folder's modules:\n\n${licences().join(`\n${'-'.repeat(72)}\n\n`)}`,
)
// of other modules than these; a process that still runs writes its own anew
rmSync(join(dist, '.compiled'), { recursive: true, force: true })
writeFileSync(join(dist, '.inputs'), stamp)
