/** Driver messages → what they mean. Texts differ by driver (D1 prefixes, wrappers), so causes are searched too. */
import type { RegistryError } from '../errors.ts'

function texts(error: unknown): string {
  let text = ''
  for (
    let at: unknown = error, depth = 0;
    at instanceof Error && depth < 4;
    at = at.cause, depth += 1
  )
    text += `${at.message}\n`
  return text
}

/** Name of the guard column whose condition was false (R6), or null for any other failure. */
export function failedGuard(error: unknown): string | null {
  const match = /CHECK constraint failed: (?:guard\.)?([a-z_]+)/.exec(texts(error))
  return match?.[1] ?? null
}

/** True when a unique index refused the row. */
export function isDuplicate(error: unknown): boolean {
  return /UNIQUE constraint failed/.test(texts(error))
}

/** True when another connection holds the write lock, or a D1 is overloaded or moving. */
export function isBusy(error: unknown): boolean {
  return /database is locked|SQLITE_BUSY|database table is locked|D1 DB is overloaded|Network connection lost|to be reset|reset because its code|transient issue/.test(
    texts(error),
  )
}

/** True when the disk under the database, or the room given to a D1, is full. */
export function isFull(error: unknown): boolean {
  return /database or disk is full|SQLITE_FULL|maximum DB size|maximum account storage limit/.test(
    texts(error),
  )
}

/**
 * Runs a guarded batch. `reasons` names the error for each guard that may fail; anything else
 * bubbles up unchanged.
 */
export async function guarded<T>(
  run: Promise<T>,
  reasons: Record<string, () => RegistryError | Promise<RegistryError>>,
): Promise<T> {
  try {
    return await run
  } catch (error) {
    const reason = reasons[failedGuard(error) ?? '']
    if (reason !== undefined) throw await reason()
    throw error
  }
}
