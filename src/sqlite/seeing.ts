/** What somebody may see depends on their standing, which is read in the same trip as what they ask for. */
import type { Viewer } from '../ports.ts'
import { standingQuery } from './fragments.ts'
import type { Handle, RowsOf, Statement } from './handle.ts'
import { toStanding } from './rows.ts'

export type Seeing = ReturnType<typeof seeing>

export function seeing(handle: Handle) {
  const standing = standingQuery(handle.db)
  return {
    standing,

    /** The viewer's standing beside what the statements yield; nobody has none and needs no statement. */
    async see<T extends readonly Statement[], R>(
      viewer: Viewer,
      values: Record<string, unknown>,
      statements: T,
      pick: (rows: RowsOf<T>) => R,
    ) {
      if (viewer === null) {
        const rows = await handle.read(...statements)
        return { standing: null, value: pick(rows) }
      }
      const [stands, ...rows] = await handle.read(standing(values), ...statements)
      return { standing: toStanding(stands[0]), value: pick(rows) }
    },
  }
}
