/** Export and import for administrators who have no shell on the host (decision 0013). */
import { absent } from '../core/access.ts'
import { checkRow } from '../core/moved-rows.ts'
import { isId } from '../core/names.ts'
import { PART_SIZE } from '../core/uploads.ts'
import { RegistryError } from '../errors.ts'
import { contentLength, readJson } from '../http/body.ts'
import type { Ctx } from '../http/context.ts'
import { data, PRIVATE } from '../http/json-resp.ts'
import { parseRange, rangeHeaders } from '../http/range.ts'
import { administratorIn } from './handlers.ts'
import { exportHead, importedParts, importedRows, importEnd, wantedBlob } from './requests.ts'
import type { ManageDeps } from './routes.ts'

/** A page of rows, of which a key may have 1 MiB, and the list of up to 10,000 parts, in bytes of JSON. */
const ROWS_CAP = 2 * 1024 * 1024
const PARTS_CAP = 2 * 1024 * 1024

export function movingHandlers(deps: ManageDeps) {
  const { exports, imports, transfer } = deps
  const administrator = administratorIn(deps)

  function importOf(c: Ctx): string {
    const id = c.req.param('id') ?? ''
    if (!isId(id)) throw new RegistryError('not_found', 'There is no such import here.')
    return id
  }
  function digestOf(c: Ctx): string {
    const digest = c.req.param('digest') ?? ''
    if (!/^[0-9a-f]{64}$/.test(digest)) throw absent('blob')
    return digest
  }

  return {
    async startExport(c: Ctx): Promise<Response> {
      const { by } = await administrator(c)
      return data(await exports.head(by))
    },

    async exportRows(c: Ctx): Promise<Response> {
      await administrator(c)
      return data(await exports.page(c.req.query('cursor') ?? null))
    },

    /** Whole or one range; who reads must count the bytes (R5 is for clients that do not). */
    async exportBlob(c: Ctx): Promise<Response> {
      const digest = digestOf(c)
      await administrator(c)
      const size = await exports.size(digest)
      const range = parseRange(c.req.header('range'), size)
      if (range.kind === 'unsatisfiable')
        throw new RegistryError('range_unsatisfiable', `This blob has ${size} bytes.`, {
          subject: 'blob',
        })
      const blob = await exports.blob(digest, range.kind === 'range' ? range : undefined)
      const status = range.kind === 'range' ? 206 : 200
      return transfer.send(
        c,
        status,
        {
          ...PRIVATE,
          'Content-Type': 'application/octet-stream',
          'Content-Disposition': 'attachment',
          'Content-Security-Policy': 'sandbox',
          ...rangeHeaders(blob, status),
        },
        blob,
      )
    },

    async listImports(c: Ctx): Promise<Response> {
      await administrator(c)
      return data(await imports.list())
    },

    async openImport(c: Ctx): Promise<Response> {
      const head = await readJson(c, transfer, exportHead)
      await administrator(c)
      return data(await imports.open(head))
    },

    async importRows(c: Ctx): Promise<Response> {
      const { rows } = await readJson(c, transfer, importedRows, ROWS_CAP)
      await administrator(c)
      await imports.stageRows(importOf(c), rows.map(checkRow))
      return data({})
    },

    /** Whether the bytes are wanted, and how: in one body, or in parts of `partSize`. */
    async wantBlob(c: Ctx): Promise<Response> {
      const { size } = await readJson(c, transfer, wantedBlob)
      await administrator(c)
      const [id, digest] = [importOf(c), digestOf(c)]
      const wanted = await imports.want(id, digest, size)
      const inParts = wanted && size > PART_SIZE
      if (inParts) await imports.startParts(id, digest)
      return data({ wanted, partSize: inParts ? PART_SIZE : null })
    },

    async importBlob(c: Ctx): Promise<Response> {
      await administrator(c)
      const size = contentLength(c)
      if (size > PART_SIZE)
        throw new RegistryError('too_large', `Blobs above ${PART_SIZE} bytes are sent in parts.`, {
          subject: 'blob',
        })
      await imports.put(importOf(c), digestOf(c), size, transfer.receive(c))
      return data({})
    },

    async importPart(c: Ctx): Promise<Response> {
      await administrator(c)
      const number = Number(c.req.param('part'))
      if (!Number.isInteger(number) || number < 1) throw absent('blob')
      const part = { number, size: contentLength(c) }
      const body = transfer.receive(c)
      return data(await imports.putPart(importOf(c), digestOf(c), part, body))
    },

    async finishParts(c: Ctx): Promise<Response> {
      const { parts } = await readJson(c, transfer, importedParts, PARTS_CAP)
      await administrator(c)
      await imports.finishParts(importOf(c), digestOf(c), parts)
      return data({})
    },

    /** The flip; 409 with the list of what stands in the way. */
    async finishImport(c: Ctx): Promise<Response> {
      const end = await readJson(c, transfer, importEnd)
      const { by } = await administrator(c)
      return data(await imports.finish(importOf(c), end, by))
    },

    async abortImport(c: Ctx): Promise<Response> {
      const { by } = await administrator(c)
      return data({ aborted: await imports.abort(importOf(c), by) })
    },
  }
}
