/** Bytes in and out: v1 and v2 uploads, parts, downloads (protocol.md §4, §5). */
import { absent } from '../core/access.ts'
import { containerFacts } from '../core/catalog.ts'
import { getDeadline, leaksToken, REDIRECT_FROM } from '../core/downloads.ts'
import type { Claims, Image, Upload } from '../core/model.ts'
import { isId } from '../core/names.ts'
import { parseRef } from '../core/ref.ts'
import { isOnePart, PART_SIZE } from '../core/uploads.ts'
import { isRegistryError, RegistryError, STATUS } from '../errors.ts'
import { contentLength, readJson } from '../http/body.ts'
import type { Ctx } from '../http/context.ts'
import { data, envelope, errorHeaders, PRIVATE } from '../http/json-resp.ts'
import { originOf } from '../http/origin.ts'
import { ifRangeHolds, noneMatches, parseRange, rangeHeaders } from '../http/range.ts'
import type { PullLimits } from '../ports.ts'
import { ticketMark, type Purpose, type TicketFields } from '../http/ticket.ts'
import {
  abortedParts,
  archOf,
  completedParts,
  newPart,
  newParts,
  newUpload,
  pathAfter,
} from './requests.ts'
import type { LibraryDeps } from './routes.ts'
import { reply } from '../http/reply.ts'

/** A part may start within an hour of its URL; how long it then takes is the watchdog's (R23). */
const PART_MS = 3_600_000
/** `_multipart_complete` names up to 10,000 parts (R54). */
const COMPLETE_CAP = 2 * 1024 * 1024

/** Image bytes are never a page (R32). */
const FILE_HEADERS = {
  ...PRIVATE,
  'Content-Type': 'application/octet-stream',
  'Content-Security-Policy': 'sandbox',
} as const

export function imagefileHandlers(deps: LibraryDeps) {
  const { catalog, uploads, shares, tallies, blobs, transfer, tickets, ended, clock, config } = deps
  const claims = (c: Ctx) => c.get('claims')

  /** The image id of the path: anything else cannot be one of ours. */
  const imageIdOf = (c: Ctx): string => {
    const id = c.req.param('id') ?? ''
    if (!isId(id)) throw absent('image')
    return id
  }

  /** Opens the `?t=` ticket of this request; one that ended early is refused like an altered one (R25). */
  function openTicket(c: Ctx, purpose: Purpose, text = c.req.query('t') ?? ''): TicketFields {
    c.env.entry.ticket = ticketMark(text)
    const ticket = tickets.open(purpose, text, clock.now())
    c.env.entry.userId = ticket.subject
    c.env.entry.tokenId = ticket.token
    const { subject, image, visibility, collection } = ticket
    const ends = [
      ticket.token,
      subject,
      image,
      visibility && `${visibility}:${image}`,
      visibility === 'private' ? `${subject}:${collection}` : null,
    ]
    if (ends.some((id) => id !== null && ended.has(id)))
      throw new RegistryError(
        'denied',
        'This link has expired or was altered: start again to get a new one',
        { cause: new Error('ticket: ended by revocation, deletion or privacy') },
      )
    return ticket
  }

  /** The uploadID of a control call: a ticket that must agree with path and bearer (R12, R16). */
  function openUpload(c: Ctx, imageId: string, uploadID: string): TicketFields {
    const { userId, tokenId, expiresAt } = claims(c) ?? {}
    if (tokenId !== undefined && ended.has(tokenId))
      throw new RegistryError('unauthenticated', 'This token has been revoked.', {
        subject: 'token',
      })
    const alive = expiresAt !== undefined && expiresAt > clock.now()
    try {
      const ticket = openTicket(c, 'upload', uploadID)
      // R24: an ended token goes on with its own upload only
      const mine = alive || ticket.token === tokenId
      if (ticket.image === imageId && ticket.subject === userId && mine) return ticket
    } catch (error) {
      if (!isRegistryError(error, 'denied')) throw error
    }
    if (!alive)
      throw new RegistryError('unauthenticated', 'This token has expired; log in again.', {
        subject: 'token',
      })
    throw absent('upload')
  }

  const fieldsOf = (upload: Upload) => ({
    subject: upload.userId,
    token: upload.tokenId,
    image: upload.imageId,
    upload: upload.id,
    key: upload.blobKey,
    handle: upload.handle,
  })

  /** `{"quota", "containerUrl"}`: what the client prints after a push. */
  async function completion(c: Ctx, image: Image, who: Claims | null) {
    const { entity } = await catalog.entity(image.entityName, who)
    const { entityName, collectionName, containerName } = image
    return data({
      quota: { quotaTotal: entity.quota ?? 0, quotaUsage: entity.used },
      containerUrl: `library/${entityName}/${collectionName}/${containerName}`,
    })
  }

  /** Until when a part may be begun. */
  const within = () => new Date(clock.now().getTime() + PART_MS)

  /** The bytes of a stored blob, whole or in part. */
  async function serve(
    c: Ctx,
    blob: { key: string; size: number },
    etag: string,
    headers: Record<string, string>,
  ): Promise<Response> {
    const range = ifRangeHolds(c.req.header('if-range'), etag)
      ? parseRange(c.req.header('range'), blob.size)
      : ({ kind: 'whole' } as const)
    if (range.kind === 'unsatisfiable')
      throw new RegistryError(
        'range_unsatisfiable',
        `The image has ${blob.size} bytes; that range is not in it.`,
        { subject: 'image' },
      )
    const status = range.kind === 'range' ? 206 : 200
    if (c.req.method === 'HEAD') {
      const whole = { start: 0, end: blob.size - 1 }
      const shown = { ...blob, etag, range: range.kind === 'range' ? range : whole }
      return reply(null, status, { ...headers, ...rangeHeaders(shown, status) })
    }
    const read = await blobs.get(blob.key, range.kind === 'range' ? range : undefined)
    if (read === null || read.size !== blob.size) {
      await read?.close()
      // a short 206 would end well, and the client would take it for the whole range (R5)
      throw bytesGone()
    }
    return transfer.send(
      c,
      status,
      { ...headers, ...rangeHeaders({ ...read, etag }, status) },
      read,
    )
  }

  // Without a length Node would send the empty body in chunks, and clients wait for the last one.
  const redirect = (c: Ctx, url: string, headers: Record<string, string> = {}) =>
    reply(null, 303, { ...PRIVATE, ...headers, Location: url, 'Content-Length': '0' })
  const blobUrl = (c: Ctx, fields: Partial<TicketFields>, notAfter: Date) =>
    `${originOf(c, config)}/v1/blob?t=${tickets.sign('get', fields, notAfter)}`

  /** The store's own address of an image's bytes, where they may pass us by; else null. */
  async function storeUrl(
    c: Ctx,
    { key, size }: { key: string; size: number },
    notAfter: Date,
    filename: string,
  ): Promise<string | null> {
    if (blobs.direct === undefined || leaksToken(c.req.header('user-agent') ?? '')) return null
    // The store's 404 would become image bytes at the client, which looks at no status (R5).
    if ((await blobs.head(key))?.size !== size) throw bytesGone()
    return blobs.direct.get(key, notAfter, filename)
  }

  return {
    /**
     * A 303 to the store where bytes may pass us by; else a 200 stream, or for large images a 303 to
     * our own ranges: never 302 (protocol.md §5).
     */
    async download(c: Ctx): Promise<Response> {
      const who = claims(c)
      const ref = parseRef(pathAfter(c, '/v1/imagefile/'), config)
      const arch = archOf(c)
      const range = c.req.header('range')
      const asked = range !== undefined
      const condition = c.req.header('if-none-match')
      // what will be sent, nothing, a part or the whole after all, depends on the image
      const looksFirst = condition !== undefined || asked
      const week = c.req.method === 'GET' ? deps.limits.pulls() : null
      let told: Record<string, string> = {}
      const pulled = async (limits: PullLimits, counts: boolean) => {
        const found = await catalog.pull(ref, arch, who, { ...limits, counts })
        told = deps.limits.pulled(c, found.counted)
        return found
      }
      let image =
        week === null || looksFirst
          ? await catalog.image(ref, arch, who, 'download')
          : await pulled(week, true)
      const etag = `"sha256.${image.digest}"`
      const tag = ref.selector.kind === 'tag' ? ref.selector.tag : image.digest.slice(0, 12)
      const filename = `${image.containerName}_${tag}.sif`
      if (noneMatches(condition, etag)) return reply(null, 304, { ...PRIVATE, ETag: etag })
      const { size } = image.blob
      const sent = parseRange(
        ifRangeHolds(c.req.header('if-range'), etag) ? range : undefined,
        size,
      )
      const whole =
        sent.kind === 'whole' ||
        (sent.kind === 'range' && sent.start === 0 && sent.end === size - 1)
      if (week !== null && looksFirst) image = await pulled(week, whole)
      if (c.req.method === 'GET') {
        // a range that begins later goes on with a pull
        if (sent.kind !== 'range' || sent.start === 0)
          deps.defer(c, tallies.pull(image.containerId))
        const notAfter = getDeadline(clock.now(), image.blob.size)
        const url = asked ? null : await storeUrl(c, image.blob, notAfter, filename)
        if (url !== null) return redirect(c, url, told)
        if (image.blob.size >= REDIRECT_FROM && !asked) {
          const fields: Partial<TicketFields> = {
            method: 'GET',
            subject: who?.userId ?? null,
            token: who?.tokenId ?? null,
            image: image.id,
            collection: image.collectionId,
            visibility: containerFacts('image', image).private ? 'private' : 'public',
            ...image.blob,
            sha256: image.digest,
          }
          return redirect(c, blobUrl(c, fields, notAfter), told)
        }
      }
      return serve(c, image.blob, etag, {
        ...FILE_HEADERS,
        ...told,
        'Content-Disposition': `attachment; filename="${filename}"`,
      })
    },

    /**
     * A share link: the secret is the authority, whatever token comes along and whatever anonymous
     * callers may see otherwise (R61). A GET spends a download, and its ranges none, for they go to
     * the ticket; HEAD and what the caller has already are free.
     */
    async share(c: Ctx): Promise<Response> {
      const secret = c.req.query('s') ?? ''
      const condition = c.req.header('if-none-match')
      const free = c.req.method === 'HEAD' || condition !== undefined
      let image = free ? await shares.look(secret) : await shares.take(secret)
      const etag = `"sha256.${image.digest}"`
      if (noneMatches(condition, etag)) return reply(null, 304, { ...PRIVATE, ETag: etag })
      const filename = `${image.containerName}_${image.digest.slice(0, 12)}.sif`
      if (c.req.method === 'GET') {
        if (free) image = await shares.take(secret)
        c.env.entry.tokenId = image.id
        deps.defer(c, tallies.pull(image.containerId))
        const notAfter = getDeadline(clock.now(), image.size)
        const asked = c.req.header('range') !== undefined
        const url = asked ? null : await storeUrl(c, image, notAfter, filename)
        if (url !== null) return redirect(c, url)
        if (image.size >= REDIRECT_FROM || asked) {
          const { key, size, digest } = image
          const fields: Partial<TicketFields> = {
            method: 'GET',
            subject: image.creatorId,
            token: image.id,
            image: image.imageId,
            collection: image.collectionId,
            // who made the link may read it, public or not
            visibility: 'private',
            key,
            size,
            sha256: digest,
          }
          return redirect(c, blobUrl(c, fields, notAfter))
        }
      }
      return serve(c, image, etag, {
        ...FILE_HEADERS,
        'Content-Disposition': `attachment; filename="${filename}"`,
      })
    },

    /**
     * The target of the 303. Clients copy whatever a range answers to its offset: everything but
     * the whole range breaks the connection instead of ending well (R5). No database trip.
     */
    async blob(c: Ctx): Promise<Response> {
      try {
        const { key, size, sha256 } = openTicket(c, 'get')
        if (key === null || size === null) throw new Error('a get ticket names its blob')
        return await serve(c, { key, size }, `"sha256.${sha256}"`, {
          ...FILE_HEADERS,
          'Content-Disposition': 'attachment',
        })
      } catch (error) {
        if (c.req.header('range') === undefined || c.req.method === 'HEAD') throw error
        const known = isRegistryError(error)
          ? error
          : new RegistryError('internal', `internal error, request ${c.env.entry.requestId}`)
        c.env.entry.code = known.code
        if (error instanceof Error)
          c.env.entry.reason =
            error.cause instanceof Error ? error.cause.message : (error.stack ?? null)
        return transfer.breakOff(c, STATUS[known.code], errorHeaders(known), envelope(known))
      }
    },

    /** v1: the whole image in one body (Singularity 3.0–3.2, and clients that see no /version). */
    async uploadWhole(c: Ctx): Promise<Response> {
      const imageId = pathAfter(c, '/v1/imagefile/')
      if (!isId(imageId)) throw absent('image')
      const size = contentLength(c)
      const image = await uploads.receiveWhole(imageId, size, transfer.receive(c), claims(c))
      return completion(c, image, claims(c))
    },

    async openSingle(c: Ctx): Promise<Response> {
      const { filesize, sha256sum } = await readJson(c, transfer, newUpload)
      const upload = await uploads.openSingle(imageIdOf(c), filesize, sha256sum, claims(c))
      const { id, blobKey: key, handle, size, digest: sha256 } = upload
      const url =
        handle === null
          ? null
          : await uploads.partUrl(
              { upload: id, key, handle },
              { number: 1, size, sha256 },
              within(),
            )
      if (url !== null) return data({ uploadURL: url })
      const fields = { ...fieldsOf(upload), method: 'PUT', size, sha256 }
      const ticket = tickets.sign('put', fields, upload.expiresAt)
      return data({ uploadURL: `${originOf(c, config)}/v1/blob?t=${ticket}` })
    },

    /** The body of a single upload: no Authorization ever comes here, the ticket is the authority. */
    async putWhole(c: Ctx): Promise<Response> {
      const { upload, key, size, sha256 } = openTicket(c, 'put')
      if (upload === null || key === null || size === null || sha256 === null)
        throw new Error('a put ticket names its upload')
      sized(c, size)
      const ticket = { upload, key, size, sha256 }
      const { etag } = await uploads.receiveSingle(ticket, transfer.receive(c))
      return reply(null, 200, { ETag: etag })
    },

    async completeSingle(c: Ctx): Promise<Response> {
      const image = await uploads.completeSingle(imageIdOf(c), claims(c))
      return completion(c, image, claims(c))
    },

    async openParts(c: Ctx): Promise<Response> {
      const { filesize } = await readJson(c, transfer, newParts)
      const upload = await uploads.openParts(imageIdOf(c), filesize, claims(c))
      return data({
        uploadID: tickets.sign(
          'upload',
          { ...fieldsOf(upload), size: filesize, sha256: upload.digest },
          upload.expiresAt,
        ),
        totalParts: Math.ceil(filesize / PART_SIZE),
        partSize: PART_SIZE,
        // whether the client hashes each part as well as the image
        options: { s3compliant: String(uploads.comparesParts) },
      })
    },

    /** Signs the URL of one part: everything stands in the uploadID, no database trip. */
    async openPart(c: Ctx): Promise<Response> {
      const body = await readJson(c, transfer, newPart)
      const { size: total, sha256: digest, ...upload } = openUpload(c, imageIdOf(c), body.uploadID)
      const size = Math.min(PART_SIZE, (total ?? 0) - (body.partNumber - 1) * PART_SIZE)
      if (size <= 0 || body.partSize !== size)
        throw new RegistryError(
          'invalid',
          size <= 0
            ? `Part ${body.partNumber} is beyond the end of this upload.`
            : `Part ${body.partNumber} must have ${size} bytes, not ${body.partSize}.`,
          { subject: 'upload' },
        )
      // R4: of a single part no other hash is ever signed than the image's own
      const onePart = isOnePart({ size: total ?? 0, partSize: PART_SIZE })
      const sha256 = onePart ? digest : body.sha256sum
      if (onePart && body.sha256sum !== null && body.sha256sum !== digest)
        throw new RegistryError(
          'digest_mismatch',
          'The only part of an image must have the SHA-256 of the image.',
          { subject: 'upload' },
        )
      const { upload: id, key, handle } = upload
      const url =
        id === null || key === null || handle === null
          ? null
          : await uploads.partUrl(
              { upload: id, key, handle },
              { number: body.partNumber, size, sha256 },
              within(),
            )
      if (url !== null) return data({ presignedURL: url })
      const fields = { ...upload, method: 'PUT', part: body.partNumber, size, sha256 }
      const ticket = tickets.sign('part', fields, within())
      return data({ presignedURL: `${originOf(c, config)}/v1/part?t=${ticket}` })
    },

    async putPart(c: Ctx): Promise<Response> {
      const { upload, key, handle, part, size, sha256 } = openTicket(c, 'part')
      if (upload === null || key === null || handle === null || part === null || size === null)
        throw new Error('a part ticket names its upload')
      sized(c, size)
      const { etag } = await uploads.receivePart(
        { upload, key, handle, part, size, sha256 },
        transfer.receive(c),
      )
      return reply(null, 200, { ETag: etag })
    },

    /** Always a JSON body: an empty one fails the push (protocol.md §4.3). */
    async completeParts(c: Ctx): Promise<Response> {
      const body = await readJson(c, transfer, completedParts, COMPLETE_CAP)
      const imageId = imageIdOf(c)
      const { upload } = openUpload(c, imageId, body.uploadID)
      const parts = body.completedParts.map((p) => ({ number: p.partNumber, etag: p.token }))
      const image = await uploads.completeParts(imageId, upload ?? '', parts, claims(c))
      return completion(c, image, claims(c))
    },

    async abortParts(c: Ctx): Promise<Response> {
      const { uploadID } = await readJson(c, transfer, abortedParts)
      const imageId = imageIdOf(c)
      const { upload } = openUpload(c, imageId, uploadID)
      await uploads.abort(imageId, upload ?? '', claims(c))
      return data({})
    },
  }

  /** The body must have exactly the announced size, said before it is read. */
  function sized(c: Ctx, size: number): void {
    const length = contentLength(c)
    if (length !== size)
      throw new RegistryError(
        length > size ? 'too_large' : 'size_mismatch',
        `This URL takes exactly ${size} bytes; the request announces ${length}.`,
        { subject: 'upload' },
      )
  }
}

const bytesGone = () =>
  new RegistryError(
    'internal',
    'The bytes of this image are gone from the store, or damaged there; tell the administrator. Pushing it again heals it.',
    { subject: 'blob' },
  )
