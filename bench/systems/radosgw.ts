/** A server of the S3 protocol on this machine, in memory: Ceph's radosgw, as the tests start it. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { findProgram, freePort, serve, type Server } from '../measure.ts'

const PROGRAMS = ['ceph', 'ceph-mon', 'ceph-osd', 'radosgw', 'radosgw-admin', 'uuidgen', 'curl']
const SCRIPT = fileURLToPath(new URL('../../test/fixtures/radosgw.sh', import.meta.url))

/** What is missing for it, or null. */
export function missingRadosgw(): string | null {
  const missing = PROGRAMS.filter((program) => findProgram(program) === null)
  return missing.length === 0
    ? null
    : `no ${missing.join(', ')}: apt-get install radosgw ceph-mon ceph-osd uuid-runtime`
}

export type Store = Server & {
  /** Makes a bucket; settings of our server for it. */
  bucket(name: string): Promise<Record<string, string>>
}

/** Starts it within a minute; what is stored goes with it. */
export async function startRadosgw(folder: string): Promise<Store> {
  const ports = [await freePort(), await freePort(), await freePort()]
  const base = `http://127.0.0.1:${ports[2]}`
  const args = [SCRIPT, join(folder, 'state'), ...ports, process.pid].map(String)
  const server = await serve(folder, 'bash', args, base, process.env, 60)
  for (let tries = 0; !existsSync(join(folder, 'state/ready')); tries++) {
    if (tries > 300) {
      await server.stop()
      throw new Error('radosgw answers, and is not ready after 30 s')
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  const client = new S3Client({
    endpoint: base,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: 'test', secretAccessKey: 'testtest' },
  })
  return {
    name: 'radosgw',
    base,
    ...server,
    async bucket(name) {
      await client.send(new CreateBucketCommand({ Bucket: name }))
      return {
        SREG_S3_BUCKET: name,
        SREG_S3_ENDPOINT: base,
        SREG_S3_ACCESS_KEY: 'test',
        SREG_S3_SECRET_KEY: 'testtest',
      }
    },
  }
}
