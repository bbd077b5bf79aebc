/**
 * GET /openapi.json, and Swagger UI at GET /docs to browse it with: scripts from this server only,
 * and no request goes anywhere else.
 */
import { html } from 'hono/html'
import { sha256Hex } from '../core/digest.ts'
import { RegistryError } from '../errors.ts'
import type { Ctx } from '../http/context.ts'
import { noneMatches } from '../http/range.ts'
import type { Assets } from '../ports.ts'
import { reply } from '../http/reply.ts'

/** Files of swagger-ui-dist that the page loads, by the names they have there. */
const FILES: Record<string, string> = {
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
}

/** Tokens that are typed in are kept nowhere; the validator is a service of others. */
const START = `SwaggerUIBundle({
  url: '/openapi.json',
  dom_id: '#viewer',
  deepLinking: true,
  docExpansion: 'none',
  defaultModelsExpandDepth: 0,
  persistAuthorization: false,
  validatorUrl: null,
})
`

/** The viewer's style sheet holds its pictures. Nothing inline, nothing from elsewhere. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; " +
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

export function docsHandlers(deps: { document: () => object; assets?: Assets }) {
  /** Made when it is first asked for, and the same from then on. */
  let document: string | undefined
  const etags = new Map<string, string>()

  /** A constant file: always asked for again, and sent again only when another version has it. */
  async function constant(
    c: Ctx,
    name: string,
    type: string,
    read: () => Promise<Uint8Array | string | null>,
  ): Promise<Response> {
    const headers = (etag: string) => ({
      ETag: etag,
      'Cache-Control': 'no-cache',
      'X-Content-Type-Options': 'nosniff',
    })
    const known = etags.get(name)
    const asked = c.req.header('if-none-match')
    if (known !== undefined && noneMatches(asked, known)) return reply(null, 304, headers(known))
    const body = await read()
    if (body === null) throw noViewer()
    const etag = known ?? `"${sha256Hex(body).slice(0, 32)}"`
    etags.set(name, etag)
    if (noneMatches(asked, etag)) return reply(null, 304, headers(etag))
    return reply(body as string, 200, { 'Content-Type': type, ...headers(etag) })
  }

  return {
    document: (c: Ctx) =>
      constant(c, 'openapi.json', 'application/json', async () => {
        document ??= JSON.stringify(deps.document())
        return document
      }),

    async page(): Promise<Response> {
      if (deps.assets === undefined) throw noViewer()
      return reply(String(await PAGE), 200, {
        'Content-Type': 'text/html; charset=utf-8',
        'Content-Security-Policy': POLICY,
        'Referrer-Policy': 'no-referrer',
        'Cache-Control': 'no-cache',
      })
    },

    file(c: Ctx): Promise<Response> {
      const name = c.req.param('file') ?? ''
      const type = Object.hasOwn(FILES, name) ? FILES[name] : undefined
      if (name === 'start.js')
        return constant(c, name, 'text/javascript; charset=utf-8', async () => START)
      if (type === undefined) throw noViewer()
      return constant(c, name, type, async () => (await deps.assets?.get(name)) ?? null)
    },
  }
}

const noViewer = () =>
  new RegistryError(
    'not_found',
    'There is no such page here; the API is described at /openapi.json.',
    { subject: 'route' },
  )

const PAGE = html`<!doctype html>
  <html lang="en">
    <head>
      <meta charset="utf-8" />
      <meta name="viewport" content="width=device-width" />
      <title>API of this registry</title>
      <link rel="icon" href="data:," />
      <link rel="stylesheet" href="/docs/swagger-ui.css" />
    </head>
    <body>
      <div id="viewer"></div>
      <noscript>This page needs JavaScript; /openapi.json does not.</noscript>
      <script src="/docs/swagger-ui-bundle.js"></script>
      <script src="/docs/start.js"></script>
    </body>
  </html>`
