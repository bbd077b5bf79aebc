/** The OpenAPI 3.1 document, made from the route tables and from what `about.ts` says of them. */
import * as z from 'zod/mini'
import { STATUS, type ErrorCode } from '../errors.ts'
import { words, type About, type Described, type Media, type Schema } from './about.ts'
import type { Access, Route } from './routes.ts'

/** One protocol: its table, and what it says of it. */
export type DescribedRoutes = {
  routes: readonly Pick<Route, 'method' | 'path' | 'access'>[]
  described: Described
}

type Json = Record<string, unknown>

/** What each status of a refusal means, for people who read the document. */
const REFUSALS: Record<number, string> = {
  400: 'The request does not fit; the message names what.',
  401: 'A token is needed, or the one that was sent is not valid (any more).',
  403: 'The token, its user or the state of the registry does not allow this.',
  404: 'There is no such thing, or the caller may not know of it.',
  405: 'The address does not answer this method.',
  409: 'It stands in the way of what is there, or has changed meanwhile.',
  411: 'The request needs a Content-Length.',
  413: 'The body is larger than is taken.',
  416: 'The range is not in the image.',
  429: 'Too many requests; Retry-After says when to try again.',
  431: 'Address and headers together are larger than 16 KiB.',
  500: 'Something is wrong with the registry; its log says what.',
  501: 'This registry does not offer that.',
  503: 'The registry cannot answer now; try again.',
  507: 'The store is full.',
}

const errorEnvelope = z.object({
  error: z.object({ code: z.int(), message: z.string() }),
})
words.add(errorEnvelope, { id: 'Error' })

/** The components of a protocol's refusals begin with this; those of the json-resp envelope are `E404`. */
const refusalName = ({ name, refusal }: Described): string =>
  refusal === undefined ? 'E' : `${name}E`

/**
 * Builds the document. Servers are the public address where it is configured, never the address of
 * a request: the answer is the same for everybody. Throws when a route is not described, or
 * something is described that is no route.
 */
export function openApi(
  protocols: readonly DescribedRoutes[],
  registry: { version: string; publicUrl: string | null },
): Json {
  const components = { schemas: {} as Json }
  const paths: Record<string, Json> = {}
  for (const { routes, described } of protocols) {
    const left = new Set(Object.keys(described.routes))
    for (const route of routes) {
      const name = `${route.method} ${route.path}`
      const about = described.routes[name]
      if (about === undefined) throw new Error(`${name} is not described`)
      left.delete(name)
      const { path, params } = addressOf(route.path, about)
      const refusal = refusalName(described)
      const operation = describe({ ...route, path }, about, params, components.schemas, refusal)
      paths[path] = {
        ...paths[path],
        [route.method.toLowerCase()]: { tags: [described.name], ...operation },
      }
    }
    if (left.size > 0) throw new Error(`${[...left].join(', ')}: described, but no route`)
  }
  return {
    openapi: '3.1.1',
    info: {
      title: 'sreg-lite',
      version: registry.version,
      description:
        'A small registry for Singularity/Apptainer images. Answers are `{"data": …}`, refusals ' +
        '`{"error": {"code", "message"}}` with the status as code and a sentence for people, ' +
        'but for those of OCI, which has words of its own. ' +
        'What a caller may not see answers as what is not there. Records may gain fields.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: registry.publicUrl ?? '/' }],
    tags: protocols.map(({ described: { name, about } }) => ({ name, description: about })),
    paths,
    components: {
      ...components,
      responses: Object.assign(
        refusals('E', errorEnvelope, components.schemas),
        ...protocols.map(({ described }) =>
          described.refusal === undefined
            ? {}
            : refusals(refusalName(described), described.refusal, components.schemas),
        ),
      ),
      securitySchemes: {
        token: {
          type: 'http',
          scheme: 'bearer',
          bearerFormat: 'JWT',
          description: 'A token of this registry.',
        },
      },
    },
  }
}

function describe(
  { method, path, access }: DescribedRoutes['routes'][number],
  about: About,
  params: Json[],
  schemas: Json,
  refusal: string,
): Json {
  const query = about.query === undefined ? [] : queryOf(about.query, schemas)
  const hasBody = about.body !== undefined
  const errors: ErrorCode[] = [...(about.errors ?? []), ...refusalsOf(access)]
  if (params.length > 0) errors.push('not_found', 'invalid')
  if (query.length > 0 || hasBody) errors.push('invalid')
  if (hasBody) errors.push('too_large')
  const responses: Json = { 200: answerOf(about.answer, schemas) }
  for (const [status, other] of Object.entries(about.others ?? {}))
    responses[status] =
      typeof other === 'string'
        ? { description: other }
        : { description: other.about, content: contentOf([other], schemas) }
  for (const error of errors) {
    const status = STATUS[error]
    responses[status] ??= { $ref: `#/components/responses/${refusal}${status}` }
  }
  // no route's own: the server refuses them before it looks for one
  responses[431] = { $ref: '#/components/responses/E431' }
  return {
    operationId: operationId(method, path),
    summary: about.summary,
    ...explained(about.more, access),
    ...(params.length + query.length > 0 ? { parameters: [...params, ...query] } : {}),
    ...(about.body === undefined
      ? {}
      : { requestBody: { required: true, content: bodyOf(about.body, schemas) } }),
    responses,
    security: securityOf(access),
  }
}

/** `get_v1_users_name_tokens`: an address by its words. */
const operationId = (method: Route['method'], path: string): string =>
  [method.toLowerCase(), ...path.split(/[^\w]+/)].filter((word) => word !== '').join('_')

function explained(more: string | undefined, access: Access): Json {
  const scope = ['open', 'ticket', 'read', 'token'].includes(access)
    ? null
    : `The token needs the scope \`${access}\`.`
  const text = [more, scope].filter((part) => part != null).join(' ')
  return text === '' ? {} : { description: text }
}

/** What any row of this access may refuse. */
function refusalsOf(access: Access): ErrorCode[] {
  if (access === 'ticket') return ['denied']
  if (access === 'open') return ['rate_limited']
  return ['rate_limited', 'unauthenticated', 'denied', 'unavailable']
}

function securityOf(access: Access): Json[] {
  if (access === 'open' || access === 'ticket') return []
  return access === 'read' ? [{}, { token: [] }] : [{ token: [] }]
}

/** A Hono pattern as OpenAPI writes it, with its parameters. */
function addressOf(pattern: string, about: About): { path: string; params: Json[] } {
  const explanations = { ...about.params }
  const words = pattern.split('/').map((word) => {
    if (word.startsWith(':')) return `{${word.slice(1).replace(/\{.*\}$/, '')}}`
    if (word !== '*') return word
    const name = Object.keys(explanations).find((key) => !pattern.includes(`:${key}`))
    if (name === undefined) throw new Error(`${pattern}: name what * stands for in params`)
    return `{${name}}`
  })
  const path = words.join('/')
  const params = [...path.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => ({
    name,
    in: 'path',
    required: true,
    ...(explanations[name] === undefined ? {} : { description: explanations[name] }),
    schema: { type: 'string' },
  }))
  return { path, params }
}

function queryOf(schema: Schema, schemas: Json): Json[] {
  const { properties = {}, required = [] } = jsonSchema(schema, 'input', schemas) as {
    properties?: Record<string, Json>
    required?: string[]
  }
  return Object.entries(properties).map(([name, { description, ...rest }]) => ({
    name,
    in: 'query',
    required: required.includes(name),
    ...(description === undefined ? {} : { description }),
    schema: rest,
  }))
}

const isMedia = (of: Schema | Media): of is Media => 'type' in of && 'schema' in of

const bodyOf = (body: Schema | Media, schemas: Json): Json =>
  isMedia(body)
    ? contentOf([body], schemas, 'input')
    : { 'application/json': { schema: jsonSchema(body, 'input', schemas) } }

function answerOf(answer: About['answer'], schemas: Json): Json {
  const description = 'Done.'
  if (answer === null) return { description }
  if (answer === undefined) return answerOf(z.object({}), schemas)
  if (Array.isArray(answer)) return { description, content: contentOf(answer, schemas) }
  if (isMedia(answer)) return { description, content: contentOf([answer], schemas) }
  const data = jsonSchema(answer, 'output', schemas)
  const schema = { type: 'object', properties: { data }, required: ['data'] }
  return { description, content: { 'application/json': { schema } } }
}

const contentOf = (media: Media[], schemas: Json, io: 'input' | 'output' = 'output'): Json =>
  Object.fromEntries(
    media.map(({ type, schema }) => [
      type,
      schema === null ? {} : { schema: jsonSchema(schema, io, schemas) },
    ]),
  )

/** Each status once in this envelope; a route refers to those that it may answer. */
function refusals(prefix: string, envelope: Schema, schemas: Json): Json {
  const schema = jsonSchema(envelope, 'output', schemas)
  const headersOf = (status: number) => {
    if (status === 401) return { 'WWW-Authenticate': { schema: { type: 'string' } } }
    if (status === 429 || status === 503) return { 'Retry-After': { schema: { type: 'string' } } }
    return undefined
  }
  return Object.fromEntries(
    Object.entries(REFUSALS).map(([status, description]) => {
      const headers = headersOf(Number(status))
      return [
        `${prefix}${status}`,
        {
          description,
          ...(headers === undefined ? {} : { headers }),
          content: { 'application/json': { schema } },
        },
      ]
    }),
  )
}

/** The schema as JSON Schema 2020-12, which is what OpenAPI 3.1 takes; records go to `schemas`. */
function jsonSchema(schema: Schema, io: 'input' | 'output', schemas: Json): Json {
  const { $schema: _, ...made } = z.toJSONSchema(schema, {
    io,
    metadata: words,
    unrepresentable: 'any',
    override({ jsonSchema: json }) {
      // Answers may gain fields; and what `format` says needs no expression of 300 characters.
      if (io === 'output' && json.additionalProperties === false) delete json.additionalProperties
      if (json.format !== undefined) delete json.pattern
      if (json.maximum === Number.MAX_SAFE_INTEGER) delete json.maximum
      if (json.minimum === Number.MIN_SAFE_INTEGER) delete json.minimum
    },
  }) as Json & { $defs?: Json }
  const { $defs = {}, ...rest } = relocated(made) as Json & { $defs?: Json }
  for (const [name, of] of Object.entries($defs)) schemas[name] = withoutId(of)
  const name = words.get(schema)?.id
  if (name === undefined) return rest
  // a record that nothing in it refers to stands at the root
  schemas[name] ??= withoutId(rest)
  return { $ref: `#/components/schemas/${name}` }
}

/** Zod writes the id of a record into it, where JSON Schema knows no such word. */
function withoutId(schema: unknown): Json {
  const { id: _, ...rest } = schema as Json
  return rest
}

/** References to `$defs` of one schema, as references to the document's components. */
function relocated(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(relocated)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, of]) =>
      key === '$ref' && typeof of === 'string'
        ? [key, of.replace(/^#\/\$defs\//, '#/components/schemas/')]
        : [key, relocated(of)],
    ),
  )
}
