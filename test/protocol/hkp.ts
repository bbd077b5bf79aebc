/**
 * The keystore over HTTP: what Apptainer, gpg and people ask of a keyserver (apptainer-wire.md §4,
 * protocol.md §7), and whose keys are (R46).
 */
import { readKey, readKeys } from 'openpgp'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { clearSign, makeKey, revoked, type MadeKey } from '../fixtures/make-key.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectAlike, expectData, expectRefusal } from './answers.ts'
import { libraryClient, type Answer, type LibraryClient } from './client.ts'

const lookup = (client: LibraryClient, query: Record<string, string>, method = 'GET') =>
  client.call(method, `/pks/lookup?${new URLSearchParams(query).toString()}`)
const get = (client: LibraryClient, search: string) =>
  lookup(client, { op: 'get', exact: 'on', search })
const index = (client: LibraryClient, search: string, more: Record<string, string> = {}) =>
  lookup(client, { op: 'index', options: 'mr', fingerprint: 'on', search, ...more })
const add = (client: LibraryClient, keytext: string) =>
  client.call('POST', '/pks/add', new URLSearchParams({ keytext }).toString(), {
    'content-type': 'application/x-www-form-urlencoded',
  })

/** One short line of plain text, which clients print as it is. */
function expectReceived(answer: Answer, ...keys: MadeKey[]): void {
  expect(answer.status, answer.text).toBe(200)
  expect(answer.headers.get('content-type')).toMatch(/^text\/plain/)
  expect(answer.text).toMatch(/^Received the keys? [0-9A-F, ]+\n$/)
  for (const { fingerprint } of keys) expect(answer.text).toContain(fingerprint)
}

/** The fingerprints of the keys in an answer to `get`. */
async function expectKeys(answer: Answer, ...keys: { fingerprint: string }[]): Promise<void> {
  expect(answer.status, answer.text).toBe(200)
  expect(answer.headers.get('content-type')).toBe('application/pgp-keys')
  // clients read one armor
  expect(answer.text.match(/-----BEGIN/g)).toHaveLength(1)
  const read = await readKeys({ armoredKeys: answer.text })
  expect(read.map((key) => key.getFingerprint().toUpperCase())).toEqual(
    keys.map(({ fingerprint }) => fingerprint),
  )
}

const pubs = (answer: Answer) => {
  expect(answer.status, answer.text).toBe(200)
  expect(answer.headers.get('content-type')).toMatch(/^text\/plain/)
  const lines = answer.text.split('\n')
  const found = lines.filter((line) => line.startsWith('pub:')).map((line) => line.split(':')[1])
  expect(lines[0]).toBe(`info:1:${found.length}`)
  return found
}

const join = (...armors: string[]) => armors.join('\n')

/** The suite. `makeTarget` makes one fresh registry per call, which the suite stops. */
export function describeKeystore(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`${name}: keystore`, () => {
    describe('as it is by itself', () => {
      let target: Target
      let alice: LibraryClient
      let mallory: LibraryClient
      let admin: LibraryClient
      let nobody: LibraryClient
      const as = async (user: string, options: Parameters<Target['mint']>[1] = {}) =>
        libraryClient(target.url, (await target.mint(user, options)).jwt)

      beforeAll(async () => {
        target = await makeTarget()
        alice = await as('alice')
        mallory = await as('mallory')
        admin = await as('boss', { admin: true, scopes: ['admin'] })
        nobody = libraryClient(target.url)
      })
      afterAll(() => target.stop())

      test('a key that is not there: 404 with a sentence, for every operation', async () => {
        for (const op of ['get', 'index', 'vindex'])
          for (const search of ['0x0123456789abcdef', 'nobody at all', 'nobody@example.org']) {
            const answer = await lookup(nobody, { op, search })
            expectRefusal(answer, 404, /No key found/)
            expect(answer.headers.get('access-control-allow-origin')).toBe('*')
          }
      })

      test('an added key is found by every name of it, by everybody', async () => {
        const key = await makeKey('Ada Lovelace', { email: 'Ada@Example.org', signingSubkey: true })
        expectReceived(await add(alice, key.armor), key)
        const names = [key.fingerprint, ...key.subkeys].flatMap((fingerprint) =>
          [40, 16, 8].map((length) => fingerprint.slice(-length)),
        )
        for (const client of [nobody, alice, mallory])
          for (const hex of names)
            await expectKeys(await get(client, `0x${hex.toLowerCase()}`), key)
        await expectKeys(await get(nobody, `0x${key.fingerprint}`), key)
        await expectKeys(await get(nobody, key.fingerprint.toLowerCase()), key)
        await expectKeys(await get(nobody, 'ada@example.org'), key)
        for (const text of ['lovelace', 'ADA LOVE', '<ada@', 'ada@example.org'])
          expect([text, pubs(await index(nobody, text))]).toEqual([text, [key.fingerprint]])
        const whole = 'ada lovelace <ada@example.org>'
        expect(pubs(await index(nobody, whole, { exact: 'on' }))).toEqual([key.fingerprint])
        expectRefusal(await index(nobody, 'lovelace', { exact: 'on' }), 404)
        // an empty bearer is nobody: logged-out Apptainer sends it
        const empty = { authorization: 'Bearer ' }
        const path = `/pks/lookup?op=get&search=0x${key.fingerprint}`
        await expectKeys(await nobody.call('GET', path, undefined, empty), key)
      })

      test('the index: algorithm, bits, times and user ids of the key', async () => {
        const key = await makeKey('Index: 100% + <Test>', { email: 'index@example.org' })
        await add(alice, key.armor)
        const answer = await index(nobody, `0x${key.fingerprint}`)
        const made = Math.floor(
          (await readKey({ armoredKey: key.armor })).getCreationTime().getTime() / 1000,
        )
        expect(answer.text).toBe(
          `info:1:1\npub:${key.fingerprint}:27:256:${made}::\n` +
            `uid:Index%3A%20100%25%20%2B%20%3CTest%3E%20%3Cindex%40example.org%3E:${made}::\n`,
        )
        expect(answer.headers.get('x-hkp-next-page-token')).toBeNull()
      })

      test('a key id whose first digit is 0, as Go prints it', async () => {
        let key = await makeKey('Zero')
        while (key.fingerprint[24] !== '0') key = await makeKey('Zero')
        await add(alice, key.armor)
        const keyId = key.fingerprint.slice(-16).toLowerCase().replace(/^0+/, '')
        await expectKeys(await get(nobody, `0x${keyId}`), key)
      })

      test('a page for people: escaped, without a script', async () => {
        const key = await makeKey('<img src=x onerror=alert(1)>', { email: 'html@example.org' })
        await add(alice, key.armor)
        for (const op of ['index', 'vindex']) {
          const answer = await lookup(nobody, { op, search: 'html@example.org' })
          expect(answer.status).toBe(200)
          expect(answer.headers.get('content-type')).toMatch(/^text\/html/)
          expect(answer.headers.get('content-security-policy')).toMatch(/default-src 'none'/)
          expect(answer.text).toContain('&lt;img src=x')
          expect(answer.text).not.toMatch(/<img|<script/)
          expect(answer.text).toContain(key.fingerprint)
          expect(answer.text.includes(key.subkeys[0]?.slice(-16) ?? '?')).toBe(op === 'vindex')
        }
      })

      test('HEAD is GET without a body, and pages of anywhere may ask', async () => {
        const key = await makeKey('Head')
        await add(alice, key.armor)
        for (const op of ['get', 'index']) {
          const search = `0x${key.fingerprint}`
          const [head, full] = [
            await lookup(nobody, { op, options: 'mr', search }, 'HEAD'),
            await lookup(nobody, { op, options: 'mr', search }),
          ]
          expect([head.status, head.text]).toEqual([200, ''])
          expect(head.headers.get('content-type')).toBe(full.headers.get('content-type'))
          for (const { headers } of [head, full])
            expect(headers.get('access-control-allow-origin')).toBe('*')
        }
        expect((await lookup(nobody, { op: 'get', search: '0x00112233' }, 'HEAD')).status).toBe(404)
      })

      test('several keys in one armor, and in one answer', async () => {
        const keys = [
          await makeKey('First of two', { email: 'two@example.org' }),
          await makeKey('Second of two', { email: 'two@example.org' }),
        ]
        expectReceived(await add(alice, join(...keys.map(({ armor }) => armor))), ...keys)
        await expectKeys(await get(nobody, 'two@example.org'), ...keys)
        expect(pubs(await index(nobody, 'of two'))).toEqual(keys.map((key) => key.fingerprint))
      })

      test('pages: x-pagesize, X-HKP-Next-Page-Token, x-pagetoken', async () => {
        const keys: MadeKey[] = []
        for (const n of [1, 2, 3, 4, 5])
          keys.push(await makeKey(`Paged ${n}`, { email: 'paged@example.org' }))
        await add(alice, join(...keys.map(({ armor }) => armor)))
        for (const search of ['paged@example.org', 'Paged'])
          for (const size of ['1', '2', '5']) {
            const seen: (string | undefined)[] = []
            let token: string | null = ''
            for (let pages = 0; token !== null && pages < 9; pages++) {
              const more: Record<string, string> = token === '' ? {} : { 'x-pagetoken': token }
              const page: Answer = await index(nobody, search, { 'x-pagesize': size, ...more })
              seen.push(...pubs(page))
              token = page.headers.get('x-hkp-next-page-token')
            }
            expect(seen).toEqual(keys.map(({ fingerprint }) => fingerprint))
          }
      })

      test('version 6 keys: 64 digits', async () => {
        const key = await makeKey('Version Six', { v6: true })
        expect(key.fingerprint).toHaveLength(64)
        expectReceived(await add(alice, key.armor), key)
        await expectKeys(await get(nobody, `0x${key.fingerprint}`), key)
        await expectKeys(await get(nobody, `0x${key.fingerprint.slice(0, 16)}`), key)
        expect(pubs(await index(nobody, 'Version Six'))).toEqual([key.fingerprint])
      })

      test('who may add: a token with the scope keys that stands', async () => {
        const key = await makeKey('Refused')
        expectRefusal(await add(nobody, key.armor), 401, /log in first/)
        const pull = await as('alice', { scopes: ['pull', 'push'] })
        expectRefusal(await add(pull, key.armor), 403, /keys/)
        const { jwt, id } = await target.mint('alice')
        await target.revoke(id)
        expectRefusal(await add(libraryClient(target.url, jwt), key.armor), 401)
        expectRefusal(await add(libraryClient(target.url, 'nonsense'), key.armor), 401)
        expectRefusal(await get(nobody, `0x${key.fingerprint}`), 404)
      })

      test('what is no public key is refused with a sentence, and a secret key is not shown', async () => {
        const key = await makeKey('Secret')
        for (const text of ['', ' ', 'no key', '<html>', '-----BEGIN PGP PUBLIC KEY BLOCK-----'])
          expectRefusal(await add(alice, text), 400)
        expectRefusal(await alice.call('POST', '/pks/add', 'x=y'), 400)
        expectRefusal(await alice.call('POST', '/pks/add'), 400)
        const sentence = expectRefusal(await add(alice, key.secret.armor()), 400, /secret key/)
        expect(sentence).not.toContain(key.secret.armor().slice(60, 100))
        expectRefusal(await add(alice, key.armor.slice(0, key.armor.length / 2)), 400)
        expectRefusal(await add(alice, 'x'.repeat(1_600_000)), 413)
        expectRefusal(await get(nobody, `0x${key.fingerprint}`), 404)
      })

      test('what cannot be looked for: 400, 501 and 405 with a sentence', async () => {
        expectRefusal(await lookup(nobody, { search: 'alice' }), 400, /op=get/)
        expectRefusal(await lookup(nobody, { op: 'get' }), 400, /search/)
        expectRefusal(await index(nobody, 'ab'), 400, /3 characters/)
        expectRefusal(await get(nobody, '0x12345678901234567'), 400, /digits/)
        expectRefusal(await index(nobody, 'alice', { 'x-pagesize': '0' }), 400)
        expectRefusal(await index(nobody, 'alice', { 'x-pagetoken': 'x' }), 400)
        expectRefusal(await lookup(nobody, { op: 'stats' }), 501)
        expectRefusal(await nobody.call('POST', '/pks/lookup'), 405)
        expectRefusal(await nobody.call('GET', '/pks/add'), 405)
        expectRefusal(await nobody.call('GET', '/pks/hashquery'), 404)
      })

      test('a revocation is merged from anybody, and stays (R46)', async () => {
        const key = await makeKey('Revoked')
        await add(alice, key.armor)
        const flags = async () =>
          /^pub:.*:([a-z]*)$/m.exec((await index(nobody, `0x${key.fingerprint}`)).text)?.[1]
        expect(await flags()).toBe('')
        expectReceived(await add(mallory, await revoked(key)), key)
        expect(await flags()).toBe('r')
        expectReceived(await add(alice, key.armor), key)
        expect(await flags()).toBe('r')
        const received = await readKey({
          armoredKey: (await get(nobody, `0x${key.fingerprint}`)).text,
        })
        expect(await received.isRevoked()).toBe(true)
      })

      test('fifty people add at once: all are stored, or told to come again (R53)', async () => {
        const keys = await Promise.all(Array.from({ length: 50 }, (_, i) => makeKey(`Crowd ${i}`)))
        const answers = await Promise.all(keys.map(({ armor }) => add(alice, armor)))
        let stored = 0
        for (const [i, answer] of answers.entries()) {
          const { status } = await get(nobody, `0x${keys[i]?.fingerprint}`)
          if (answer.status === 200) stored += 1
          else {
            expectRefusal(answer, 429, /busy/)
            expect(answer.headers.get('retry-after')).toMatch(/^\d+$/)
          }
          expect(status).toBe(answer.status === 200 ? 200 : 404)
        }
        expect(stored).toBeGreaterThanOrEqual(10)
      })

      describe('owners', () => {
        const at = (key: MadeKey, rest = '') => `/v1/keys/${key.fingerprint}${rest}`
        const challenge = async (client: LibraryClient, key: MadeKey): Promise<string> =>
          expectData(await client.call('POST', at(key, '/challenge'))).challenge
        const handIn = (client: LibraryClient, key: MadeKey, signed: string) =>
          client.call('POST', at(key, '/claim'), { signed })
        const claim = async (client: LibraryClient, key: MadeKey, signer = key) =>
          handIn(client, key, await clearSign(await challenge(client, key), signer))
        const owned = async (client: LibraryClient) =>
          (expectData(await client.call('GET', '/v1/keys')).keys as { fingerprint: string }[]).map(
            ({ fingerprint }) => fingerprint,
          )

        test("a key is nobody's until somebody signs for it, whoever has sent it", async () => {
          const key = await makeKey('Claimed')
          await add(mallory, key.armor)
          expect(expectData(await nobody.call('GET', at(key)))).toMatchObject({
            fingerprint: key.fingerprint,
            claimed: false,
            owner: null,
            userIds: [{ text: 'Claimed <Claimed@example.org>', email: 'claimed@example.org' }],
            revoked: false,
          })
          expect(await owned(mallory)).not.toContain(key.fingerprint)
          expectRefusal(await mallory.call('DELETE', at(key)), 403, /claim/)
          expect(expectData(await claim(alice, key))).toMatchObject({
            claimed: true,
            owner: 'alice',
          })
          expect(await owned(alice)).toContain(key.fingerprint)
          // whose account it is, its owner and administrators know
          for (const [client, owner] of [
            [nobody, null],
            [mallory, null],
            [alice, 'alice'],
            [admin, 'alice'],
          ] as const)
            expect(expectData(await client.call('GET', at(key)))).toMatchObject({
              claimed: true,
              owner,
            })
        })

        test('a claim needs the key itself, and a challenge for this key and account', async () => {
          const key = await makeKey('Wanted')
          const other = await makeKey('Other')
          await add(alice, join(key.armor, other.armor))
          expectRefusal(await claim(mallory, key, other), 403, /no good signature/)
          // mallory hands in what alice has signed
          const signed = await clearSign(await challenge(alice, key), key)
          expectRefusal(await handIn(mallory, key, signed), 403, /another key or account/)
          expectRefusal(await handIn(alice, other, signed), 403, /another key or account/)
          // text around a ticket that is right
          const text = await challenge(alice, key)
          const wrapped = await clearSign(`${text}\nand everything else`, key)
          expectRefusal(await handIn(alice, key, wrapped), 403)
          expectRefusal(await handIn(alice, key, signed.replace('I hold', 'I held')), 403)
          const forged = text.replace(/claim .{9}/, 'claim AAAAAAAAA')
          expectRefusal(await handIn(alice, key, await clearSign(forged, key)), 403)
          for (const none of ['', 'nothing signed', text, await clearSign('good morning', key)])
            expectRefusal(await handIn(alice, key, none), 400, /clear-signed/)
          expect(expectData(await nobody.call('GET', at(key)))).toMatchObject({ claimed: false })
          expectData(await handIn(alice, key, signed))
          // who signs later has it then
          expectData(await claim(mallory, key))
          expect(await owned(alice)).not.toContain(key.fingerprint)
        })

        test('a key of a signing subkey is claimed with it; a revoked one by nobody', async () => {
          const key = await makeKey('Subkey', { signingSubkey: true })
          await add(alice, key.armor)
          expectData(await claim(alice, key))
          const gone = await makeKey('Gone')
          await add(alice, await revoked(gone))
          expectRefusal(await alice.call('POST', at(gone, '/challenge')), 403, /revoked/)
        })

        test('its owner removes a key: it is absent, and only they bring it back', async () => {
          const key = await makeKey('Removed')
          await add(alice, key.armor)
          await claim(alice, key)
          expectRefusal(await nobody.call('DELETE', at(key)), 401)
          expectRefusal(await mallory.call('DELETE', at(key)), 403)
          expectData(await alice.call('DELETE', at(key)))
          for (const search of [`0x${key.fingerprint}`, 'removed@example.org', 'Removed <rem'])
            expectRefusal(await get(nobody, search), 404, /No key found/)
          const never = await makeKey('Never')
          expectAlike(await nobody.call('GET', at(key)), await nobody.call('GET', at(never)))
          expectRefusal(await alice.call('DELETE', at(key)), 404)
          // a stranger's revocation is kept, hidden
          expectRefusal(await add(mallory, await revoked(key)), 403, /has removed it/)
          expectRefusal(await get(nobody, `0x${key.fingerprint}`), 404)
          expect(await owned(alice)).toContain(key.fingerprint)
          expectReceived(await add(alice, key.armor), key)
          expect((await index(nobody, `0x${key.fingerprint}`)).text).toMatch(/^pub:.*:r$/m)
        })

        test('an administrator removes any key for good', async () => {
          const key = await makeKey('Spam')
          await add(mallory, await revoked(key))
          const all = expectData(await admin.call('GET', '/v1/keys')).keys as unknown[]
          expect(all.length).toBeGreaterThan(5)
          expectData(await admin.call('DELETE', at(key)))
          expectRefusal(await admin.call('DELETE', at(key)), 404)
          expectReceived(await add(alice, key.armor), key)
          expect((await index(nobody, `0x${key.fingerprint}`)).text).toMatch(/^pub:.*:$/m)
        })

        test('what names no key is 404, and what is no claim 400', async () => {
          const key = await makeKey('Absent')
          for (const [method, path] of [
            ['GET', at(key)],
            ['DELETE', at(key)],
            ['POST', at(key, '/challenge')],
            ['GET', '/v1/keys/alice'],
            ['GET', '/v1/keys/0x00'],
          ] as const)
            expectRefusal(await alice.call(method, path), 404)
          expectRefusal(await handIn(alice, key, 'x'), 404)
          expectRefusal(await alice.call('POST', at(key, '/claim'), { sign: 'x' }), 400)
          expectRefusal(await nobody.call('GET', '/v1/keys'), 401)
          expectRefusal(await alice.call('GET', '/v1/keys?cursor=x'), 400)
        })
      })
    })

    test('SREG_KEYS_ADD=anyone: nobody adds, and removes nothing', async () => {
      const target = await makeTarget({ env: { SREG_KEYS_ADD: 'anyone' } })
      try {
        const nobody = libraryClient(target.url)
        const key = await makeKey('Open')
        expectReceived(await add(nobody, key.armor), key)
        await expectKeys(await get(nobody, `0x${key.fingerprint}`), key)
        const pull = libraryClient(target.url, (await target.mint('a', { scopes: ['pull'] })).jwt)
        expectReceived(await add(pull, await revoked(key)), key)
        expectRefusal(await add(libraryClient(target.url, 'nonsense'), key.armor), 401)
        expectRefusal(await nobody.call('DELETE', `/v1/keys/${key.fingerprint}`), 401)
        expectRefusal(await nobody.call('POST', `/v1/keys/${key.fingerprint}/challenge`), 401)
      } finally {
        await target.stop()
      }
    })

    test('SREG_KEYS_READ=token: strangers learn nothing, not even by adding again (R46)', async () => {
      const target = await makeTarget({ env: { SREG_KEYS_READ: 'token', SREG_KEYS_ADD: 'anyone' } })
      try {
        const nobody = libraryClient(target.url)
        const pull = libraryClient(target.url, (await target.mint('a', { scopes: ['pull'] })).jwt)
        const [there, absent] = [await makeKey('There'), await makeKey('Never')]
        const first = await add(nobody, there.armor)
        const names = ['get', 'index', 'vindex']
        for (const op of names)
          expectAlike(
            await lookup(nobody, { op, search: `0x${there.fingerprint}` }),
            await lookup(nobody, { op, search: `0x${absent.fingerprint}` }),
          )
        expectRefusal(await get(nobody, `0x${there.fingerprint}`), 401, /log in first/)
        expectRefusal(await nobody.call('GET', `/v1/keys/${there.fingerprint}`), 401)
        expectRefusal(await nobody.call('GET', `/v1/keys/${absent.fingerprint}`), 401)
        await expectKeys(await get(pull, `0x${there.fingerprint}`), there)
        expectRefusal(await get(pull, `0x${absent.fingerprint}`), 404)
        expectAlike(first, await add(nobody, there.armor))
      } finally {
        await target.stop()
      }
    })
  })
}
