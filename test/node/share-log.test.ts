/** The log tells that a link was followed, and never how (R34, R61). */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { startServer } from '../faults/process.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { libraryClient } from '../protocol/client.ts'
import { booksOf } from '../runtimes/target.ts'

it('names the route and the link, and not its secret, whatever comes of it', async () => {
  const data = await mkdtemp(join(tmpdir(), 'sreg-links-'))
  const server = await startServer({ data, runtime: 'node' })
  try {
    const { jwt } = await booksOf(data).mint('alice')
    const alice = libraryClient(server.url, jwt)
    await alice.push('alice/c/box', sampleSif({ content: 'linked' }))
    const made = await alice.call('POST', '/v1/shares', { ref: 'alice/c/box', count: 1 })
    const { id, url } = made.json.data as { id: string; url: string }
    const secret = new URL(url).searchParams.get('s') ?? ''
    expect(secret).toHaveLength(22)
    const ranged = await fetch(url, { headers: { range: 'bytes=0-9' }, redirect: 'manual' })
    const ticket = new URL(ranged.headers.get('location') ?? '')
    expect((await fetch(ticket, { headers: { range: 'bytes=0-9' } })).status).toBe(206)
    for (const again of [url, `${url}A`, url.replace(secret, `%00${secret}`)])
      expect((await fetch(again)).status).toBe(404)
    expect((await fetch(url, { method: 'POST' })).status).toBe(405)
    expect(await server.kill('SIGTERM')).toBe(0)
    const lines = server
      .words()
      .split('\n')
      .filter((line) => line.includes('"/share"'))
    expect(lines).toHaveLength(5)
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ route: '/share', status: 303, token: id })
    for (const hidden of [secret, ticket.searchParams.get('t') ?? ''])
      expect(server.words()).not.toContain(hidden)
  } finally {
    await server.kill('SIGKILL')
    await rm(data, { recursive: true, force: true })
  }
})
