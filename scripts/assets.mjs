/**
 * The files of swagger-ui-dist that /docs loads (src/web/docs.ts names them), copied to dist/assets
 * with their licences. Used by the build; by itself it is what a deployment on Workers needs.
 *
 *   node scripts/assets.mjs
 */
import { copyFileSync, mkdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const FILES = {
  'swagger-ui.css': 'swagger-ui.css',
  'swagger-ui-bundle.js': 'swagger-ui-bundle.js',
  'swagger-ui-bundle.js.LICENSE.txt': 'swagger-ui-bundle.js.LICENSE.txt',
  LICENSE: 'swagger-ui.LICENSE.txt',
  NOTICE: 'swagger-ui.NOTICE.txt',
}

/** Whole files by rename: a server that runs reads the old one or the new one. */
export function copyAssets(folder = join(root, 'dist/assets')) {
  mkdirSync(folder, { recursive: true })
  for (const [from, to] of Object.entries(FILES)) {
    copyFileSync(join(root, 'node_modules/swagger-ui-dist', from), join(folder, `${to}.new`))
    renameSync(join(folder, `${to}.new`), join(folder, to))
  }
  return folder
}

if (process.argv[1] === fileURLToPath(import.meta.url)) copyAssets()
