/** Replays what the real client sent, and expects of each answer what that client needs. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sha256 } from '../protocol/client.ts'
import { nodeTarget, type Target } from '../runtimes/target.ts'
import { files, TRANSCRIPTS, type Transcript } from './transcript.ts'

describe('what Apptainer sent is answered as it needs', () => {
  let target: Target
  /** `{{name}}` → value, shared by all transcripts. */
  const bound = new Map<string, string>()
  const contents = new Map<string, Uint8Array>()
  beforeAll(async () => {
    target = await nodeTarget()
    bound.set('{{origin}}', target.url)
    bound.set('{{token}}', (await target.mint('alice')).jwt)
    for (const [name, make] of Object.entries(files)) {
      contents.set(name, make())
      bound.set(`{{${name}}}`, sha256(slice(name)))
    }
  })
  afterAll(() => target.stop())

  const slice = (file: string, start = 0, end?: number) =>
    (contents.get(file) ?? new Uint8Array()).subarray(start, end)

  /** The text with every name replaced by its value. */
  const filled = (text: string) =>
    text.replaceAll(/\{\{[^}]+\}\}/g, (name) => {
      const part = /^\{\{(\w+)\.(\d+)-(\d+)\}\}$/.exec(name)
      const value =
        part === null
          ? bound.get(name)
          : sha256(slice(part[1] ?? '', Number(part[2]), Number(part[3])))
      if (value === undefined) throw new Error(`No answer has given ${name}`)
      return value
    })

  /** Takes the values of names that are new from `actual`, wherever `wanted` has one. */
  function bind(wanted: unknown, actual: unknown): void {
    if (typeof wanted === 'string' && typeof actual === 'string') {
      const [, before = '', name, after = ''] = /^(.*)(\{\{\w+\}\})(.*)$/.exec(wanted) ?? []
      if (name !== undefined && !bound.has(name))
        bound.set(name, actual.slice(before.length, actual.length - after.length))
    } else if (typeof wanted === 'object' && wanted !== null)
      for (const [key, value] of Object.entries(wanted))
        bind(value, (actual as Record<string, unknown> | null)?.[key])
  }

  /** What an answer must hold, with names filled in; more fields may be there. */
  function expected(wanted: unknown): unknown {
    if (typeof wanted === 'string') return filled(wanted)
    if (Array.isArray(wanted)) return wanted.map(expected)
    if (typeof wanted !== 'object' || wanted === null) return wanted
    const entries = Object.entries(wanted).map(([key, value]) => [key, expected(value)])
    return expect.objectContaining(Object.fromEntries(entries))
  }

  test.each(TRANSCRIPTS)('%s', async (name) => {
    const text = await readFile(join(import.meta.dirname, `${name}.json`), 'utf8')
    const { exchanges } = JSON.parse(text) as Transcript
    expect(exchanges.length).toBeGreaterThan(1)
    for (const { method, url, headers, body, answer } of exchanges) {
      const bytes =
        typeof body === 'object'
          ? slice(body.file, body.start, body.end)
          : // bytes, so that fetch adds no Content-Type: the client sends none
            new TextEncoder().encode(filled(body ?? ''))
      const response = await fetch(filled(url), {
        method,
        redirect: 'manual',
        headers: Object.fromEntries(Object.entries(headers).map(([key, of]) => [key, filled(of)])),
        ...(body !== undefined && { body: bytes as BodyInit }),
      })
      const text = await response.text()
      const got = {
        status: response.status,
        headers: Object.fromEntries(response.headers),
        ...(answer.json !== undefined && { json: JSON.parse(text) as unknown }),
      }
      bind(answer, got)
      expect(got, `${method} ${url}`).toEqual(expected(answer))
    }
  })
})
