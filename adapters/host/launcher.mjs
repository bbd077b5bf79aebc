#!/usr/bin/env node
/**
 * First file of the published command: finds the entry of the runtime it runs on, and judges a Node
 * before anything else is loaded, because better-sqlite3 does not fail on an old Node, it crashes.
 * No static import, and no syntax newer than Node 12, so that an old Node gets as far as the
 * sentence.
 */
var NEEDED = [22, 12]

/** Whether a version as in `process.versions.node` is at least NEEDED. */
function isNewEnough(version) {
  var parts = String(version).split('.').map(Number)
  return parts[0] > NEEDED[0] || (parts[0] === NEEDED[0] && parts[1] >= NEEDED[1])
}

/**
 * In a clone, npm has put Node 24 beside dist/: runs this command again with it and takes over its
 * end. Resolves with false where there is no such Node.
 */
async function runWithOwnNode() {
  var fs = await import('fs')
  var url = await import('url')
  var childProcess = await import('child_process')
  var node = url.fileURLToPath(new URL('../node_modules/.bin/node', import.meta.url))
  if (!fs.existsSync(node)) return false
  var found = childProcess.spawnSync(node, ['--version'], { encoding: 'utf8' })
  if (found.status !== 0 || !isNewEnough(found.stdout.trim().slice(1))) return false

  // As `npm start`: memory after many pulls at once is a quarter less (docs/runtimes.md).
  var args = ['--max-semi-space-size=16', url.fileURLToPath(import.meta.url)]
  args = args.concat(process.argv.slice(2))
  var child = childProcess.spawn(node, args, { stdio: 'inherit' })
  process.on('SIGTERM', function () {
    child.kill('SIGTERM')
  })
  process.on('SIGINT', function () {
    // A terminal's Ctrl-C reaches the child by itself; a second one would mean "at once".
    if (!process.stdin.isTTY) child.kill('SIGINT')
  })
  child.on('exit', function (code, signal) {
    process.exitCode = signal === null ? code : 1
  })
  return true
}

/**
 * V8's code of our modules is written beside them when a process ends, and the next start is a tenth to
 * a fifth faster. Node's own place for it is among temporary files, where others could put what we run. Where it may
 * not write it does without.
 */
async function keepCompiled() {
  var nodeModule = await import('module')
  if (nodeModule.enableCompileCache === undefined) return
  var url = await import('url')
  nodeModule.enableCompileCache(url.fileURLToPath(new URL('.compiled', import.meta.url)))
}

/** Bun and Deno also claim to be some Node, so they are asked for first. */
async function loadEntry() {
  if (process.versions.bun !== undefined) return import('./bun.mjs')
  if (process.versions.deno !== undefined) return import('./deno.mjs')
  if (!isNewEnough(process.versions.node)) return null
  await keepCompiled()
  return import('./main.mjs')
}

async function launch() {
  var main = await loadEntry()
  if (main !== null) {
    process.exitCode = await main.run(process.argv.slice(2))
  } else if (!(await runWithOwnNode())) {
    process.stderr.write(
      'sreg-lite needs Node.js ' +
        NEEDED.join('.') +
        ' or newer, and this is ' +
        process.versions.node +
        '. Install a newer Node.js, or let npm bring one for this command: ' +
        'npx -p node@24 -p sreg-lite sreg-lite serve\n',
    )
    process.exitCode = 2
  }
}

launch().catch(function (error) {
  process.stderr.write((error && error.stack ? error.stack : String(error)) + '\n')
  process.exitCode = 1
})
