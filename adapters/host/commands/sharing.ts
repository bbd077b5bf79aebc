/** What owners do with collections and containers: grants, privacy, freezing, deletion. */
import { Argument, Option, type Command } from 'commander'
import type { Services } from '../cli.ts'
import { day, json, table, withApi, withTarget } from '../target.ts'

const LEVELS = ['none', 'reader', 'contributor', 'owner']

type Grant = { user: string | null; team: string | null; level: string; createdAt: string }

/** The path of a ref, as people write it. */
const pathOf = (ref: string) => ref.replace(/^library:\/\/\/?/, '')
const inUrl = (path: string) => path.split('/').map(encodeURIComponent).join('/')

export function addSharingCommands(program: Command, services: Services): void {
  const grant = program.command('grant').description('who may do what in a collection')
  withTarget(grant.command('list'), services)
    .description('list what users and teams may do in a collection')
    .argument('<ref>', 'entity/collection')
    .option('--json', 'as JSON')
    .action(
      withApi(services, async (api, options: { json?: boolean }, ref = '') => {
        const path = `/v1/grants?ref=${encodeURIComponent(pathOf(ref))}`
        const grants = await api.call<Grant[]>('GET', path)
        if (options.json === true) return services.print(json(grants))
        const rows = grants.map((g) => [
          g.user === null ? 'team' : 'user',
          g.user ?? g.team ?? '',
          g.level,
          day(new Date(g.createdAt)),
        ])
        services.print(table(['KIND', 'NAME', 'LEVEL', 'SINCE'], rows))
      }),
    )
  withTarget(grant.command('set'), services)
    .description('let a user or a team read, contribute to or own a collection, or no longer')
    .argument('<ref>', 'entity/collection')
    .argument('<name>', 'of a user, or with --team of a team')
    .addArgument(
      new Argument('<level>', 'none; reader: pull; contributor: push too; owner: all').choices(
        LEVELS,
      ),
    )
    .option('--team', 'to a team')
    .action(
      withApi(
        services,
        async (api, options: { team?: boolean }, ref = '', name = '', level = '') => {
          const to = options.team === true ? { team: name } : { user: name }
          await api.call('PUT', '/v1/grants', { ref: pathOf(ref), ...to, level })
          services.say(`${name} is ${level} in ${pathOf(ref)} from now on.`)
        },
      ),
    )

  for (const value of [true, false]) {
    const word = value ? 'private' : 'public'
    withTarget(program.command(word), services)
      .description(
        value
          ? 'hide a collection or container from everybody who was not granted anything there'
          : 'let everybody see a collection or container again',
      )
      .argument('<ref>', 'entity/collection or entity/collection/container')
      .action(
        withApi(services, async (api, _options, ref = '') => {
          const path = pathOf(ref)
          await api.call('PUT', '/v1/privacy', { ref: path, private: value })
          services.say(`${path} is ${word} now.`)
        }),
      )
  }

  for (const frozen of [true, false])
    withTarget(program.command(frozen ? 'freeze' : 'thaw'), services)
      .description(
        frozen
          ? 'keep the tags of a container, or one tag, from being moved or deleted'
          : 'let the tags of a container, or one tag, be moved and deleted again',
      )
      .argument('<ref>', 'entity/collection/container or entity/collection/container:tag')
      .addOption(new Option('--arch <arch>', 'the tag of that arch only, such as amd64'))
      .action(
        withApi(services, async (api, { arch }: { arch?: string }, ref = '') => {
          const path = pathOf(ref)
          await api.call('PUT', '/v1/frozen', { ref: path, arch, frozen })
          services.say(`${path} is ${frozen ? 'frozen' : 'thawed'} now.`)
        }),
      )

  withTarget(program.command('remove'), services)
    .description('delete a collection or container with everything in it, for good')
    .argument('<ref>', 'entity/collection or entity/collection/container')
    .action(
      withApi(services, async (api, _options, ref = '') => {
        const path = pathOf(ref)
        const kind = path.split('/').length === 3 ? 'containers' : 'collections'
        await api.call('DELETE', `/v1/${kind}/${inUrl(path)}`)
        services.say(`Deleted ${path} and everything in it.`)
      }),
    )
}
