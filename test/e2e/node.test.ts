/** The real client against the registry on Node. */
import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { sampleSif } from '../fixtures/sif.ts'
import { libraryClient } from '../protocol/client.ts'
import { nodeTarget } from '../runtimes/target.ts'
import { makeClient, removeFolder } from './apptainer.ts'
import { describeKeystoreClients } from './keystore.ts'
import { startProxy } from './proxy.ts'
import { describeOciClients } from './oci.ts'
import { describeQuotaClient } from './quotas.ts'
import { describeRoles } from './roles.ts'
import { startServer } from './server.ts'
import { describeSigning } from './signing.ts'
import {
  describeClient,
  describeOneTag,
  describeRangeFailures,
  describeWithClient,
} from './suite.ts'

describeClient('Node', () => nodeTarget())
describeKeystoreClients('Node', nodeTarget)
describeOciClients('Node', nodeTarget)
describeRangeFailures('Node', () => nodeTarget())
describeOneTag('Node', () => nodeTarget())
describeSigning('Node', () => nodeTarget())
describeQuotaClient('Node', () => nodeTarget())
describeRoles('Node', nodeTarget)

describeWithClient('Node', () => {
  test('a server killed during a pull makes it fail (R5)', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'sreg-e2e-'))
    const server = await startServer(join(folder, 'data'))
    let ranges = 0
    const proxy = await startProxy(server.url, async (head) => {
      if (/^range:/im.test(head) && ++ranges === 3) await server.end('SIGKILL')
      return head
    })
    try {
      const jwt = await server.mint('alice')
      const image = Buffer.alloc(24 * 1024 * 1024, 'not a zero')
      image.set(sampleSif())
      await libraryClient(server.url, jwt).push('alice/default/x', image)
      const client = await makeClient(join(folder, 'client'))
      expect((await client.connect(proxy.url, jwt)).code).toBe(0)
      await writeFile(join(folder, 'original.sif'), image)
      const pulled = await client.pull(['library://alice/default/x'])
      expect(ranges).toBeGreaterThanOrEqual(3)
      expect(pulled.code, pulled.terminal).not.toBe(0)
      expect(pulled.sha256).toBeNull()
    } finally {
      await proxy.stop()
      if (server.process.exitCode === null && server.process.signalCode === null)
        await server.end('SIGKILL')
      await removeFolder(folder)
    }
  })
})
