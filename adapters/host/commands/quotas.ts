/** sreg-lite usage and quota: how much entities take, and may take. */
import { type Command, InvalidArgumentError } from 'commander'
import type { Api } from '../api.ts'
import type { Services } from '../cli.ts'
import { json, size, table, withApi, withTarget } from '../target.ts'

/** As `GET /v1/usage` has it; sizes in bytes, `limit` null is none. */
type Usage = {
  entity: string
  used: number
  reserved: number
  limit: number | null
  collections: number
  containers: number
  images: number
}

export function addQuotaCommands(program: Command, services: Services): void {
  withTarget(program.command('usage'), services)
    .description('show how much entities use of what they may: yours, or all as an administrator')
    .argument('[entity]', 'one of them')
    .option('--json', 'as JSON, in bytes')
    .action(
      withApi(services, async (api, options: { json?: boolean }, entity?: string) => {
        const usages =
          entity === undefined
            ? await allUsages(api)
            : [await api.call<Usage>('GET', `/v1/usage?entity=${encodeURIComponent(entity)}`)]
        if (options.json === true) return services.print(json(usages))
        const rows = usages.map((u) => [
          u.entity,
          size(u.used),
          u.limit === null ? 'none' : size(u.limit),
          u.reserved === 0 ? '' : size(u.reserved),
          String(u.collections),
          String(u.containers),
          String(u.images),
        ])
        const head = [
          'ENTITY',
          'USED',
          'LIMIT',
          'ON ITS WAY',
          'COLLECTIONS',
          'CONTAINERS',
          'IMAGES',
        ]
        services.print(table(head, rows))
      }),
    )

  withTarget(program.command('quota'), services)
    .description('set how much the images of an entity may take, equal ones counted once')
    .argument('<entity>', 'whose')
    .argument('<size>', 'as 100GiB or 500MB; none is no limit, default is SREG_DEFAULT_QUOTA')
    .action(
      withApi(services, async (api, _options, entity = '', wanted = '') => {
        const bytes = wanted === 'none' ? wanted : wanted === 'default' ? null : parseSize(wanted)
        const { limit, used } = await api.call<Usage>('PUT', '/v1/quota', { entity, bytes })
        const may = limit === null ? 'may use any amount' : `may use ${size(limit)}`
        services.say(`${entity} ${may}, and uses ${size(used)}.`)
        if (limit !== null && used > limit)
          services.say('Nothing is deleted, but nothing new fits until it uses less.')
      }),
    )
}

async function allUsages(api: Api): Promise<Usage[]> {
  const all: Usage[] = []
  let after: string | null = ''
  while (after !== null) {
    const page: { usages: Usage[]; next: string | null } = await api.call(
      'GET',
      `/v1/usage?after=${encodeURIComponent(after)}`,
    )
    all.push(...page.usages)
    after = page.next
  }
  return all
}

/** Bytes of a size such as 100GiB, 1.5TB or 4096; `KiB` is 1024 bytes and `kB` 1000. */
export function parseSize(text: string): number {
  const [, number, prefix = '', binary] =
    /^(\d+(?:\.\d+)?) ?(?:([kmgt])(i?)b|b)?$/i.exec(text) ?? []
  const power = ['', 'k', 'm', 'g', 't'].indexOf(prefix.toLowerCase())
  const bytes = Math.round(Number(number) * (binary ? 1024 : 1000) ** power)
  if (number !== undefined && bytes >= 1 && Number.isSafeInteger(bytes)) return bytes
  throw new InvalidArgumentError('Use a size such as 100GiB or 500MB, or none, or default.')
}
