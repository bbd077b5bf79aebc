/** sreg-lite user, token, robot and transfer. */
import { Option, type Command } from 'commander'
import type { Scope, Token, User } from '../../../src/core/model.ts'
import { RegistryError } from '../../../src/errors.ts'
import type { Services } from '../cli.ts'
import {
  day,
  durationArgument,
  json,
  plain,
  scopesArgument,
  scopesHelp,
  table,
  withApi,
  withTarget,
} from '../target.ts'

/** Records as JSON has them. */
type WireUser = Omit<User, 'createdAt'> & {
  createdAt: string
  deletedAt?: string
  manager?: string | null
}
type WireToken = Omit<Token, 'createdAt' | 'expiresAt' | 'revokedAt' | 'lastUsedAt'> & {
  createdAt: string
  expiresAt: string
  revokedAt: string | null
  lastUsedAt: string | null
  place: string | null
}
type Made = { id: string; token: string; expiresAt: string }

const at = (name: string) => `/v1/users/${encodeURIComponent(name)}`
const time = (text: string) => day(new Date(text))
const withoutPrefix = (ref: string) => ref.replace(/^library:\/\/\/?/, '')
const stateOf = (user: WireUser) =>
  user.deletedAt === undefined ? (user.disabled ? 'disabled' : '') : 'deleted'
const roleOption = () =>
  new Option('--role <role>', 'what they are in the whole registry').choices([
    'admin',
    'staff',
    'user',
  ])

export function addPeopleCommands(program: Command, services: Services): void {
  addUserCommands(program, services)
  addTokenCommands(program, services)
  addRobotCommands(program, services)

  withTarget(program.command('transfer'), services)
    .description('give an entity with everything in it to another user')
    .argument('<entity>', 'what is given')
    .argument('<user>', 'who gets it')
    .action(
      withApi(services, async (api, _options, entity = '', to = '') => {
        await api.call('POST', '/v1/transfers', { entity: withoutPrefix(entity), to })
        services.say(`${withoutPrefix(entity)} belongs to ${to} now.`)
      }),
    )
}

function addUserCommands(program: Command, services: Services): void {
  const user = program.command('user').description('users of the registry')
  withTarget(user.command('add'), services)
    .description('add a user, who owns the entity of the same name')
    .argument('<name>', 'lower-case letters and digits, with single dots, dashes or underscores')
    .addOption(roleOption().default('user'))
    .addOption(new Option('--admin', 'the same as --role admin').conflicts('role'))
    .action(
      withApi(services, async (api, options: { admin?: boolean; role: string }, name = '') => {
        const role = options.admin === true ? 'admin' : options.role
        await api.call('POST', '/v1/users', { name, role })
        services.say(`Added the user ${name}. Give them a token: sreg-lite token create ${name}`)
      }),
    )
  withTarget(user.command('list'), services)
    .description('list the users')
    .option('--json', 'as JSON')
    .action(
      withApi(services, async (api, options: { json?: boolean }) => {
        const users = await api.call<WireUser[]>('GET', '/v1/users')
        if (options.json === true) return services.print(json(users))
        const rows = users.map((u) => [plain(u.name), u.role, stateOf(u), time(u.createdAt)])
        services.print(table(['NAME', 'ROLE', 'STATE', 'CREATED'], rows))
      }),
    )
  withTarget(user.command('set'), services)
    .description('change what a user is, or whether they are let in')
    .argument('<name>', 'whom')
    .addOption(roleOption())
    .option('--disabled', 'let nobody in with their tokens')
    .addOption(new Option('--enabled', 'let them in again').conflicts('disabled'))
    .action(
      withApi(
        services,
        async (
          api,
          options: { role?: string; disabled?: boolean; enabled?: boolean },
          name = '',
        ) => {
          const { role, enabled } = options
          const disabled = enabled === true ? false : options.disabled
          if (role === undefined && disabled === undefined)
            throw new RegistryError('invalid', 'Say what changes: --role, --disabled or --enabled.')
          const changed = await api.call<WireUser>('PATCH', at(name), { role, disabled })
          services.say(`${name} is ${changed.role}${changed.disabled ? ', disabled' : ''} now.`)
        },
      ),
    )
  withTarget(user.command('remove'), services)
    .description('end an account, and hand over or remove what it owns')
    .argument('<name>', 'whose account')
    .option('--hand-over <user>', 'who gets its entities, collections, robots and teams')
    .addOption(
      new Option(
        '--remove-everything',
        'delete its entities with all images, and its robots',
      ).conflicts('handOver'),
    )
    .addHelpText('after', '\nThe name stays reserved: see user free.')
    .action(
      withApi(
        services,
        async (api, options: { handOver?: string; removeEverything?: boolean }, name = '') => {
          const { handOver, removeEverything } = options
          if (handOver === undefined && removeEverything !== true)
            throw new RegistryError(
              'invalid',
              'Say what becomes of what they own: --hand-over USER or --remove-everything.',
            )
          const query =
            handOver === undefined ? 'remove=true' : `handOver=${encodeURIComponent(handOver)}`
          await api.call('DELETE', `${at(name)}?${query}`)
          const what = handOver === undefined ? 'What it owned is gone' : `${handOver} has it all`
          services.say(`Ended the account ${name}. ${what}; the name stays reserved.`)
        },
      ),
    )
  withTarget(user.command('free'), services)
    .description('let the name of an ended account be used again')
    .argument('<name>', 'the name')
    .action(
      withApi(services, async (api, _options, name = '') => {
        await api.call('DELETE', `${at(name)}?free=true`)
        services.say(`The name ${name} is free now.`)
      }),
    )
}

function addTokenCommands(program: Command, services: Services): void {
  const token = program.command('token').description('tokens of users')
  withTarget(token.command('create'), services)
    .description('make a token and print it, and only it')
    .argument('[user]', 'whose token (with --server: your own)')
    .option('--name <name>', 'what it is for', 'cli')
    .addOption(
      new Option(
        '--expires <duration>',
        'as 30m, 12h, 90d, 1y (default: 1y, or what is allowed)',
      ).argParser(durationArgument),
    )
    .addOption(
      new Option('--scopes <list>', 'comma-separated (default: pull,push,delete,keys)').argParser(
        scopesArgument,
      ),
    )
    .option('--collection <ref>', 'good for entity/collection only')
    .addOption(
      new Option('--container <ref>', 'good for entity/collection/container only').conflicts(
        'collection',
      ),
    )
    .addHelpText('after', `\nScopes:\n${scopesHelp()}`)
    .action(
      withApi(services, async (api, options: TokenOptions, user?: string) => {
        const { name, expires, scopes, collection, container } = options
        const now = services.clock.now().getTime()
        const made = await api.call<Made>('POST', '/v1/tokens', {
          user,
          name,
          expiresAt: expires === undefined ? undefined : new Date(now + expires).toISOString(),
          scopes: scopes ?? ((container ?? collection) ? boundScopes : undefined),
          collection: collection && withoutPrefix(collection),
          container: container && withoutPrefix(container),
        })
        services.print(`${made.token}\n`)
        const whose = user === undefined ? '' : ` of ${user}`
        services.say(`Token ${made.id}${whose}, valid until ${time(made.expiresAt)}.`)
      }),
    )
  withTarget(token.command('list'), services)
    .description('list the tokens of a user; the tokens themselves are kept nowhere')
    .argument('[user]', 'whose tokens (with --server: your own)')
    .option('--json', 'as JSON')
    .action(
      withApi(services, async (api, options: { json?: boolean }, user?: string) => {
        const path = user === undefined ? '/v1/tokens' : `${at(user)}/tokens`
        const tokens = await api.call<WireToken[]>('GET', path)
        if (options.json === true) return services.print(json(tokens))
        const now = services.clock.now()
        const rows = tokens.map((t) => [
          t.id,
          plain(t.name),
          t.scopes.join(','),
          t.place ?? (t.collectionId === '' ? '' : 'what is gone'),
          time(t.createdAt),
          time(t.expiresAt),
          t.lastUsedAt === null ? 'never' : time(t.lastUsedAt),
          t.revokedAt !== null ? 'revoked' : new Date(t.expiresAt) <= now ? 'expired' : 'valid',
        ])
        const head = ['ID', 'NAME', 'SCOPES', 'BOUND TO', 'CREATED', 'EXPIRES', 'USED', 'STATE']
        services.print(table(head, rows))
      }),
    )
  withTarget(token.command('revoke'), services)
    .description('end a token at once')
    .argument('<id>', 'as token list shows it')
    .action(
      withApi(services, async (api, _options, id = '') => {
        await api.call('DELETE', `/v1/tokens/${encodeURIComponent(id)}`)
        services.say(`Revoked the token ${id}.`)
      }),
    )
}

type TokenOptions = {
  name: string
  expires?: number
  scopes?: Scope[]
  collection?: string
  container?: string
}
/** Keys have no place, so a bound token could not change them. */
const boundScopes: Scope[] = ['pull', 'push', 'delete']

function addRobotCommands(program: Command, services: Services): void {
  const robot = program.command('robot').description('accounts of programs, which own nothing')
  withTarget(robot.command('add'), services)
    .description('add a robot that you manage')
    .argument('<name>', 'as that of a user')
    .action(
      withApi(services, async (api, _options, name = '') => {
        await api.call('POST', '/v1/robots', { name })
        services.say(
          `Added the robot ${name}. Grant it something, and give it a token: sreg-lite token create ${name}`,
        )
      }),
    )
  withTarget(robot.command('list'), services)
    .description('list your robots; all of them for administrators')
    .option('--json', 'as JSON')
    .action(
      withApi(services, async (api, options: { json?: boolean }) => {
        const robots = await api.call<WireUser[]>('GET', '/v1/robots')
        if (options.json === true) return services.print(json(robots))
        const rows = robots.map((r) => [
          plain(r.name),
          r.manager ?? '',
          stateOf(r),
          time(r.createdAt),
        ])
        services.print(table(['NAME', 'MANAGER', 'STATE', 'CREATED'], rows))
      }),
    )
  withTarget(robot.command('remove'), services)
    .description('end a robot and its tokens')
    .argument('<name>', 'which')
    .action(
      withApi(services, async (api, _options, name = '') => {
        await api.call('DELETE', `/v1/robots/${encodeURIComponent(name)}`)
        services.say(`Removed the robot ${name}.`)
      }),
    )
}
