/**
 * Bundles adapters/node/main.ts into dist/: everything but better-sqlite3 in a few ES modules, with
 * the launcher beside them (docs/decisions/0008).
 *
 * Migrations are not copied: the package ships `migrations/` next to `dist/`, as in the repository,
 * so the built program reads `../migrations/` from its own folder. One copy, nothing to go stale.
 *
 *   node scripts/build.mjs [--clean] [ENTRY]
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
import { inputsHash } from './inputs.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const dist = join(root, 'dist')
const args = process.argv.slice(2)
const entry = args.find((arg) => !arg.startsWith('--')) ?? join(root, 'adapters/node/main.ts')

// Before the build, so that a file saved while it runs counts as changed afterwards.
const stamp = inputsHash(root)
const result = await build({
  entryPoints: { main: entry },
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
  external: ['better-sqlite3'],
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
// Whole files by rename, main.mjs last: a server starting now sees the old program or the new one.
const isMain = (file) => basename(file.path) === 'main.mjs'
for (const file of result.outputFiles.sort((a, b) => Number(isMain(a)) - Number(isMain(b)))) {
  writeFileSync(`${file.path}.new`, file.contents)
  renameSync(`${file.path}.new`, file.path)
}
copyFileSync(join(root, 'adapters/node/launcher.mjs'), join(dist, 'launcher.mjs.new'))
chmodSync(join(dist, 'launcher.mjs.new'), 0o755)
renameSync(join(dist, 'launcher.mjs.new'), join(dist, 'launcher.mjs'))
writeFileSync(
  join(dist, 'THIRD-PARTY-LICENSES.txt'),
  `Bundled into this folder's modules:\n\n${licences().join(`\n${'-'.repeat(72)}\n\n`)}`,
)
writeFileSync(join(dist, '.inputs'), stamp)
