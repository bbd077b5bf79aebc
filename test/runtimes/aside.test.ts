/** The thread for searches (R56) in the built program: there when it is needed, and in nobody's way at the end. */
import { readdirSync, readlinkSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { expectData } from '../protocol/answers.ts'
import { libraryClient } from '../protocol/client.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { hostTarget } from './host-target.ts'
import { TESTED } from './runtime.ts'

/** How often a process has its database open. */
function connections(pid: number): number {
  const open = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`)
    } catch {
      // closed meanwhile
      return ''
    }
  })
  return open.filter((path) => path.endsWith('/sreg.sqlite3')).length
}

describe.each(TESTED)('%s', (runtime) => {
  test('the first search opens a second connection, and stopping leaves one whole file', async () => {
    const target = await hostTarget(runtime)
    const { jwt } = await target.mint('alice')
    const alice = libraryClient(target.url, jwt)
    await alice.push('alice/c/needle', sampleSif())
    expect(connections(target.process.pid)).toBe(1)
    for (let searches = 0; searches < 2; searches++) {
      const found = expectData(await alice.call('GET', '/v1/search?value=needle&arch=amd64'))
      expect(found.image).toHaveLength(1)
      expect(connections(target.process.pid)).toBe(2)
    }
    // rejects unless the program ends with 0
    await target.stop({ keep: true })
    // whoever closes last writes the log into the file: a copy of that alone is the whole registry
    const files = await readdir(target.data)
    expect(files.filter((name) => name.startsWith('sreg.sqlite3'))).toEqual(['sreg.sqlite3'])
    await rm(target.data, { recursive: true })
  })
})
