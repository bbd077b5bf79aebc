/** sreg-lite share, star and stats: giving one image away, and what people make of containers. */
import { Option, type Command } from 'commander'
import { RegistryError } from '../../../src/errors.ts'
import type { Services } from '../cli.ts'
import { readServerUrl } from '../connect.ts'
import {
  day,
  durationArgument,
  json,
  plain,
  table,
  withApi,
  withTarget,
  type TargetOptions,
} from '../target.ts'

/** As `GET /v1/shares` has it; `count` is how many downloads are left, null any number. */
type Share = {
  id: string
  ref: string
  hash: string
  note: string
  creator: string
  expiresAt: string
  count: number | null
  used: number
  revokedAt: string | null
}
type Made = { id: string; url: string; path: string; expiresAt: string; count: number | null }
type ShareOptions = TargetOptions & {
  arch?: string
  expires?: number
  count?: string
  note?: string
}

/** Refs as clients are given them. */
const refOf = (text: string) => text.replace(/^library:(?:\/\/)?\/?/, '')
const inQuery = (ref: string) => encodeURIComponent(refOf(ref))

export function addShareCommands(program: Command, services: Services): void {
  const share = program
    .command('share')
    .description('links that hand out one image to whoever has them')
  withTarget(share.command('create', { isDefault: true }), services)
    .description('make a link to an image and print it, and only it (what `share REF` does)')
    .argument('<ref>', 'entity/collection/container:tag, or :sha256.HASH')
    .option('--arch <arch>', 'of the image that a tag means (default: amd64)')
    .addOption(
      new Option(
        '--expires <duration>',
        'as 12h or 30d, at most 90d (default: 7d, or the life of the token)',
      ).argParser(durationArgument),
    )
    .option('--count <number>', 'of downloads (default: any)')
    .option('--note <text>', 'what it is for; shown in the list')
    .addHelpText(
      'after',
      '\nThe link works with curl -L -o FILE and apptainer pull FILE, until it is over, used up or\nrevoked, or who made it may not read the image any more. Whoever has it has the image.',
    )
    .action(
      withApi(services, async (api, options: ShareOptions, ref = '') => {
        const { arch, note, expires, count } = options
        if (count !== undefined && !/^[1-9]\d{0,6}$/.test(count))
          throw new RegistryError('invalid', '--count takes a whole number of downloads.')
        const made = await api.call<Made>('POST', '/v1/shares', {
          ref: refOf(ref),
          ...(arch === undefined ? {} : { arch }),
          ...(note === undefined ? {} : { note }),
          ...(expires === undefined ? {} : { expiresIn: expires / 1000 }),
          ...(count === undefined ? {} : { count: Number(count) }),
        })
        // beside the data folder nobody has asked at an address: the server has noted its own
        const local = options.server === undefined
        const here = local ? await readServerUrl(options.data) : null
        services.print(`${local ? `${here ?? ''}${made.path}` : made.url}\n`)
        if (local && here === null)
          services.say('Put the address of your server in front: it has not been started yet.')
        const often =
          made.count === null ? '' : `, for ${made.count} download${made.count === 1 ? '' : 's'}`
        services.say(`Link ${made.id}, good until ${day(new Date(made.expiresAt))}${often}.`)
      }),
    )
  withTarget(share.command('list'), services)
    .description('list your links, or those of a container that you own; not the secrets in them')
    .argument('[container]', 'entity/collection/container')
    .option('--json', 'as JSON')
    .action(
      withApi(services, async (api, options: { json?: boolean }, ref?: string) => {
        const query = ref === undefined ? '' : `?ref=${inQuery(ref)}`
        const links = await api.call<Share[]>('GET', `/v1/shares${query}`)
        if (options.json === true) return services.print(json(links))
        const now = services.clock.now()
        const rows = links.map((link) => [
          link.id,
          link.ref,
          link.creator,
          stateOf(link, now),
          day(new Date(link.expiresAt)),
          String(link.used),
          link.count === null ? 'any' : String(link.count),
          plain(link.note),
        ])
        const head = ['ID', 'CONTAINER', 'BY', 'STATE', 'UNTIL', 'USED', 'LEFT', 'NOTE']
        services.print(table(head, rows))
      }),
    )
  withTarget(share.command('revoke'), services)
    .description('end a link of yours, or to an image that you own, and downloads by it')
    .argument('<id>', 'as share list shows it')
    .action(
      withApi(services, async (api, _options, id = '') => {
        await api.call('DELETE', `/v1/shares/${encodeURIComponent(id)}`)
        services.say(`Revoked the link ${id}.`)
      }),
    )

  const container = 'entity/collection/container'
  withTarget(program.command('star'), services)
    .description('give a container a star; without one, list those that you gave')
    .argument('[container]', container)
    .action(
      withApi(services, async (api, _options, ref?: string) => {
        if (ref !== undefined) {
          await api.call('PUT', '/v1/stars', { ref: refOf(ref) })
          return services.say(`Gave ${refOf(ref)} a star.`)
        }
        const given = await api.call<{ ref: string; stars: number }[]>('GET', '/v1/stars')
        services.print(
          table(
            ['CONTAINER', 'STARS'],
            given.map((s) => [s.ref, String(s.stars)]),
          ),
        )
      }),
    )
  withTarget(program.command('unstar'), services)
    .description('take a star back')
    .argument('<container>', container)
    .action(
      withApi(services, async (api, _options, ref = '') => {
        await api.call('DELETE', `/v1/stars?ref=${inQuery(ref)}`)
        services.say(`Took the star of ${refOf(ref)} back.`)
      }),
    )
  withTarget(program.command('stats'), services)
    .description('show stars, and pulls in all and in the last weeks')
    .argument('<container>', container)
    .option('--json', 'as JSON')
    .action(
      withApi(services, async (api, options: { json?: boolean }, ref = '') => {
        const stats = await api.call<{
          total: number
          stars: number
          weeks: { week: string; count: number }[]
        }>('GET', `/v1/stats?ref=${inQuery(ref)}`)
        if (options.json === true) return services.print(json(stats))
        const rows = stats.weeks.map(({ week, count }) => [week, String(count)])
        services.print(table(['WEEK FROM', 'PULLS'], [...rows, ['in all', String(stats.total)]]))
        services.say(`${stats.stars} star${stats.stars === 1 ? '' : 's'}.`)
      }),
    )
}

function stateOf({ revokedAt, expiresAt, count }: Share, now: Date): string {
  if (revokedAt !== null) return 'revoked'
  if (new Date(expiresAt) <= now) return 'over'
  return count === 0 ? 'used up' : 'good'
}
