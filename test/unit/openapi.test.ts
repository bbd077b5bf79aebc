/** The OpenAPI document of the whole registry: complete, consistent, and without anything secret. */
import { readFileSync, readdirSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import * as z from 'zod/mini'
import { record, said, type Described } from '../../src/http/about.ts'
import { openApi } from '../../src/http/openapi.ts'
import { nodeTarget } from '../runtimes/target.ts'
import type { Target } from '../runtimes/target.ts'

const SECRET = 'a-secret-of-more-than-32-characters'

type Operation = {
  operationId: string
  summary: string
  description?: string
  parameters?: { name: string; in: string }[]
  requestBody?: { content: Record<string, { schema?: object }> }
  responses: Record<string, { content?: Record<string, { schema?: object }> }>
  security: object[]
}
type Document = {
  servers: object[]
  paths: Record<string, Record<string, Operation>>
  components: Record<string, Record<string, object>>
}

let target: Target
let text: string
let document: Document
beforeAll(async () => {
  const env = { SREG_SECRET: SECRET, SREG_PUBLIC_URL: 'https://registry.example' }
  target = await nodeTarget({ env })
  text = await (await fetch(`${target.url}/openapi.json`)).text()
  document = JSON.parse(text) as Document
})
afterAll(() => target.stop())

const operations = () =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      name: `${method.toUpperCase()} ${path}`,
      path,
      operation,
    })),
  )

/** Every row of every route table, read from the source. */
function routesInSource(): string[] {
  const src = new URL('../../src/', import.meta.url)
  return readdirSync(src, { recursive: true, encoding: 'utf8' })
    .filter((file) => /^[a-z]+\/routes\.ts$/.test(file))
    .flatMap((file) => [
      ...readFileSync(new URL(file, src), 'utf8').matchAll(
        /method: '([A-Z]+)',\s*path: '([^']+)'/g,
      ),
    ])
    .map(([, method, path]) => `${method} ${path}`)
}

test('describes every route of every table, and nothing else', () => {
  const shape = (name: string) => name.replaceAll(/:\w+(?:\{\.\+\})?|\{\w+\}|\*/g, '…')
  const routes = routesInSource().map(shape).toSorted()
  expect(routes.length).toBeGreaterThan(60)
  expect(
    operations()
      .map(({ name }) => shape(name))
      .toSorted(),
  ).toEqual(routes)
})

test('every operation says what it does, under a name of its own', () => {
  const ids = operations().map(({ operation }) => operation.operationId)
  expect(new Set(ids).size).toBe(ids.length)
  for (const { name, path, operation } of operations()) {
    expect(operation.summary, name).toMatch(/^[A-Z]\w* ?.*[^.]$/)
    const named = Array.from(path.matchAll(/\{(\w+)\}/g), ([, parameter]) => parameter)
    const inPath = (operation.parameters ?? []).filter((parameter) => parameter.in === 'path')
    expect(
      inPath.map((parameter) => parameter.name),
      name,
    ).toEqual(named)
    expect(operation.responses, name).toHaveProperty('200')
    const ticket = /^\/v1\/(?:blob|part)$/.test(path)
    expect(Object.keys(operation.responses).includes('429'), name).toBe(!ticket)
  }
})

test('every JSON body and answer has a schema that says what is in it', () => {
  for (const { name, operation } of operations())
    for (const { content = {} } of [
      ...(operation.requestBody === undefined ? [] : [operation.requestBody]),
      ...Object.values(operation.responses),
    ]) {
      const json = content['application/json']
      if (json === undefined) continue
      expect(JSON.stringify(json.schema), name).toMatch(/"\$ref"|"type"/)
    }
})

test('what needs a scope needs a token and says which; the rest takes none or either', () => {
  const at = (path: string, method: string) => document.paths[path]?.[method]
  expect(at('/v1/users', 'get')?.security).toEqual([{ token: [] }])
  expect(at('/v1/users', 'get')?.description).toContain('`admin`')
  expect(at('/v1/images/{ref}', 'get')?.security).toEqual([{}, { token: [] }])
  expect(at('/healthz', 'get')?.security).toEqual([])
  expect(Object.keys(at('/healthz', 'get')?.responses ?? {})).not.toContain('401')
})

test('every reference leads somewhere, and every record is referred to', () => {
  const references = Array.from(text.matchAll(/"\$ref":"#\/components\/(\w+)\/(\w+)"/g))
  expect(references.length).toBeGreaterThan(100)
  expect(text.match(/"\$ref"/g)).toHaveLength(references.length)
  for (const [, kind = '', name = ''] of references)
    expect(Object.keys(document.components[kind] ?? {}), name).toContain(name)
  const referred = new Set(references.map(([, , name]) => name))
  for (const name of Object.keys(document.components['schemas'] ?? {}))
    expect(referred).toContain(name)
})

test('names the public address as its only server, and nothing of the inside', async () => {
  expect(document.servers).toEqual([{ url: 'https://registry.example' }])
  for (const inside of [SECRET, target.data, target.url, '127.0.0.1', 'eyJ', 'BEGIN '])
    expect(text).not.toContain(inside)
  expect(await (await fetch(`${target.url}/openapi.json`)).text()).toBe(text)
})

const registry = { version: '1', publicUrl: null }
const described = (routes: Described['routes']): Described => ({ name: 'x', about: 'x', routes })

test('a route without words is refused, and words without a route', () => {
  const routes = [{ method: 'GET', path: '/a', access: 'open' }] as const
  const make = (words: Described['routes']) =>
    openApi([{ routes, described: described(words) }], registry)
  expect(() => make({})).toThrow('GET /a is not described')
  expect(() => make({ 'GET /a': { summary: 'A' }, 'GET /b': { summary: 'B' } })).toThrow(
    'GET /b: described, but no route',
  )
  expect(make({ 'GET /a': { summary: 'A' } })).toHaveProperty('paths./a.get.summary', 'A')
})

test('a request is described as it is read, an answer as it is sent, a record once', () => {
  const thing = record<{ id: string; at: Date }>('Thing')(
    z.object({ id: said(z.string(), 'Its id.'), at: z.iso.datetime() }),
  )
  const body = z.strictObject({
    size: z.pipe(
      z.string(),
      z.transform((word) => Number(word)),
    ),
  })
  const routes = [{ method: 'POST', path: '/things/:name/*', access: 'push' }] as const
  const words = {
    'POST /things/:name/*': {
      summary: 'Makes things',
      params: { name: 'A name.', rest: 'The rest.' },
      query: z.object({ page: z.optional(z.string()) }),
      body,
      answer: z.array(thing),
    },
  }
  const made = openApi([{ routes, described: described(words) }], registry) as Document
  const operation = made.paths['/things/{name}/{rest}']?.['post']
  expect(operation?.parameters?.map((parameter) => parameter.name)).toEqual([
    'name',
    'rest',
    'page',
  ])
  expect(operation?.requestBody?.content['application/json']?.schema).toEqual({
    type: 'object',
    properties: { size: { type: 'string' } },
    required: ['size'],
    additionalProperties: false,
  })
  expect(operation?.responses['200']?.content?.['application/json']?.schema).toEqual({
    type: 'object',
    properties: { data: { type: 'array', items: { $ref: '#/components/schemas/Thing' } } },
    required: ['data'],
  })
  expect(Object.keys(operation?.responses ?? {})).toEqual([
    '200',
    '400',
    '401',
    '403',
    '404',
    '413',
    '429',
    '431',
    '503',
  ])
  expect(made.components['schemas']?.['Thing']).toEqual({
    type: 'object',
    properties: {
      id: { type: 'string', description: 'Its id.' },
      at: { type: 'string', format: 'date-time' },
    },
    required: ['id', 'at'],
  })
})
