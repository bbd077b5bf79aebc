/**
 * What a protocol says of its routes for GET /openapi.json, kept beside its table in `about.ts`.
 * A new route needs one entry there: docs/adding-a-route.md.
 */
import * as z from 'zod/mini'
import type { ErrorCode } from '../errors.ts'

export type Schema = z.ZodMiniType

/** A body of one media type; `schema` null for bytes and text that are what they are. */
export type Media = { type: string; schema: Schema | null }

export type About = {
  /** What the route does, in a few words, as a list shows it. */
  summary: string
  /** What else a caller must know (CommonMark). */
  more?: string
  /** Path parameters by name, each explained; a pattern that ends in `*` takes the first new name. */
  params?: Record<string, string>
  /** An object schema: each property is a parameter of the query. */
  query?: Schema
  /** The very schema that the handler reads the body with, or another media type. */
  body?: Schema | Media
  /**
   * What 200 brings: `data` of the json-resp envelope, or media types as they stand, or null for
   * nothing. Left out, it is an empty object.
   */
  answer?: Schema | Media | Media[] | null
  /** Other answers that are no refusals, by status; a string is one without a body. */
  others?: Record<number, string | (Media & { about: string })>
  /** Refusals beside those that follow from access, parameters and body. */
  errors?: ErrorCode[]
}

/** Everything said of one protocol. */
export type Described = {
  name: string
  about: string
  /** The envelope of its refusals, with an id; the json-resp one where nothing is said. */
  refusal?: Schema
  /** By `METHOD /pattern`, exactly as the table has it. */
  routes: Record<string, About>
}

/** JSON without the envelope. */
export const bare = (schema: Schema): Media => ({ type: 'application/json', schema })
export const form = (schema: Schema): Media => ({
  type: 'application/x-www-form-urlencoded',
  schema,
})
export const plain = (type: string): Media => ({ type, schema: null })
export const BYTES = plain('application/octet-stream')

/** What is known of schemas beside their shape; one with an id is a component of the document. */
export const words = z.registry<{ id?: string; description?: string }>()

/** What remains of a type in JSON: times are text. */
type Json<T> = T extends Date
  ? string
  : T extends readonly (infer Item)[]
    ? Json<Item>[]
    : T extends object
      ? { [Key in keyof T]: Json<T[Key]> }
      : T

type Fits<T, S extends Schema> = [Json<T>] extends [z.output<S>]
  ? [z.output<S>] extends [Json<T>]
    ? unknown
    : { 'this schema has what the type has not': Json<T> }
  : { 'the type has what this schema has not': Json<T> }

/**
 * Names the schema of what answers hold as `T`; it does not compile when the two differ, so that a
 * new field of the record is a new field of the document.
 */
export function record<T>(id: string) {
  return <S extends Schema>(schema: S & Fits<T, S>): S => {
    words.add(schema, { id })
    return schema
  }
}

/** A time as every answer has it, in UTC. */
export const time = z.iso.datetime()
export const id = z.string().check(z.regex(/^[0-9a-f]{24}$/))
export const digest = z.string().check(z.regex(/^[0-9a-f]{64}$/))
export const count = z.int().check(z.gte(0))

/** Explains a value in the document. */
export function said<S extends Schema>(schema: S, description: string): S {
  // a clone: the same schema may be explained twice
  const copy = z.clone(schema)
  words.add(copy, { description })
  return copy
}
