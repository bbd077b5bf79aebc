/** sreg-lite team: who belongs together, on a data folder or at a server. */
import { Option, type Command } from 'commander'
import type { Services } from '../cli.ts'
import { readSecretFile } from '../connect.ts'
import { day, durationArgument, json, plain, table, withApi, withTarget } from '../target.ts'

type Team = { name: string; description: string; open: boolean; role: string | null }
type Shown = Team & { members: { user: string; role: string; joinedAt: string }[] | null }
type Invitation = { id: string; createdBy: string | null; createdAt: string; expiresAt: string }

const at = (name: string, more = '') => `/v1/teams/${encodeURIComponent(name)}${more}`
const memberAt = (name: string, user: string) => at(name, `/members/${encodeURIComponent(user)}`)
const doors = (open: boolean) => (open ? 'open' : 'by invitation')

export function addTeamCommands(program: Command, services: Services): void {
  const team = program.command('team').description('teams, to which collections are granted')

  withTarget(team.command('list'), services)
    .description('list the teams that you see')
    .option('--json', 'as JSON')
    .action(
      withApi(services, async (api, options: { json?: boolean }) => {
        const teams = await api.call<Team[]>('GET', '/v1/teams')
        if (options.json === true) return services.print(json(teams))
        const rows = teams.map((t) => [t.name, doors(t.open), t.role ?? '', plain(t.description)])
        services.print(table(['NAME', 'DOORS', 'YOU', 'DESCRIPTION'], rows))
      }),
    )
  withTarget(team.command('show'), services)
    .description('show a team and its members')
    .argument('<team>')
    .option('--json', 'as JSON')
    .action(
      withApi(services, async (api, options: { json?: boolean }, name = '') => {
        const shown = await api.call<Shown>('GET', at(name))
        if (options.json === true) return services.print(json(shown))
        const rows = (shown.members ?? []).map((m) => [m.user, m.role, day(new Date(m.joinedAt))])
        services.say(`${shown.name} is ${doors(shown.open)}. ${plain(shown.description)}`.trim())
        services.print(table(['USER', 'ROLE', 'SINCE'], rows))
      }),
    )
  withTarget(team.command('add'), services)
    .description('make a team, which you own')
    .argument('<team>', 'lower-case letters and digits, with single dots, dashes or underscores')
    .option('--owner <user>', 'who owns it instead (on a data folder: needed)')
    .option('--description <text>', 'what it is for')
    .option('--open', 'everybody with an account may join (default: by invitation)')
    .action(
      withApi(
        services,
        async (
          api,
          options: { owner?: string; description?: string; open?: boolean },
          name = '',
        ) => {
          const { owner, description, open } = options
          await api.call('POST', '/v1/teams', { name, owner, description, open })
          services.say(`Made the team ${name}.`)
        },
      ),
    )
  withTarget(team.command('change'), services)
    .description('change what a team says of itself, or its doors')
    .argument('<team>')
    .option('--description <text>', 'what it is for')
    .addOption(new Option('--open', 'everybody with an account may join').conflicts('closed'))
    .option('--closed', 'by invitation only')
    .action(
      withApi(
        services,
        async (
          api,
          options: { description?: string; open?: boolean; closed?: boolean },
          name = '',
        ) => {
          const open = options.closed === true ? false : options.open
          await api.call('PATCH', at(name), { description: options.description, open })
          services.say(`Changed the team ${name}.`)
        },
      ),
    )
  withTarget(team.command('remove'), services)
    .description('delete a team, its invitations, and what was granted to it')
    .argument('<team>')
    .action(
      withApi(services, async (api, _options, name = '') => {
        await api.call('DELETE', at(name))
        services.say(`Deleted the team ${name}.`)
      }),
    )
  withTarget(team.command('member'), services)
    .description('add somebody to a team, make them its owner, or take them out')
    .argument('<team>')
    .argument('<user>')
    .addOption(new Option('--owner', 'as an owner').conflicts('remove'))
    .option('--remove', 'take them out')
    .action(
      withApi(
        services,
        async (api, options: { owner?: boolean; remove?: boolean }, name = '', user = '') => {
          if (options.remove === true) {
            await api.call('DELETE', memberAt(name, user))
            return services.say(`${user} is not in the team ${name} any more.`)
          }
          const owner = options.owner ?? false
          await api.call('PUT', memberAt(name, user), { owner })
          services.say(`${user} is ${owner ? 'an owner' : 'a member'} of the team ${name}.`)
        },
      ),
    )
  withTarget(team.command('join'), services)
    .description('join an open team')
    .argument('<team>')
    .action(
      withApi(services, async (api, _options, name = '') => {
        await api.call('POST', at(name, '/join'))
        services.say(`You are in the team ${name}.`)
      }),
    )
  withTarget(team.command('leave'), services)
    .description('leave a team')
    .argument('<team>')
    .argument('<user>', 'your name')
    .action(
      withApi(services, async (api, _options, name = '', user = '') => {
        await api.call('DELETE', memberAt(name, user))
        services.say(`${user} has left the team ${name}.`)
      }),
    )
  withTarget(team.command('invite'), services)
    .description('make an invitation that works once, and print its secret, and only it')
    .argument('<team>')
    .addOption(
      new Option('--expires <duration>', 'as 12h, 30d, at most 1y (default: 7d)').argParser(
        durationArgument,
      ),
    )
    .action(
      withApi(services, async (api, options: { expires?: number }, name = '') => {
        const expiresIn = options.expires === undefined ? undefined : options.expires / 1000
        const made = await api.call<{ id: string; secret: string; expiresAt: string }>(
          'POST',
          at(name, '/invitations'),
          { expiresIn },
        )
        services.print(`${made.secret}\n`)
        services.say(
          `Invitation ${made.id}, good once until ${day(new Date(made.expiresAt))}: sreg-lite team accept - --server URL --token-file FILE`,
        )
      }),
    )
  withTarget(team.command('invitations'), services)
    .description('list the invitations into a team that still work, or withdraw one')
    .argument('<team>')
    .option('--json', 'as JSON')
    .option('--withdraw <id>', 'that one')
    .action(
      withApi(services, async (api, options: { json?: boolean; withdraw?: string }, name = '') => {
        const path = at(name, '/invitations')
        if (options.withdraw !== undefined) {
          await api.call('DELETE', `${path}/${encodeURIComponent(options.withdraw)}`)
          return services.say(`Withdrew the invitation ${options.withdraw}.`)
        }
        const list = await api.call<Invitation[]>('GET', path)
        if (options.json === true) return services.print(json(list))
        const rows = list.map((i) => [
          i.id,
          i.createdBy ?? '',
          day(new Date(i.createdAt)),
          day(new Date(i.expiresAt)),
        ])
        services.print(table(['ID', 'BY', 'CREATED', 'EXPIRES'], rows))
      }),
    )
  withTarget(team.command('accept'), services)
    .description('come into the team that an invitation is for')
    .argument('<file>', 'with the secret of the invitation; - is standard input')
    .action(
      withApi(services, async (api, _options, file = '') => {
        const secret = (await readSecretFile(file, services)).trim()
        const accepted = await api.call<{ team: string }>('POST', '/v1/invitations', { secret })
        services.say(`You are in the team ${accepted.team}.`)
      }),
    )
}
