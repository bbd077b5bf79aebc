/** Shapes of the request bodies, and the parts of a request that older clients spell their own way. */
import * as z from 'zod/mini'
import { RegistryError } from '../errors.ts'
import type { Ctx } from '../http/context.ts'

// Clients send whole Go structs with zero values: only the meaningful fields are read (R15).
const text = z.pipe(
  z.nullish(z.string().check(z.maxLength(4096, 'at most 4096 characters'))),
  z.transform((value) => value ?? ''),
)
const id = z.string().check(z.maxLength(64))
const count = z
  .number()
  .check(z.int('must be a whole number'), z.gte(0), z.lte(Number.MAX_SAFE_INTEGER))
const madePrivate = z.pipe(
  z.optional(z.unknown()),
  z.transform((value) => value === true),
)
/** 64 hex digits; older and non-S3 clients send nothing. */
const sha256 = z.pipe(
  z.nullish(z.string().check(z.regex(/^([0-9a-f]{64})?$/i, 'must be 64 hex digits'))),
  z.transform((value) => (value === '' || value == null ? null : value.toLowerCase())),
)
const uploadID = z.string().check(z.maxLength(2048))

export const newEntity = z.object({ name: z.string(), description: text })
export const newCollection = z.object({
  name: z.string(),
  description: text,
  entity: id,
  private: madePrivate,
})
export const newContainer = z.object({
  name: z.string(),
  description: text,
  collection: id,
  private: madePrivate,
})
export const newImage = z.object({ hash: z.string(), description: text, container: id })
export const newUpload = z.object({ filesize: count, sha256sum: sha256 })
export const newParts = z.object({ filesize: count })
export const newPart = z.object({
  uploadID,
  partNumber: count.check(z.gte(1), z.lte(10_000)),
  partSize: count,
  sha256sum: sha256,
})
export const completedParts = z.object({
  uploadID,
  completedParts: z
    .array(z.object({ partNumber: count, token: z.string().check(z.maxLength(256)) }))
    .check(z.maxLength(10_000)),
})
export const abortedParts = z.object({ uploadID })

/**
 * A tag call's body: `{"Tag","ImageID"}` (v1), with "Arch" (v2), the lower-case spelling of the
 * published API, or the bare map `{tag: imageID}` that Hinkskalle saw (protocol.md §3.2).
 */
export const newTag = z.pipe(
  z.record(z.string(), z.unknown()),
  z.transform((body, context) => {
    const byName = new Map(Object.entries(body).map(([key, value]) => [key.toLowerCase(), value]))
    const [only] = Object.entries(body)
    const bare = byName.size === 1 && only !== undefined && !byName.has('tag')
    const tag = bare ? only[0] : byName.get('tag')
    const imageId = bare ? only[1] : byName.get('imageid')
    const arch = byName.get('arch') ?? null
    if (typeof tag !== 'string' || typeof imageId !== 'string' || imageId.length > 64) {
      context.issues.push({
        code: 'custom',
        input: body,
        message: 'Tag and ImageID must be given as text',
      })
      return z.NEVER
    }
    if (arch !== null && (typeof arch !== 'string' || !isArch(arch))) {
      context.issues.push({
        code: 'custom',
        input: body,
        message: 'Arch must be an architecture such as amd64',
      })
      return z.NEVER
    }
    return { tag, imageId, arch: arch === '' ? null : arch }
  }),
)

const isArch = (arch: string) => /^[a-z0-9_]{0,32}$/.test(arch)

/** What follows `prefix` in the request's path, still percent-encoded, without the query. */
export function pathAfter(c: Ctx, prefix: string): string {
  const { url } = c.req
  const start = url.indexOf('/', url.indexOf('//') + 2)
  const end = url.indexOf('?', start)
  const path = end < 0 ? url.slice(start) : url.slice(start, end)
  return path.slice(path.indexOf(prefix) + prefix.length)
}

/** `?arch=`, or the `?arch%3Damd64` of Singularity 3.7.0 and 3.7.1; null when absent. */
export function archOf(c: Ctx): string | null {
  const [arch = null, ...more] = archesOf(c)
  if (more.length > 0) throw noArch()
  return arch
}

/** The same as a comma-separated list, which searches may send (protocol.md §3.5). */
export function archesOf(c: Ctx): string[] {
  const list = (c.req.query('arch') ?? oddArch(c) ?? '').split(',')
  if (!list.every(isArch)) throw noArch()
  return list.filter((arch) => arch !== '')
}

function oddArch(c: Ctx): string | undefined {
  const key = Object.keys(c.req.query()).find((key) => key.startsWith('arch='))
  return key?.slice('arch='.length)
}

const noArch = () =>
  new RegistryError('invalid', 'arch must be an architecture such as amd64 or arm64.', {
    subject: 'request',
  })
