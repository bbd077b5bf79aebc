/** Blobs on their way in (distribution-spec, "Pushing blobs"). Locations are tickets (R12, R47). */
import { absent } from '../core/access.ts'
import type { OciUpload } from '../core/model.ts'
import { actionsOn } from '../core/oci-access.ts'
import { isId } from '../core/names.ts'
import { parseRepository } from '../core/repositories.ts'
import { isRegistryError, RegistryError } from '../errors.ts'
import type { Ctx } from '../http/context.ts'
import { ticketMark } from '../http/ticket.ts'
import type { MountSource } from '../core/manifests.ts'
import type { RepositoryPath } from '../ports.ts'
import type { OciDeps } from './routes.ts'
import { askedDigest, CONTENT, lengthOf, rangeOf, receivedRange, repositoryOf } from './wire.ts'
import { reply } from '../http/reply.ts'

export function uploadHandlers({ manifests, uploads, transfer, tickets, clock, logins }: OciDeps) {
  /** Where the upload goes on: its address, good for who opened it as long as it is (R12). */
  function location(name: string, { id, containerId, userId, expiresAt }: OciUpload): string {
    const fields = { subject: userId, upload: id, key: containerId }
    const ticket = tickets.sign('oci-upload', fields, expiresAt)
    return `/v2/${name}/blobs/uploads/${id}?t=${ticket}`
  }

  /** Opens the ticket of the address; whatever is wrong with it, there is no such upload (R16). */
  async function opened(c: Ctx, path: RepositoryPath) {
    const id = c.req.param('id') ?? ''
    const text = c.req.query('t') ?? ''
    const claims = c.get('claims')
    c.env.entry.ticket = ticketMark(text)
    try {
      const { upload, subject, key } = tickets.open('oci-upload', text, clock.now())
      if (isId(id) && upload === id && subject === claims?.userId)
        return { path, id, containerId: key }
    } catch (error) {
      if (!isRegistryError(error, 'denied')) throw error
    }
    // a token that has ended comes first, as everywhere
    await logins.check(claims)
    throw absent('upload')
  }

  const chunkOf = (c: Ctx) => {
    const length = lengthOf(c)
    return { body: transfer.receive(c), length, range: length === 0 ? null : rangeOf(c) }
  }

  const going = (c: Ctx, status: 202 | 204, name: string, upload: OciUpload): Response =>
    reply(null, status, {
      ...CONTENT,
      Location: location(name, upload),
      Range: receivedRange(upload.received),
      'Docker-Upload-UUID': upload.id,
    })

  const stored = (c: Ctx, name: string, digest: string): Response =>
    reply(null, 201, {
      ...CONTENT,
      Location: `/v2/${name}/blobs/${digest}`,
      'Docker-Content-Digest': digest,
    })

  /** What a mount names, null where that can be nothing: then it is an upload like any other (R31). */
  function mounted(c: Ctx): MountSource | null {
    const digest = c.req.query('mount')
    const from = c.req.query('from')
    const { access } = c.get('claims') ?? {}
    if (digest === undefined || !/^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/.test(digest))
      return null
    // an OCI token says where its blobs may come from; of nowhere in particular, what anybody may read
    if (from === undefined) return { digest, from: null, publicOnly: access !== undefined }
    const source = { type: 'repository', name: from, actions: ['pull'] }
    if (access !== undefined && !actionsOn(access, source).includes('pull')) return null
    try {
      return { digest, from: parseRepository(from), publicOnly: false }
    } catch (error) {
      if (isRegistryError(error, 'invalid')) return null
      throw error
    }
  }

  return {
    /** Opens an upload, or stores a whole blob (`digest`), or takes one from elsewhere (`mount`). */
    async open(c: Ctx): Promise<Response> {
      const { name, path } = repositoryOf(c)
      const claims = c.get('claims')
      const source = mounted(c)
      if (source !== null && (await manifests.mount(path, source, claims)))
        return stored(c, name, source.digest)
      const digest = askedDigest(c)
      const chunk = digest === null ? null : chunkOf(c)
      const upload = await uploads.open(path, claims)
      if (digest === null || chunk === null) return going(c, 202, name, upload)
      const { id, containerId } = upload
      try {
        await uploads.close({ path, id, containerId }, digest, chunk, claims)
      } catch (error) {
        // nobody was told where it would go on
        await uploads.cancel({ path, id, containerId }, claims).catch(() => undefined)
        throw error
      }
      return stored(c, name, digest)
    },

    async status(c: Ctx): Promise<Response> {
      const { name, path } = repositoryOf(c)
      return going(c, 204, name, await uploads.status(await opened(c, path), c.get('claims')))
    },

    async add(c: Ctx): Promise<Response> {
      const { name, path } = repositoryOf(c)
      const ref = await opened(c, path)
      return going(c, 202, name, await uploads.add(ref, chunkOf(c), c.get('claims')))
    },

    async close(c: Ctx): Promise<Response> {
      const { name, path } = repositoryOf(c)
      const ref = await opened(c, path)
      const digest = askedDigest(c)
      if (digest === null)
        throw new RegistryError('digest_mismatch', 'An upload is closed with ?digest=.', {
          subject: 'blob',
        })
      await uploads.close(ref, digest, chunkOf(c), c.get('claims'))
      return stored(c, name, digest)
    },

    async cancel(c: Ctx): Promise<Response> {
      const { path } = repositoryOf(c)
      await uploads.cancel(await opened(c, path), c.get('claims'))
      return reply(null, 204, CONTENT)
    },
  }
}
