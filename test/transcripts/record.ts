/**
 * Records the transcripts anew: runs the real client against this registry through a proxy that
 * writes down what passes. `node test/transcripts/record.ts FOLDER/bin/apptainer`.
 */
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { sha256 } from '../protocol/client.ts'
import { nodeTarget } from '../runtimes/target.ts'
import { files, PART_SIZE, TRANSCRIPTS, type Exchange } from './transcript.ts'

const [, , apptainer = 'apptainer'] = process.argv
const SENT = ['authorization', 'content-type', 'range', 'x-amz-content-sha256']
const RECEIVED = ['location', 'etag', 'content-range']
/** What clients read of an answer (protocol.md §3, §4). */
const READ = new Set(
  'data id uploaded hash size arch tags image entityName collectionName containerName uploadURL uploadID totalParts partSize presignedURL containerUrl apiVersion libraryAPI keystoreAPI tokenAPI uri quota quotaTotal error code amd64 latest v1'.split(
    ' ',
  ),
)
const NAMED = new Set(['id', 'uploadURL', 'uploadID', 'presignedURL'])

/** Real values and the names they go by; longer ones are replaced first. */
const names = new Map<string, string>()
const nameIt = (value: string, kind: string) => {
  if (!names.has(value)) names.set(value, `{{${kind}${names.size}}}`)
}
const renamed = (text: string) =>
  [...names]
    .toSorted(([a], [b]) => b.length - a.length)
    .reduce((all, [value, name]) => all.replaceAll(value, name), text)

const contents = Object.entries(files).map(([name, make]) => ({ name, bytes: make() }))
const slices = contents.flatMap(({ name: file, bytes }) =>
  Array.from({ length: Math.ceil(bytes.length / PART_SIZE) }, (_, i) => {
    const [start, end] = [i * PART_SIZE, Math.min((i + 1) * PART_SIZE, bytes.length)]
    return { file, start, end, digest: sha256(bytes.subarray(start, end)) }
  }),
)
for (const { file, start, end, digest } of slices) names.set(digest, `{{${file}.${start}-${end}}}`)
for (const { name, bytes } of contents) names.set(sha256(bytes), `{{${name}}}`)

function bodyOf(bytes: Buffer): Exchange['body'] {
  if (bytes.length === 0) return undefined
  const slice = slices.find(({ digest }) => digest === sha256(bytes))
  if (slice === undefined) return bytes.toString()
  const { file, start, end } = slice
  return { file, start, end }
}

/** Keeps what clients read and names what is new each time. */
function essence(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(essence)
  if (typeof value !== 'object' || value === null) return value
  const kept = Object.entries(value).filter(([key]) => READ.has(key))
  for (const [key, of] of kept) if (NAMED.has(key) && typeof of === 'string') nameIt(of, key)
  return Object.fromEntries(kept.map(([key, of]) => [key, essence(of)]))
}

const pick = (headers: IncomingHttpHeaders | Headers, wanted: string[]) =>
  Object.fromEntries(
    wanted.flatMap((name) => {
      const value = headers instanceof Headers ? headers.get(name) : headers[name]
      return typeof value === 'string' ? [[name, value]] : []
    }),
  )

const target = await nodeTarget()
let exchanges: Exchange[] = []
let client = ''
const proxy = createServer((incoming, outgoing) => {
  void (async () => {
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk as Buffer)
    const bytes = Buffer.concat(chunks)
    const { method = '', url = '', headers } = incoming
    if (headers['user-agent']?.startsWith('Apptainer') === true) client = headers['user-agent']
    const answer = await fetch(target.url + url, {
      method,
      redirect: 'manual',
      // the registry believes a proxy on loopback, so its links lead through here
      headers: { ...pick(headers, SENT), 'x-forwarded-host': headers.host ?? '' },
      ...(bytes.length > 0 && { body: bytes }),
    })
    const received = Buffer.from(await answer.arrayBuffer())
    const link = answer.headers.get('location')
    if (link !== null) nameIt(link, 'location')
    const etag = answer.headers.get('etag')
    if (etag !== null && method === 'PUT') nameIt(etag.replaceAll('"', ''), 'etag')
    const json = /json/.test(answer.headers.get('content-type') ?? '')
    exchanges.push({
      method,
      url: origin + url,
      headers: pick(headers, SENT),
      ...(bytes.length > 0 && { body: bodyOf(bytes) }),
      answer: {
        status: answer.status,
        headers: pick(answer.headers, RECEIVED),
        ...(json && { json: essence(JSON.parse(received.toString())) }),
      },
    })
    outgoing.writeHead(answer.status, { ...pick(answer.headers, [...RECEIVED, 'content-type']) })
    outgoing.end(received)
  })()
})
await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
const origin = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`
names.set(origin, '{{origin}}')

const home = await mkdtemp(join(tmpdir(), 'record-'))
const { jwt } = await target.mint('alice')
names.set(jwt, '{{token}}')
const config = join(home, 'config')
await mkdir(config)
await writeFile(
  join(config, 'remote.yaml'),
  `Active: sreg\nRemotes:\n  sreg:\n    URI: ${origin}\n    Token: ${jwt}\n    System: false\n    Exclusive: false\n    Insecure: true\n`,
  { mode: 0o600 },
)
for (const { name, bytes } of contents) await writeFile(join(home, `${name}.sif`), bytes)

const commands: Record<string, string[]> = {
  push: ['push', '-U', '-D', 'a small one', 'small.sif', 'library://alice/wire/small:v1,latest'],
  'push-again': ['push', '-U', 'small.sif', 'library://alice/wire/small:v1'],
  'push-multipart': ['push', '-U', 'big.sif', 'library://alice/wire/big:v1'],
  pull: ['pull', '--disable-cache', 'a.sif', 'library://alice/wire/small:v1'],
  'pull-ranges': ['pull', '--disable-cache', 'b.sif', 'library://alice/wire/big:v1'],
  search: ['search', 'wire'],
  delete: ['delete', '--force', 'library://alice/wire/small:v1'],
}
for (const name of TRANSCRIPTS) {
  exchanges = []
  const args = commands[name] ?? []
  const env = { PATH: process.env.PATH, HOME: home, APPTAINER_CONFIGDIR: config }
  await promisify(execFile)(apptainer, args, { cwd: home, env })
  const text = JSON.stringify(
    { command: `apptainer ${args.join(' ')}`, client, exchanges },
    null,
    1,
  )
  await writeFile(join(import.meta.dirname, `${name}.json`), `${renamed(text)}\n`)
}
proxy.closeAllConnections()
proxy.close()
await target.stop()
await rm(home, { recursive: true })
