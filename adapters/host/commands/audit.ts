/** sreg-lite audit: who did what to which object, from where. */
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { AuditEntry } from '../../../src/core/model.ts'
import type { Services } from '../cli.ts'
import { day, json, parseDuration, table, withApi, withTarget } from '../target.ts'

/** As `GET /v1/audit` has it. */
type Entry = Omit<AuditEntry, 'at'> & { at: string }
type Page = { entries: Entry[]; next: string | null }

type Options = {
  actor?: string
  action?: string
  ref?: string
  since?: string
  until?: string
  denied?: boolean
  limit: number
  json?: boolean
}

/** Entries of one answer of the server. */
const PAGE = 1000

export function addAuditCommands(program: Command, services: Services): void {
  withTarget(program.command('audit'), services)
    .description('show who did what, the newest first, as an administrator')
    .option('--actor <name>', 'of one user, or of cli:USER')
    .option('--action <action>', 'one action as tag.set, or all of a kind as tag')
    .option('--ref <ref>', 'of what begins so: entity/collection, or an object as "image 65f..."')
    .option('--since <when>', 'as 7d, or a time as 2030-01-31 or 2030-01-31T12:00Z')
    .option('--until <when>', 'likewise')
    .option('--denied', 'what was refused only')
    .addOption(
      new Option('--limit <number>', 'entries at most').default(50).argParser(limitArgument),
    )
    .option('--json', 'as JSON')
    .addHelpText('after', '\nWhat is written down, and how long it is kept: docs/audit.md.')
    .action(
      withApi(services, async (api, options: Options) => {
        const { actor, action, denied } = options
        const now = services.clock.now()
        const filters = {
          actor,
          action,
          ref: options.ref?.replace(/^library:\/\/\/?/, ''),
          since: moment(options.since, now),
          until: moment(options.until, now),
          outcome: denied === true ? 'denied' : undefined,
        }
        const query = new URLSearchParams()
        for (const [name, value] of Object.entries(filters))
          if (value !== undefined) query.set(name, value)
        const entries: Entry[] = []
        let next: string | null = null
        do {
          query.set('limit', String(Math.min(PAGE, options.limit - entries.length)))
          const page: Page = await api.call('GET', `/v1/audit?${query.toString()}`)
          entries.push(...page.entries)
          next = page.next
          if (next !== null) query.set('after', next)
        } while (next !== null && entries.length < options.limit)
        if (options.json === true) return services.print(json(entries))
        const rows = entries.map((entry) => [
          day(new Date(entry.at)),
          entry.actor,
          entry.address,
          entry.outcome === 'denied' ? `denied ${entry.action}` : entry.action,
          entry.name,
          entry.count > 1 ? `${entry.count} times: ${entry.detail}` : entry.detail,
        ])
        services.print(table(['TIME', 'ACTOR', 'ADDRESS', 'ACTION', 'NAME', 'DETAIL'], rows))
      }),
    )
}

function limitArgument(text: string): number {
  const limit = Number(text)
  if (/^\d{1,6}$/.test(text) && limit > 0) return limit
  throw new InvalidArgumentError('Use a number from 1 to 999999.')
}

/** A time that is so long ago, or that is given, as the API wants it. */
function moment(text: string | undefined, now: Date): string | undefined {
  if (text === undefined) return undefined
  const ago = parseDuration(text)
  const at = ago === null ? Date.parse(text) : now.getTime() - ago
  if (/^\d{4}-\d{2}-\d{2}/.test(text) || ago !== null)
    if (!Number.isNaN(at)) return new Date(at).toISOString()
  throw new InvalidArgumentError(`${JSON.stringify(text)} is no time: use 7d, or 2030-01-31.`)
}
