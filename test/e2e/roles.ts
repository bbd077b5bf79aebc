/**
 * Who may do what, as people with the real client meet it: grants, teams, frozen tags, narrow tokens,
 * robots, and what a refusal says on the terminal. A function of a factory, as suite.ts.
 */
import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { SCOPES } from '../../src/core/model.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { expectData } from '../protocol/answers.ts'
import { libraryClient, sha256, type LibraryClient } from '../protocol/client.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { makeClient, removeFolder, type Client, type Outcome } from './apptainer.ts'
import { describeWithClient, expectRefusal, expectSuccess } from './suite.ts'

const ABSENT = 'image does not exist in the library'
const APP = 'alice/lab/app'

export function describeRoles(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describeWithClient(`${name}: roles with the real client`, () => {
    let folder = ''
    let target: Target
    /** Alice's own API: everything below is in her entity. */
    let api: LibraryClient
    let alice: Client
    let bob: Client
    let stranger: Client

    /** A client that holds the token. */
    const holding = async (label: string, jwt: string) => {
      const client = await makeClient(join(folder, label))
      expectSuccess(await client.connect(target.url, jwt))
      return client
    }
    const clientOf = async (user: string) => holding(user, (await target.mint(user)).jwt)
    const grant = async (to: { user: string } | { team: string }, level: string) =>
      expectData(await api.call('PUT', '/v1/grants', { ref: 'alice/lab', ...to, level }))
    const image = (words: string) => sampleSif({ content: words })
    const push = async (client: Client, ref: string, words: string) => {
      const file = join(folder, 'pushed.sif')
      await writeFile(file, image(words))
      return client.run(['push', '-U', file, `library://${ref}`])
    }
    const pull = (client: Client, ref: string) => client.pull([`library://${ref}`])
    const remove = (client: Client, ref: string) =>
      client.run(['delete', '--force', `library://${ref}`])
    const expectPull = async (client: Client, ref: string, words: string) => {
      const pulled = await pull(client, ref)
      expectSuccess(pulled)
      expect(pulled.sha256).toBe(sha256(image(words)))
    }
    /** Pushed by the client, and so pulled by the owner. */
    const expectPush = async (client: Client, ref: string, words: string) => {
      expectSuccess(await push(client, ref, words))
      await expectPull(alice, ref, words)
    }
    /** R26: of a place that is hidden the terminal says what it says of one that does not exist. */
    const expectAlike = async (
      work: (ref: string) => Promise<Outcome>,
      [place, hidden, absent]: readonly [string, string, string],
      sentence: string,
    ) => {
      const of = (word: string) => work(place.replace('*', word))
      const [first, second] = [await of(hidden), await of(absent)]
      expectRefusal(first, sentence)
      expect(first.terminal).toBe(second.terminal.replaceAll(absent, hidden))
    }
    const expectStranger = async (client: Client) => {
      const refused = await pull(client, APP)
      expectRefusal(refused, `${ABSENT}: ${APP}`)
      expect(refused.sha256).toBeNull()
      expectRefusal(await push(client, APP, 'from outside'), 'You may not create anything in')
      expectRefusal(await remove(client, APP), "couldn't delete requested image: not found")
      await expectPull(alice, APP, 'first')
    }

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'sreg-e2e-'))
      target = await makeTarget()
      const { jwt } = await target.mint('alice', { scopes: [...SCOPES] })
      api = libraryClient(target.url, jwt)
      await api.push(APP, image('first'), { privateCollection: true })
      alice = await holding('alice', jwt)
      ;[bob, stranger] = await Promise.all([clientOf('bob'), clientOf('stranger')])
    }, 120_000)

    afterAll(async () => {
      await target?.stop()
      await removeFolder(folder)
    })

    test('a contributor pushes and pulls, from the grant to its end, and never deletes', async () => {
      await expectStranger(bob)
      await grant({ user: 'bob' }, 'contributor')
      await expectPull(bob, APP, 'first')
      await expectPush(bob, `${APP}:bob`, 'a new tag')
      await expectPush(bob, `${APP}:bob`, 'the tag moves')
      await expectPush(bob, 'alice/lab/of-bob', 'a new container')
      expectRefusal(await remove(bob, 'alice/lab/of-bob'), 'You may not delete from')
      await expectPull(alice, 'alice/lab/of-bob', 'a new container')
      expectRefusal(
        await push(bob, 'alice/bobs/app', 'elsewhere'),
        'You may not create anything in the entity alice',
      )
      await grant({ user: 'bob' }, 'none')
      await expectStranger(bob)
      expectRefusal(await pull(bob, 'alice/lab/of-bob'), ABSENT)

      expectSuccess(await remove(alice, 'alice/lab/of-bob'))
      expectRefusal(await pull(alice, 'alice/lab/of-bob'), ABSENT)
    })

    test('a reader pulls, and is told why nothing goes up', async () => {
      const carol = await clientOf('carol')
      await grant({ user: 'carol' }, 'reader')
      await expectPull(carol, APP, 'first')
      for (const ref of [APP, `${APP}:new`])
        expectRefusal(
          await push(carol, ref, 'not to be'),
          `You may not push to ${APP}: it belongs to somebody else.`,
        )
      expectRefusal(
        await push(carol, 'alice/lab/new', 'not to be'),
        'You may not create anything in the collection alice/lab',
      )
      expectRefusal(await remove(carol, APP), `You may not delete from ${APP}`)
      await expectPull(carol, APP, 'first')
    })

    test('a member of a team is a contributor until they are out', async () => {
      const token = await target.mint('erin')
      const erin = await holding('erin', token.jwt)
      expectData(await api.call('POST', '/v1/teams', { name: 'crew' }))
      await grant({ team: 'crew' }, 'contributor')
      await expectStranger(erin)
      const { secret } = expectData(await api.call('POST', '/v1/teams/crew/invitations'))
      const erins = libraryClient(target.url, token.jwt)
      expectData(await erins.call('POST', '/v1/invitations', { secret }))
      await expectPull(erin, APP, 'first')
      await expectPush(erin, `${APP}:erin`, 'pushed by the team')
      expectData(await api.call('DELETE', '/v1/teams/crew/members/erin'))
      await expectStranger(erin)
    })

    test('a frozen tag cannot be moved, a new one can', async () => {
      await grant({ user: 'bob' }, 'contributor')
      await expectPush(alice, 'alice/lab/paper:v1', 'published')
      const freeze = async (ref: string, frozen: boolean) =>
        expectData(await api.call('PUT', '/v1/frozen', { ref, frozen }))
      for (const [ref, next] of [
        ['alice/lab/paper:v1', 'v2'],
        ['alice/lab/paper', 'v3'],
      ] as const) {
        await freeze(ref, true)
        for (const client of [bob, alice])
          expectRefusal(
            await push(client, 'alice/lab/paper:v1', `revised, ${next}`),
            'The tag v1 is frozen here and names another image: push with another tag, or ask its owner to thaw it.',
          )
        await expectPull(alice, 'alice/lab/paper:v1', 'published')
        expectSuccess(await push(bob, 'alice/lab/paper:v1', 'published'))
        await expectPush(bob, `alice/lab/paper:${next}`, `revised, ${next}`)
        expectRefusal(await remove(alice, 'alice/lab/paper:v1'), 'frozen')
        await freeze(ref, false)
      }
      await expectPush(bob, 'alice/lab/paper:v1', 'revised at last')
    })

    test('a token that is revoked is refused at the next request', async () => {
      const token = await target.mint('alice')
      const client = await holding('revoked', token.jwt)
      await expectPull(client, APP, 'first')
      expectSuccess(await client.run(['remote', 'status']))
      await target.revoke(token.id)
      const words = 'This token has been revoked or has expired'
      expectRefusal(await push(client, APP, 'too late'), words)
      const pulled = await pull(client, APP)
      expectRefusal(pulled, words)
      expect(pulled.sha256).toBeNull()
      expectRefusal(await client.run(['remote', 'status']), 'Invalid Credentials')
      await expectPull(alice, APP, 'first')
    })

    test('a token that is bound to a container works there, and nowhere else (R14)', async () => {
      await expectPush(alice, 'alice/lab/bound', 'by hand')
      const scopes = ['pull', 'push', 'delete']
      const body = { name: 'ci', scopes, container: 'alice/lab/bound' }
      const { token } = expectData(await api.call('POST', '/v1/tokens', body))
      const client = await holding('bound', token as string)
      await expectPull(client, 'alice/lab/bound', 'by hand')
      await expectPush(client, 'alice/lab/bound', 'by a job')
      await expectPush(client, 'alice/lab/bound:nightly', 'by a job at night')
      expectRefusal(await pull(client, APP), `${ABSENT}: ${APP}`)
      for (const ref of [APP, 'alice/lab/unheard-of', 'alice/other/app'])
        expectRefusal(await push(client, ref, 'astray'), 'your token is bound to another place')
      expectRefusal(await remove(client, APP), "couldn't delete requested image: not found")
      expectSuccess(await remove(client, 'alice/lab/bound:nightly'))
      await expectPull(alice, APP, 'first')
    })

    test('a robot does what it was granted, until it is gone', async () => {
      expectData(await api.call('POST', '/v1/robots', { name: 'alice-ci' }))
      const body = { user: 'alice-ci', name: 'job', scopes: ['pull', 'push'] }
      const { token } = expectData(await api.call('POST', '/v1/tokens', body))
      const robot = await holding('robot', token as string)
      expectRefusal(await pull(robot, APP), ABSENT)
      await grant({ user: 'alice-ci' }, 'contributor')
      const { terminal } = await robot.run(['remote', 'status'])
      expect(terminal).toContain('Logged in as: alice-ci <')
      await expectPull(robot, APP, 'first')
      await expectPush(robot, `${APP}:robot`, 'made by a robot')
      expectRefusal(
        await push(robot, 'alice-ci/own/app', 'a home'),
        'You may not create anything in the entity alice-ci',
      )
      expectData(await api.call('DELETE', '/v1/robots/alice-ci'))
      for (const refused of [await pull(robot, APP), await push(robot, APP, 'from the grave')])
        expectRefusal(refused, 'This token has been revoked or has expired')
    })

    test('what is private looks absent to a stranger, up and down (R26)', async () => {
      const dora = libraryClient(target.url, (await target.mint('dora')).jwt)
      await dora.push('dora/c/app', image('of hers'), { privateCollection: true })
      await api.push('alice/open/hidden', image('in the open'), { privateContainer: true })
      for (const [place, sentence] of [
        [['*/c/app', 'dora', 'zelda'], 'You may not create anything in the entity dora'],
        [['alice/*/app', 'lab', 'unheard'], 'You may not create anything in the entity alice'],
        [['alice/lab/*', 'app', 'unheard'], 'You may not create anything in the entity alice'],
        [['alice/open/*', 'hidden', 'unheard'], 'create anything in the collection alice/open'],
      ] as const) {
        await expectAlike((ref) => pull(stranger, ref), place, ABSENT)
        await expectAlike((ref) => push(stranger, ref, 'a guess'), place, sentence)
        const gone = "couldn't delete requested image: not found"
        await expectAlike((ref) => remove(stranger, ref), place, gone)
      }
    })

    test('a registry that is read-only says so, and serves', async () => {
      await target.stop({ keep: true })
      target = await makeTarget({ data: target.data, env: { SREG_READ_ONLY: 'on' } })
      const client = await holding('read-only', api.token ?? '')
      const sentence = 'This registry is read-only for now (SREG_READ_ONLY)'
      for (const ref of [APP, `${APP}:new`, 'alice/new/app'])
        expectRefusal(await push(client, ref, 'not now'), sentence)
      expectRefusal(await remove(client, APP), sentence)
      await expectPull(client, APP, 'first')
    }, 60_000)
  })
}
