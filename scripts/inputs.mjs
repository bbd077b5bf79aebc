/** One hash over everything the build reads; setup and build compare it. No dependency, Node ≥ 18. */
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

const INPUTS = [
  'src',
  'adapters',
  'package.json',
  'package-lock.json',
  'scripts/build.mjs',
  'scripts/assets.mjs',
]

/**
 * SHA-256 (hex) over the names and contents of the build's inputs below `root`. Contents, not
 * times: a checkout, a stash or a clock step changes times without changing anything else.
 */
export function inputsHash(root) {
  const hash = createHash('sha256')
  const add = (path) => {
    let entries
    try {
      entries = readdirSync(join(root, path)).sort()
    } catch (error) {
      if (error.code !== 'ENOTDIR') throw error
      hash.update(`${path}\0`).update(readFileSync(join(root, path)))
      return
    }
    for (const entry of entries) add(`${path}/${entry}`)
  }
  for (const path of INPUTS) add(path)
  return hash.digest('hex')
}
