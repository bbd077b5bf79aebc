/**
 * The form of a transcript: what the real client sent, and of the answers what it needs. Ids, links
 * and tokens are `{{names}}`, bound by the first answer that holds them.
 */
import { buildSif, deffile, partition, sampleSif } from '../fixtures/sif.ts'

export type Exchange = {
  method: string
  /** `{{origin}}` with path and query, or a link of an earlier answer. */
  url: string
  headers: Record<string, string>
  /** Text, or a slice of one of the files. */
  body?: string | { file: string; start: number; end: number }
  answer: { status: number; headers: Record<string, string>; json?: unknown }
}

export type Transcript = {
  /** The command that was typed, and the client's User-Agent. */
  command: string
  client: string
  exchanges: Exchange[]
}

/** In this order: later ones pull what earlier ones pushed. */
export const TRANSCRIPTS = [
  'push',
  'push-again',
  'push-multipart',
  'pull',
  'pull-ranges',
  'search',
  'delete',
]

/** Images that the recorded commands pushed; the digest of each is `{{small}}`, `{{big}}`. */
export const files: Record<string, () => Uint8Array> = {
  small: () => sampleSif({ content: 'transcript' }),
  big: () =>
    buildSif({
      objects: [deffile('bootstrap: scratch\n'), partition()],
      trailing: 65 * 1024 * 1024,
    }),
}

export const PART_SIZE = 64 * 1024 * 1024
