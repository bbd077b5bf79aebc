/** What every answer of the registry must hold, whatever was asked. */
import { expect } from 'vitest'
import type { Target } from '../runtimes/target.ts'
import type { Answer } from './client.ts'
import type { RawAnswer } from './raw.ts'

/** Traces of the inside: stack frames, paths of this machine, SQL, drivers. */
const INSIDE =
  /\n\s+at |node_modules|\/(?:tmp|dev)\/|\/work\/|sqlite|\bselect\b.*\bfrom\b|\binsert into\b/i

/**
 * The json-resp envelope with this status and a sentence for the person at the terminal, without a
 * trace of the inside (R34). Returns the sentence.
 */
export function expectRefusal(
  answer: Answer | RawAnswer,
  status: number,
  says = /\w+ \w+/,
): string {
  const text = 'text' in answer ? answer.text : answer.body.toString()
  expect(answer.status, text.slice(0, 300)).toBe(status)
  expect(answer.headers.get('content-type')).toMatch(/^application\/json/)
  const { error } = JSON.parse(text) as { error: { code: number; message: string } }
  expect(error.code).toBe(status)
  expect(error.message).toMatch(says)
  expect(error.message).not.toMatch(INSIDE)
  expect(error.message.length).toBeLessThan(500)
  return error.message
}

/**
 * The refusal of a request that is no proper HTTP: as `expectRefusal`, or, where the runtime itself
 * refuses, the status of some refusal and no JSON.
 */
export function expectMalformed(
  { bareRefusals }: Target,
  answer: Answer | RawAnswer,
  status: number,
  says?: RegExp,
): void {
  const ours = answer.headers.get('content-type')?.startsWith('application/json') ?? false
  if (bareRefusals === undefined || ours) return void expectRefusal(answer, status, says)
  expect([400, 431, 505]).toContain(answer.status)
}

/** 200 with an envelope; returns its `data`. */
export function expectData(answer: Answer): any {
  expect(answer.status, answer.text.slice(0, 300)).toBe(200)
  expect(answer.headers.get('content-type')).toMatch(/^application\/json/)
  expect(answer.json).toHaveProperty('data')
  return answer.json.data
}

/**
 * What is not there and what is not to be seen answer alike, byte for byte (R26); only what remains of
 * a limit counts down with every question.
 */
export function expectAlike(one: Answer, other: Answer): void {
  const plain = ({ status, headers, text }: Answer) => ({
    status,
    text,
    headers: [...headers].filter(([name]) => !['date', 'x-request-id', 'ratelimit'].includes(name)),
  })
  expect(plain(one)).toEqual(plain(other))
}

/**
 * Database trips of a request that can be repeated: the least of three tries, because the registry
 * also works on its own now and then. 0 where trips cannot be counted.
 */
export async function tripsOf({ trips }: Target, work: () => Promise<unknown>): Promise<number> {
  const counts: number[] = []
  for (let i = 0; i < 3; i++) {
    trips?.()
    await work()
    counts.push(trips?.().length ?? 0)
  }
  return Math.min(...counts)
}
