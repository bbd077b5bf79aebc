/** A library client for tests: speaks what the real one speaks, call by call, and hides nothing. */
import { createHash } from 'node:crypto'
import { ask, type Answer } from './http.ts'

export type { Answer } from './http.ts'

export type LibraryClient = ReturnType<typeof libraryClient>

export const sha256 = (bytes: Uint8Array): string =>
  createHash('sha256').update(bytes).digest('hex')

let asked = 0
/** Requests that the clients of this process have made: where it is the same, nobody has asked for anything. */
export const requestsMade = (): number => asked

/**
 * PUTs bytes as the real client does: without a token, and with their hash only where the address
 * lists it among its signed headers.
 */
export async function putBytes(at: string, bytes: Uint8Array, sum = sha256(bytes)) {
  const signed = new URL(at).searchParams.get('X-Amz-SignedHeaders') ?? ''
  const headers = signed.split(';').includes('x-amz-content-sha256')
    ? { 'x-amz-content-sha256': sum }
    : undefined
  asked += 1
  return fetch(at, { method: 'PUT', body: bytes as BodyInit, headers })
}

/** Talks to `url` with a token, or as nobody. Bodies are sent without Content-Type, as clients do. */
export function libraryClient(url: string, token: string | null = null) {
  async function call(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    const payload =
      body === undefined || body instanceof Uint8Array || typeof body === 'string'
        ? body
        : new TextEncoder().encode(JSON.stringify(body))
    asked += 1
    return ask(path.startsWith('http') ? path : url + path, {
      method,
      body: payload,
      token,
      headers,
    })
  }

  /** GET, and POST on 404: ids of entity, collection and container as a push makes them. */
  async function ensure(
    entity: string,
    collection: string,
    container: string,
    options: { privateCollection?: boolean; privateContainer?: boolean } = {},
  ): Promise<{ entity: string; collection: string; container: string }> {
    const got = async (path: string, create: string, body: object) => {
      const found = await call('GET', path)
      if (found.status === 200) return found.json.data.id as string
      const made = await call('POST', create, body)
      if (made.status !== 200) throw new Error(`${create}: ${made.status} ${made.text}`)
      return made.json.data.id as string
    }
    const entityId = await got(`/v1/entities/${entity}`, '/v1/entities', { name: entity })
    const collectionId = await got(`/v1/collections/${entity}/${collection}`, '/v1/collections', {
      name: collection,
      entity: entityId,
      private: options.privateCollection ?? false,
    })
    const containerId = await got(
      `/v1/containers/${entity}/${collection}/${container}`,
      '/v1/containers',
      { name: container, collection: collectionId, private: options.privateContainer ?? false },
    )
    return { entity: entityId, collection: collectionId, container: containerId }
  }

  /** A whole push as Apptainer does it (single up to 64 MiB); returns the ids, throws on a refusal. */
  async function push(
    ref: string,
    bytes: Uint8Array,
    options: {
      arch?: string
      tags?: string[]
      privateCollection?: boolean
      privateContainer?: boolean
    } = {},
  ): Promise<{ image: string; container: string; digest: string; uploaded: boolean }> {
    const [entity = '', collection = '', container = ''] = ref.split('/')
    const ids = await ensure(entity, collection, container, options)
    const digest = sha256(bytes)
    const created = await call('POST', '/v1/images', {
      hash: `sha256.${digest}`,
      container: ids.container,
      description: '',
    })
    if (created.status !== 200) throw new Error(`images: ${created.status} ${created.text}`)
    const image = created.json.data.id as string
    const skip = created.json.data.uploaded === true
    if (!skip) {
      const opened = await call('POST', `/v2/imagefile/${image}`, {
        filesize: bytes.length,
        sha256sum: digest,
      })
      if (opened.status !== 200) throw new Error(`imagefile: ${opened.status} ${opened.text}`)
      const put = await putBytes(opened.json.data.uploadURL as string, bytes)
      if (put.status !== 200) throw new Error(`put: ${put.status} ${await put.text()}`)
      await put.arrayBuffer()
      const completed = await call('PUT', `/v2/imagefile/${image}/_complete`, {})
      if (completed.status !== 200)
        throw new Error(`complete: ${completed.status} ${completed.text}`)
    }
    for (const tag of options.tags ?? ['latest']) {
      const tagged = await call('POST', `/v2/tags/${ids.container}`, {
        Arch: options.arch ?? 'amd64',
        Tag: tag,
        ImageID: image,
      })
      if (tagged.status !== 200) throw new Error(`tag: ${tagged.status} ${tagged.text}`)
    }
    return { image, container: ids.container, digest, uploaded: !skip }
  }

  return { url, token, call, ensure, push }
}
