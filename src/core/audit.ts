/** The audit log as administrators read it: who did what to which object, from where (R57). */
import type { AuditFilter, Clock, Database } from '../ports.ts'
import { identify, type Access } from './access.ts'
import type { AuditEntry, Claims } from './model.ts'

export type Audit = ReturnType<typeof createAudit>

export function createAudit({
  database,
  clock,
  access,
}: {
  database: Pick<Database, 'audit' | 'tokens'>
  clock: Clock
  access: Access
}) {
  return {
    /** The newest first, as AuditBook.list; `denied` for everybody but administrators. */
    async list(
      filter: AuditFilter,
      place: { after: string | null; limit: number },
      claims: Claims | null,
    ): Promise<{ entries: AuditEntry[]; next: string | null }> {
      const standing = claims === null ? null : await database.tokens.standing(claims, clock.now())
      const facts = { subject: 'user', level: 0, private: false } as const
      access.authorise(identify(claims, standing), 'administer', facts, 'the audit log')
      return database.audit.list(filter, place)
    },
  }
}
