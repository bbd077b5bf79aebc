/** The real client against the registry on Node with the blobs in a bucket, redirect off and on. */
import { mkdtemp, writeFile } from 'node:fs/promises'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { describeWithRadosgw } from '../fixtures/radosgw.ts'
import { buildSif } from '../fixtures/sif.ts'
import { sha256 } from '../protocol/client.ts'
import { directTarget, s3Target } from '../runtimes/s3.ts'
import { makeClient, removeFolder } from './apptainer.ts'
import { describeClient, describeWithClient } from './suite.ts'

const MIB = 1024 * 1024
const skip = { 'a full disk, when the upload opens': 'a bucket does not tell its free space' }

/** Passes connections on and counts their bytes, both ways. */
async function countingProxy(target: string) {
  const { hostname, port } = new URL(target)
  const sockets = new Set<Socket>()
  let bytes = 0
  const server = createServer((client) => {
    const upstream = connect(Number(port), hostname)
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from)
      from.on('data', (chunk: Buffer) => (bytes += chunk.length))
      from.on('error', () => to.destroy())
      from.pipe(to)
    }
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    bytes: () => bytes,
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

describeWithRadosgw('the real client and S3', () => {
  describeClient('Node and S3', () => s3Target({ redirect: false })(), { skip })
  describeClient('Node and S3, redirect on', () => s3Target({ redirect: true })(), { skip })

  describeWithClient('Node and S3, redirect on', () => {
    test.each([
      ['of one part', 2 * MIB, 0],
      ['of several parts', 70 * MIB, 1],
    ])('no byte of an image %s passes by us', async (_, trailing, readBacks) => {
      const folder = await mkdtemp(join(tmpdir(), 'sreg-e2e-'))
      const target = await directTarget()
      const proxy = await countingProxy(target.url)
      try {
        const image = buildSif({ objects: [{ type: 'generic', data: 'past us' }], trailing })
        const file = join(folder, 'image.sif')
        await writeFile(file, image)
        const client = await makeClient(join(folder, 'client'))
        const { jwt } = await target.mint('alice')
        expect((await client.connect(proxy.url, jwt)).code).toBe(0)
        target.readBacks()
        const pushed = await client.run(['push', '-U', file, 'library://alice/default/past'])
        expect(pushed.code, pushed.terminal).toBe(0)
        expect(target.readBacks()).toHaveLength(readBacks)
        const pulled = await client.pull(['library://alice/default/past'])
        expect(pulled.code, pulled.terminal).toBe(0)
        expect(pulled.sha256).toBe(sha256(image))
        expect(target.readBacks()).toEqual([])
        expect(proxy.bytes()).toBeLessThan(100_000)
      } finally {
        await proxy.stop()
        await target.stop()
        await removeFolder(folder)
      }
    })
  })
})
