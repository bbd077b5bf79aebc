/** What every registry of the benchmark can do, whoever wrote it. */
import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Server } from '../measure.ts'
import type { Payload } from '../content/payload.ts'
import type { Missing } from '../report.ts'

/** One body, or parts of 64 MiB (with docker-registry and its kin: one PATCH for each). */
export type How = 'single' | 'parts'

/** Bytes that can be downloaded. */
export type Published = {
  /** Where the whole is, redirects followed, and where ranges of it are. */
  whole: string
  ranges: string
  /** Where its metadata are. */
  lookup: { url: string; headers?: Record<string, string> }
}

/** A stored and tagged image. */
export type Stored = Published & {
  /** Gives it another tag. */
  tag(tag: string): Promise<void>
  /** Pushes it once more, as clients do that look first. */
  again(): Promise<void>
}

/** Serves what was stored. */
export type Source = Server & { publish(payload: Payload): Promise<Published> }

export type Registry = Server & {
  /** Stores a payload under the tag `bench` of the image `name`. */
  publish(payload: Payload, name?: string): Promise<Stored>
  /** What a push needs beforehand, and the push itself; only the latter is measured. */
  prepare(payload: Payload, how: How, name?: string): Promise<() => Promise<void>>
}

/** Somebody who may take part, or why not. */
export type Candidate<T> = {
  name: string
  start: ((folder: string) => Promise<T>) | null
  /** What is missing where `start` is null. */
  hint: string
}

/**
 * Starts all who are there, each in a folder of its own; who is not, or is and does not start, is told
 * of. Throws when that is one of ours, who have no `hint`.
 */
export async function startAll<T extends Server>(
  candidates: readonly Candidate<T>[],
  folder: (name: string) => string,
  say: (line: string) => void,
): Promise<{ systems: T[]; missing: Missing[] }> {
  const systems: T[] = []
  const missing: Missing[] = []
  try {
    for (const { name, start, hint } of candidates) {
      let why = hint
      if (start !== null)
        try {
          systems.push(await start(folder(name)))
          continue
        } catch (error) {
          if (hint === '') throw error
          why = String(error).slice(0, 300)
        }
      say(`${name} will be missing from the table: ${why}`)
      missing.push({ system: name, why })
    }
    return { systems, missing }
  } catch (error) {
    await stopAll(systems)
    throw error
  }
}

export const stopAll = (systems: readonly Server[]) =>
  Promise.all(systems.map((system) => system.stop()))

/** Makes folders below that of a case. */
export const ownFolder = (folder: string) => (name: string) => {
  const own = join(folder, name.replaceAll(' ', '-'))
  mkdirSync(own, { recursive: true })
  return own
}

/**
 * Removes what was pushed behind the back of who stored it, whom nobody asks for it again: rounds
 * would fill the disk otherwise. Databases and logs stay.
 */
export function forget(folder: string): void {
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    const kept = /\.(?:sqlite3?|db|log)(?:-\w+)?$|^words$/.test(entry.name)
    if (entry.isFile() && !kept && statSync(path).size >= 2 ** 20) rmSync(path)
  }
}
