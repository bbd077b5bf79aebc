/**
 * Teams, invitations, grants, privacy by owners, freezing and deletion over HTTP: rights come and go
 * with the next request (R25), and what is hidden looks absent (R26).
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SCOPES } from '../../src/core/model.ts'
import { sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectData, expectRefusal } from './answers.ts'
import { libraryClient, type LibraryClient } from './client.ts'

/** Past the time within which a server learns of ended tickets (R25). */
const ENDED_MS = 1500
/** An image just large enough to be handed out by ticket. */
const LARGE = 16 * 1024 * 1024

export function describeTeams(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
  /** Why tickets outlive the right to read on this runtime. */
  ticketsStay?: string,
): void {
  describe(`${name}: teams and grants`, () => {
    let target: Target
    let alice: LibraryClient
    let bob: LibraryClient
    let carol: LibraryClient
    let boss: LibraryClient
    const clientOf = async (user: string, options: Parameters<Target['mint']>[1] = {}) =>
      libraryClient(target.url, (await target.mint(user, options)).jwt)
    const grant = (ref: string, to: object, level: string, who = alice) =>
      who.call('PUT', '/v1/grants', { ref, ...to, level })

    beforeAll(async () => {
      target = await makeTarget()
      const scopes = [...SCOPES]
      alice = await clientOf('alice', { scopes })
      bob = await clientOf('bob', { scopes })
      carol = await clientOf('carol', { scopes })
      boss = await clientOf('boss', { scopes, admin: true })
    })
    afterAll(() => target.stop())

    test('a member comes by invitation, pulls and pushes, and loses all of it at once', async () => {
      const bytes = new Uint8Array(LARGE)
      bytes.set(sampleSif({ content: 'secret needle' }))
      await alice.push('alice/lab/needle', bytes, { privateCollection: true })
      expectData(await alice.call('POST', '/v1/teams', { name: 'lab', description: 'us' }))
      expectRefusal(await bob.call('POST', '/v1/teams', { name: 'lab' }), 409, /taken/)
      expectRefusal(await bob.call('GET', '/v1/teams/lab'), 404, /no such team/)
      expectRefusal(await bob.call('POST', '/v1/teams/lab/join'), 404, /no such team/)
      expectData(await grant('alice/lab', { team: 'lab' }, 'contributor'))
      expectRefusal(await grant('alice/lab', { team: 'lab' }, 'reader', bob), 404, /./)

      const made = (await alice.call('POST', '/v1/teams/lab/invitations')).json.data
      expect(made.secret).toMatch(/^[0-9a-f]{32}$/)
      const listed = await alice.call('GET', '/v1/teams/lab/invitations')
      expect(listed.json.data).toMatchObject([{ id: made.id, createdBy: 'alice' }])
      expect(listed.text).not.toContain(made.secret)
      const accept = (who: LibraryClient) =>
        who.call('POST', '/v1/invitations', { secret: made.secret })
      const raced = await Promise.all([accept(bob), accept(carol)])
      expect(raced.map(({ status }) => status).toSorted()).toEqual([200, 404])
      const [member, other] = raced[0].status === 200 ? [bob, carol] : [carol, bob]
      const memberName = member === bob ? 'bob' : 'carol'
      expectRefusal(await accept(other), 404, /used, was withdrawn/)

      const reads = async (who: LibraryClient) => [
        (await who.call('GET', '/v1/images/alice/lab/needle:latest')).status,
        (await who.call('GET', '/v1/collections/alice/lab')).status,
        (await who.call('GET', '/v1/search?value=needle')).json.data.image.length,
        (await who.call('GET', '/v1/entities/alice')).json.data?.collections.length ?? 0,
      ]
      expect(await reads(member)).toEqual([200, 200, 1, 1])
      expect(await reads(other)).toEqual([404, 404, 0, 0])
      await member.push('alice/lab/theirs', sampleSif({ content: 'pushed by a member' }))
      await expect(
        other.push('alice/lab/theirs', sampleSif({ content: 'pushed by a stranger' })),
      ).rejects.toThrow(/40[34]/)
      const shown = (await member.call('GET', '/v1/teams/lab')).json.data
      expect(shown).toMatchObject({ role: 'member', members: [{}, {}] })
      const redirect = await member.call('GET', '/v1/imagefile/alice/lab/needle:latest')
      const url = redirect.headers.get('location') ?? ''
      const fetched = async (at: string) =>
        (await libraryClient(target.url).call('HEAD', at)).status
      expect(redirect.status).toBe(303)
      expect(await fetched(url)).toBe(200)

      const at = `/v1/teams/lab/members/${memberName}`
      expectRefusal(await other.call('DELETE', at), 404, /no such team/)
      expectData(await alice.call('DELETE', at))
      expect(await reads(member)).toEqual([404, 404, 0, 0])
      expect((await member.call('GET', '/v1/imagefile/alice/lab/needle:latest')).status).toBe(404)
      await expect(
        member.push('alice/lab/theirs', sampleSif({ content: 'too late' })),
      ).rejects.toThrow(/40[34]/)
      if (ticketsStay === undefined) {
        await new Promise((resolve) => setTimeout(resolve, ENDED_MS))
        expect(await fetched(url)).toBe(403)
        const own = await alice.call('GET', '/v1/imagefile/alice/lab/needle:latest')
        expect(await fetched(own.headers.get('location') ?? '')).toBe(200)
      }
    })

    test('a team keeps an owner; open teams are seen and joined by everybody', async () => {
      expectData(await alice.call('POST', '/v1/teams', { name: 'club', open: true }))
      expectRefusal(await alice.call('DELETE', '/v1/teams/club/members/alice'), 409, /owner/)
      expectRefusal(
        await alice.call('PUT', '/v1/teams/club/members/alice', { owner: false }),
        409,
        /owner/,
      )
      expect((await bob.call('GET', '/v1/teams/club')).json.data.members).toBeNull()
      expectRefusal(await bob.call('PATCH', '/v1/teams/club', { open: false }), 403, /owners/)
      expectData(await bob.call('POST', '/v1/teams/club/join'))
      expectRefusal(
        await bob.call('PUT', '/v1/teams/club/members/bob', { owner: true }),
        403,
        /owners/,
      )
      expectData(await alice.call('PUT', '/v1/teams/club/members/bob', { owner: true }))
      expectData(await alice.call('DELETE', '/v1/teams/club/members/alice'))
      expectRefusal(await alice.call('DELETE', '/v1/teams/club'), 403, /owners/)
      expectData(await boss.call('PATCH', '/v1/teams/club', { open: false }))
      expectRefusal(await carol.call('GET', '/v1/teams/club'), 404, /no such team/)
      const plain = await clientOf('bob')
      expectRefusal(await plain.call('DELETE', '/v1/teams/club'), 403, /scope/)
      expectData(await bob.call('DELETE', '/v1/teams/club'))
      for (const [body, words] of [
        [{ name: 'Lab' }, /lower-case/],
        [{}, /name/],
        [{ name: 'x', opne: true }, /opne/],
      ] as const)
        expectRefusal(await alice.call('POST', '/v1/teams', body), 400, words)
    })

    test('owners show and hide what is theirs, readers do not', async () => {
      await alice.push('alice/open/box', sampleSif({ content: 'box' }))
      expectData(await grant('alice/open', { user: 'bob' }, 'reader'))
      const set = (who: LibraryClient, value: boolean, ref = 'alice/open') =>
        who.call('PUT', '/v1/privacy', { ref, private: value })
      const seen = async (who: LibraryClient) =>
        (await who.call('GET', '/v1/containers/alice/open/box')).status
      expectRefusal(await set(bob, true), 403, /may not manage/)
      expectData(await set(alice, true))
      expect([await seen(bob), await seen(carol)]).toEqual([200, 404])
      expectRefusal(await set(carol, false), 404, /no such collection/)
      expectRefusal(await set(carol, false, 'alice/open/box'), 404, /no such container/)
      expectData(await grant('alice/open', { user: 'bob' }, 'owner'))
      expectData(await set(bob, false))
      expect(await seen(carol)).toBe(200)
      expect((await alice.call('GET', '/v1/grants?ref=alice%2Fopen')).json.data).toMatchObject([
        { user: 'bob', team: null, level: 'owner' },
      ])
      for (const body of [
        { ref: 'alice/open', level: 'reader' },
        { ref: 'alice/open', level: 'reader', user: 'bob', team: 'lab' },
        { ref: 'alice/open', level: 'king', user: 'bob' },
      ])
        expectRefusal(await alice.call('PUT', '/v1/grants', body), 400, /./)
    })

    test('nothing becomes public under SREG_PRIVATE_ONLY', async () => {
      const closed = await makeTarget({ env: { SREG_PRIVATE_ONLY: 'on' } })
      try {
        const dora = libraryClient(
          closed.url,
          (await closed.mint('dora', { scopes: [...SCOPES] })).jwt,
        )
        await dora.push('dora/c/box', sampleSif({ content: 'closed' }))
        const shown = await dora.call('PUT', '/v1/privacy', { ref: 'dora/c', private: false })
        expectRefusal(shown, 403, /SREG_PRIVATE_ONLY/)
        expect(
          (await libraryClient(closed.url).call('GET', '/v1/containers/dora/c/box')).status,
        ).toBe(404)
      } finally {
        await closed.stop()
      }
    })

    test('a push cannot move what is frozen, and can add to it', async () => {
      const push = (tag: string, content: string) =>
        alice.push('alice/paper/fig', sampleSif({ content }), { tags: [tag] })
      const { digest } = await push('v1', 'first')
      const freeze = (ref: string, frozen: boolean) =>
        alice.call('PUT', '/v1/frozen', { ref, frozen })
      const at = '/v1/images/alice/paper/fig:v1?arch=amd64'
      for (const ref of ['alice/paper/fig:v1', 'alice/paper/fig']) {
        expectData(await freeze(ref, true))
        await expect(push('v1', `second ${ref}`)).rejects.toThrow(/403.*v1 is frozen/)
        expect((await alice.call('GET', at)).json.data.hash).toBe(`sha256.${digest}`)
        await push('v1', 'first')
        await push(`v${ref.length}`, `new ${ref}`)
        expectRefusal(await alice.call('DELETE', at), 403, /frozen/)
        expectRefusal(await alice.call('DELETE', '/v1/containers/alice/paper/fig'), 403, /frozen/)
        expectRefusal(await alice.call('DELETE', '/v1/collections/alice/paper'), 403, /frozen/)
        const container = await alice.call('GET', '/v1/containers/alice/paper/fig')
        expect(container.json.data.readOnly).toBe(ref === 'alice/paper/fig')
        expectData(await freeze(ref, false))
      }
      await push('v1', 'third')
      expectRefusal(await freeze('alice/paper/fig:none', true), 404, /no such tag/)
      expectRefusal(await freeze(`alice/paper/fig:sha256.${digest}`, true), 400, /hash/)
      expectRefusal(
        await bob.call('PUT', '/v1/frozen', { ref: 'alice/paper/fig', frozen: true }),
        403,
        /may not manage/,
      )
      expectData(await alice.call('DELETE', '/v1/containers/alice/paper/fig'))
      expect((await alice.call('GET', at)).status).toBe(404)
      expectData(await alice.call('DELETE', '/v1/collections/alice/paper'))
      expectRefusal(await alice.call('DELETE', '/v1/collections/alice/paper'), 404, /no such/)
      await push('v1', 'again')
    })
  })
}
