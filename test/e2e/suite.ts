/**
 * What a registry must do for people who have the real client: a function of a factory, so that the
 * same is asked of every runtime. The wire behind it stands in docs/protocol.md.
 */
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { libraryClient, sha256 } from '../protocol/client.ts'
import type { Target } from '../runtimes/target.ts'
import {
  atMost,
  findProgram,
  makeClient,
  makeSifs,
  removeFolder,
  sha256File,
  type Client,
  type Outcome,
} from './apptainer.ts'
import { startProxy } from './proxy.ts'

/** Clients at once; a Go program each, so no more than a small machine bears. */
const AT_ONCE = Number(process.env.SREG_TEST_CLIENTS ?? 8)
const PUSHERS = 50
const MIB = 1024 * 1024

export type SuiteOptions = {
  /** Tests that a runtime cannot pass, with the reason. */
  skip?: Record<string, string>
}

/** Runs `body` where the clients are; elsewhere says which are not, which CI takes ill. */
export function describeWithClient(
  name: string,
  body: () => void,
  programs: readonly string[] = ['apptainer'],
): void {
  describe(name, () => {
    const missing = programs.filter((program) => findProgram(program) === null)
    if (missing.length === 0) return body()
    test('with the real clients', (context) => {
      const reason = `no ${missing.join(', ')} on PATH or in .cache (scripts/setup.mjs --client)`
      if (process.env.CI) throw new Error(reason)
      context.skip(reason)
    })
  })
}

function testUnless({ skip = {} }: SuiteOptions) {
  return (name: string, work: () => Promise<void>, timeout?: number) =>
    test(
      name,
      async (context) => {
        const reason = skip[name]
        if (reason !== undefined) context.skip(reason)
        await work()
      },
      timeout,
    )
}

/** Fails with what stood on the terminal, not with a bare number. */
export function expectSuccess({ code, terminal }: Outcome): void {
  expect(code, terminal).toBe(0)
}

/** The client refused, and said this. */
export function expectRefusal({ code, terminal }: Outcome, sentence: string): void {
  expect(code, terminal).not.toBe(0)
  expect(terminal).toContain(sentence)
}

/** Everything that people do with the client; `makeTarget` starts a registry that is empty. */
export function describeClient(
  name: string,
  makeTarget: () => Promise<Target>,
  options: SuiteOptions = {},
): void {
  const check = testUnless(options)
  describeWithClient(`${name}: the real client`, () => {
    let folder = ''
    let sifs = ''
    let target: Target
    let alice: Client
    let bob: Client
    let nobody: Client
    let aliceToken: { jwt: string; id: string }
    const sif = (file: string) => join(sifs, file)
    const hashOf = (file: string) => sha256File(sif(file))
    /** A client of its own, connected with a token of the user. */
    const connected = async (
      label: string,
      user: string,
      mint: Parameters<Target['mint']>[1] = {},
      setup: Parameters<typeof makeClient>[1] = {},
    ) => {
      const token = await target.mint(user, mint)
      const client = await makeClient(join(folder, label), setup)
      expectSuccess(await client.connect(target.url, token.jwt))
      return { client, token }
    }
    const push = (client: Client, file: string, ref: string, flags: string[] = ['-U']) =>
      client.run(['push', ...flags, sif(file), `library://${ref}`])
    const expectPull = async (client: Client, file: string, args: string[]) => {
      const pulled = await client.pull(args)
      expectSuccess(pulled)
      expect(pulled.sha256).toBe(await hashOf(file))
      await rm(pulled.file)
    }

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'sreg-e2e-'))
      sifs = await makeSifs(join(folder, 'sifs'))
      target = await makeTarget()
      const keyring = { keyring: sif('keyring') }
      const first = await connected('alice', 'alice', {}, keyring)
      alice = first.client
      aliceToken = first.token
      bob = (await connected('bob', 'bob')).client
      nobody = (await connected('nobody', 'bob')).client
      expectSuccess(await nobody.run(['remote', 'logout', 'sreg']))
    })

    afterAll(async () => {
      await target?.stop()
      await removeFolder(folder)
    })

    describe('login', () => {
      check('connect writes a remote that has a port, and is the default', async () => {
        const { code, terminal } = await alice.run(['remote', 'list'])
        expect(code, terminal).toBe(0)
        expect(terminal).toMatch(new RegExp(`^sreg\\s+${target.url}\\s+✓`, 'm'))
      })

      check('remote status: three services OK, and who is logged in', async () => {
        const { code, terminal } = await alice.run(['remote', 'status'])
        expect(code, terminal).toBe(0)
        for (const service of ['Keyserver', 'Library', 'Token'])
          expect(terminal).toMatch(new RegExp(`^${service}\\s+OK\\s`, 'm'))
        expect(terminal).toContain('Logged in as: alice <')
        expect(terminal).toContain('Access Token Verified!')
      })

      check('remote login by prompt and with --tokenfile', async () => {
        const client = await makeClient(join(folder, 'login'))
        const { jwt } = await target.mint('alice')
        expectSuccess(await client.connect(target.url, jwt))
        expectSuccess(await client.run(['remote', 'logout', 'sreg']))
        const byPrompt = await client.run(['remote', 'login', 'sreg'], `${jwt}\n`)
        expectSuccess(byPrompt)
        expect(byPrompt.terminal).toContain('Access Token Verified!')
        const file = join(folder, 'tokenfile')
        await writeFile(file, `${jwt}\n`)
        const byFile = await client.run(['remote', 'login', '--tokenfile', file, 'sreg'])
        expectSuccess(byFile)
        expect(byFile.terminal).toContain('Access Token Verified!')
      })

      check('a wrong token is Invalid Credentials', async () => {
        const client = await makeClient(join(folder, 'wrong-token'))
        expectSuccess(await client.connect(target.url, aliceToken.jwt))
        expectSuccess(await client.run(['remote', 'logout', 'sreg']))
        const wrong = `${aliceToken.jwt.slice(0, -8)}AAAAAAAA`
        expectRefusal(
          await client.run(['remote', 'login', 'sreg'], `${wrong}\n`),
          'Invalid Credentials',
        )
      })

      check('get-login-password prints the token that was presented (R36)', async () => {
        const printed = await alice.run(['remote', 'get-login-password'])
        expectSuccess(printed)
        expect(printed.terminal.trim()).toBe(aliceToken.jwt)
      })
    })

    describe('push and pull', () => {
      beforeAll(async () => {
        expectSuccess(await push(alice, 'small.sif', 'alice/default/app'))
      })

      check('unsigned: goes up, comes down by default tag, tag and hash', async () => {
        await expectPull(alice, 'small.sif', ['library://alice/default/app'])
        await expectPull(nobody, 'small.sif', ['library://alice/default/app:latest'])
        const hash = `sha256.${await hashOf('small.sif')}`
        await expectPull(nobody, 'small.sif', [`library://alice/default/app:${hash}`])
      })

      check('the same again, and a second tag of it: nothing goes up twice', async () => {
        const before = await target.store.names()
        for (const ref of ['alice/default/app', 'alice/default/app:second']) {
          const again = await push(alice, 'small.sif', ref)
          expectSuccess(again)
          expect(again.terminal).not.toContain('Uploaded')
        }
        expect(await target.store.names()).toEqual(before)
        await expectPull(bob, 'small.sif', ['library://alice/default/app:second'])
      })

      check('equal content in another container of mine is not sent again (R29)', async () => {
        const again = await push(alice, 'small.sif', 'alice/default/copy')
        expectSuccess(again)
        expect(again.terminal).not.toContain('Uploaded')
        await expectPull(alice, 'small.sif', ['library://alice/default/copy'])
      })

      check('what is uploaded is said, with usage and an address', async () => {
        await writeFile(sif('once.sif'), Buffer.concat([await readFile(sif('small.sif')), MARK]))
        const pushed = await push(alice, 'once.sif', 'alice/default/once')
        expectSuccess(pushed)
        expect(pushed.terminal).toMatch(/Uploaded \d+ bytes/)
        expect(pushed.terminal).toContain('out of unlimited quota')
        expect(pushed.terminal).toContain(`${target.url}/library/alice/default/once`)
      })

      check('several tags in one push', async () => {
        expectSuccess(await push(alice, 'small2.sif', 'alice/default/tags:a,b'))
        for (const tag of ['a', 'b'])
          await expectPull(nobody, 'small2.sif', [`library://alice/default/tags:${tag}`])
      })

      check('a tag moves; the image it left stays by hash', async () => {
        expectSuccess(await push(alice, 'small.sif', 'alice/default/moved:v1'))
        expectSuccess(await push(alice, 'small2.sif', 'alice/default/moved:v1'))
        await expectPull(nobody, 'small2.sif', ['library://alice/default/moved:v1'])
        const left = `library://alice/default/moved:sha256.${await hashOf('small.sif')}`
        await expectPull(nobody, 'small.sif', [left])
      })

      check('arm64 next to amd64 on one tag', async () => {
        expectSuccess(await push(alice, 'small.sif', 'alice/default/both:v1'))
        expectSuccess(await push(alice, 'arm64.sif', 'alice/default/both:v1'))
        const ref = 'library://alice/default/both:v1'
        await expectPull(nobody, 'arm64.sif', ['--arch', 'arm64', ref])
        await expectPull(nobody, 'small.sif', ['--arch', 'amd64', ref])
        expectRefusal(await nobody.pull(['--arch', 'ppc64le', ref]), 'image does not exist')
      })

      check('signed, checked against the local keyring', async () => {
        const pushed = await push(alice, 'signed.sif', 'alice/default/signed', [])
        expectSuccess(pushed)
        expect(pushed.terminal).not.toContain('Skipping container verification')
        const pulled = await alice.pull(['library://alice/default/signed'])
        expectSuccess(pulled)
        expect(pulled.sha256).toBe(await hashOf('signed.sif'))
        const fingerprint = (await readFile(sif('fingerprint'), 'utf8')).trim()
        expectSuccess(await alice.run(['verify', '--local', pulled.file]))
        const { terminal } = await alice.run(['search', '--signed', 'signed'])
        expect(terminal.toLowerCase()).toContain(fingerprint.toLowerCase())
      })

      check('an unsigned image needs -U', async () => {
        expectRefusal(await push(alice, 'small.sif', 'alice/default/needs', []), 'unsigned')
      })

      check('more than 64 MiB: up in parts, down in ranges', async () => {
        const pushed = await push(alice, 'big.sif', 'alice/default/big:v1')
        expectSuccess(pushed)
        expect(pushed.terminal).toMatch(/Uploaded 70000000 bytes/)
        await expectPull(nobody, 'big.sif', ['library://alice/default/big:v1'])
      })

      check('a description is kept and shown', async () => {
        const flags = ['-U', '-D', 'An image of described words']
        expectSuccess(await push(alice, 'small2.sif', 'alice/default/described', flags))
        const { terminal } = await nobody.run(['search', 'described'])
        expect(terminal).toContain('library://alice/default/described:latest')
        expect(terminal).toContain('An image of described words')
      })

      check('short refs mean library/default', async () => {
        const { client } = await connected('librarian', 'library')
        expectSuccess(await push(client, 'small2.sif', 'library/default/short'))
        await expectPull(nobody, 'small2.sif', ['library://short'])
        await expectPull(nobody, 'small2.sif', ['library://default/short:latest'])
      })

      check('--library URL, and a host in the ref', async () => {
        const ref = 'library://alice/default/app'
        await expectPull(nobody, 'small.sif', ['--library', target.url, ref])
        const host = new URL(target.url).host
        await expectPull(nobody, 'small.sif', ['--no-https', `library://${host}/alice/default/app`])
      })

      check('with the cache on, a second pull moves no bytes', async () => {
        const ref = ['library://alice/default/app']
        const first = await bob.pull(ref, { cache: true })
        expectSuccess(first)
        const second = await bob.pull(ref, { cache: true })
        expectSuccess(second)
        expect(second.terminal).toContain('Using cached image')
        expect([first.sha256, second.sha256]).toEqual(Array(2).fill(await hashOf('small.sif')))
      })

      check('private: for its owner only, as if absent for others (R26)', async () => {
        expectSuccess(await push(alice, 'small.sif', 'alice/default/secret'))
        await target.setPrivate('alice/default/secret', true)
        const ref = 'library://alice/default/secret'
        await expectPull(alice, 'small.sif', [ref])
        for (const stranger of [bob, nobody]) {
          const refused = await stranger.pull([ref])
          const absent = await stranger.pull(['library://alice/default/secrets'])
          expectRefusal(refused, 'image does not exist in the library: alice/default/secret')
          expect(refused.sha256).toBeNull()
          expect(refused.terminal).toBe(absent.terminal.replaceAll('secrets', 'secret'))
        }
        const deleted = await bob.run(['delete', '--force', ref])
        expectRefusal(deleted, "couldn't delete requested image: not found")
        expect((await bob.run(['search', 'secret'])).terminal).not.toContain('alice')
        expect((await alice.run(['search', 'secret'])).terminal).toContain('alice/default/secret')
      })
    })

    describe('search', () => {
      beforeAll(async () => {
        expectSuccess(await push(bob, 'small.sif', 'bob/lab/findme:plain'))
        expectSuccess(await push(bob, 'signed.sif', 'bob/lab/findme:signed'))
        expectSuccess(await push(bob, 'arm64.sif', 'bob/lab/findme:arm'))
      })

      check('by a part of a name, per arch, and signed only', async () => {
        const refsOf = async (...args: string[]) => {
          const found = await nobody.run(['search', ...args])
          expectSuccess(found)
          return [...found.terminal.matchAll(/library:\/\/\S+/g)].map(([ref]) => ref).toSorted()
        }
        const lab = 'library://bob/lab/findme'
        expect(await refsOf('indme')).toEqual([`${lab}:plain`, `${lab}:signed`])
        expect(await refsOf('--signed', 'FINDME')).toEqual([`${lab}:signed`])
        expect(await refsOf('--arch', 'arm64', 'findme')).toEqual([`${lab}:arm`])
        expect(await refsOf('nothing-of-this-kind')).toEqual([])
      })
    })

    describe('delete', () => {
      const ref = 'library://alice/default/doomed'
      const hash = async (file: string) => `${ref}:sha256.${await hashOf(file)}`

      check('by tag: the image stays while another tag names it', async () => {
        expectSuccess(await push(alice, 'small.sif', 'alice/default/doomed:a,b'))
        expectSuccess(await alice.run(['delete', '--force', `${ref}:a`]))
        expectRefusal(await alice.pull([`${ref}:a`]), 'image does not exist')
        await expectPull(alice, 'small.sif', [`${ref}:b`])
        expectSuccess(await alice.run(['delete', '--force', `${ref}:b`]))
        expectRefusal(await alice.pull([await hash('small.sif')]), 'image does not exist')
      })

      check('by arch: the other one stays', async () => {
        expectSuccess(await push(alice, 'small.sif', 'alice/default/doomed:v1'))
        expectSuccess(await push(alice, 'arm64.sif', 'alice/default/doomed:v1'))
        expectSuccess(await alice.run(['delete', '--force', '--arch', 'arm64', `${ref}:v1`]))
        expectRefusal(await alice.pull(['--arch', 'arm64', `${ref}:v1`]), 'image does not exist')
        await expectPull(alice, 'small.sif', [`${ref}:v1`])
      })

      check('by hash: the image goes with its tags', async () => {
        expectSuccess(await push(alice, 'small2.sif', 'alice/default/doomed:x,y'))
        expectSuccess(await alice.run(['delete', '--force', await hash('small2.sif')]))
        for (const tag of ['x', 'y'])
          expectRefusal(await alice.pull([`${ref}:${tag}`]), 'image does not exist')
      })

      check('asks first; no means no, yes means yes', async () => {
        expectSuccess(await push(alice, 'small.sif', 'alice/default/doomed:asked'))
        expectSuccess(await alice.run(['delete', `${ref}:asked`], 'n\n'))
        await expectPull(alice, 'small.sif', [`${ref}:asked`])
        expectSuccess(await alice.run(['delete', `${ref}:asked`], 'y\n'))
        expectRefusal(await alice.pull([`${ref}:asked`]), 'image does not exist')
      })

      check('what is not there cannot be deleted', async () => {
        const missing = await alice.run(['delete', '--force', `${ref}:never`])
        expectRefusal(missing, "couldn't delete requested image: not found")
      })

      check('after a delete the same image can be pushed again', async () => {
        expectSuccess(await push(alice, 'small.sif', 'alice/default/again'))
        const again = 'library://alice/default/again'
        expectSuccess(await alice.run(['delete', '--force', again]))
        expectSuccess(await push(alice, 'small.sif', 'alice/default/again'))
        await expectPull(nobody, 'small.sif', [again])
      })
    })

    describe('refusals say why on the terminal', () => {
      check('an entity that is not mine', async () => {
        const words = 'You may not create anything in the entity bob: it belongs to somebody else'
        for (const below of ['bob/default/mine', 'bob/unheard-of/mine'])
          expectRefusal(await push(alice, 'small.sif', below), words)
      })

      check('an entity that is nobody’s', async () => {
        const words = 'You may not create anything in the entity carol'
        expectRefusal(await push(alice, 'small.sif', 'carol/default/mine'), words)
      })

      check('a file that is no SIF: the client refuses by itself', async () => {
        const refused = await push(alice, 'described.def', 'alice/default/text')
        expectRefusal(refused, 'reading global header')
      })

      check('a file whose SIF header lies', async () => {
        const whole = await readFile(sif('small2.sif'))
        // Cut in the middle of its partition: the client reads no further than the descriptors.
        await writeFile(sif('cut.sif'), whole.subarray(0, whole.length - 8000))
        const refused = await push(alice, 'cut.sif', 'alice/default/cut')
        expectRefusal(refused, 'This SIF image is broken: object 2 ends at byte')
        expectRefusal(await alice.pull(['library://alice/default/cut']), 'image does not exist')
      })

      check('a revoked token', async () => {
        const { client, token } = await connected('revoked', 'alice')
        await target.revoke(token.id)
        const words = 'This token has been revoked or has expired'
        expectRefusal(await push(client, 'small.sif', 'alice/default/app'), words)
        const ref = 'library://alice/default/app'
        expectRefusal(await client.run(['delete', '--force', ref]), words)
        expectRefusal(await client.run(['search', 'app']), words)
        expectRefusal(await client.pull([ref]), words)
        expectRefusal(await client.run(['remote', 'status']), 'Invalid Credentials')
      })

      check('a token without the scope', async () => {
        const { client: puller } = await connected('puller', 'alice', { scopes: ['pull'] })
        await expectPull(puller, 'small.sif', ['library://alice/default/app'])
        expectRefusal(await push(puller, 'small2.sif', 'alice/default/app'), 'scope push')
        const { client: pusher } = await connected('pusher', 'alice', { scopes: ['pull', 'push'] })
        expectSuccess(await push(pusher, 'small.sif', 'alice/default/kept'))
        const kept = ['delete', '--force', 'library://alice/default/kept']
        expectRefusal(await pusher.run(kept), 'scope delete')
      })

      check('deleting what is not mine', async () => {
        const ref = 'library://alice/default/app'
        const refused = await bob.run(['delete', '--force', ref])
        expectRefusal(refused, 'You may not delete from alice/default/app')
      })

      check('logged out', async () => {
        const push = ['push', '-U', sif('small.sif'), 'library://alice/default/app']
        expectRefusal(await nobody.run(push), 'no authentication token')
        const ref = 'library://alice/default/app'
        const refused = await nobody.run(['delete', '--force', ref])
        expectRefusal(refused, 'This needs a token: log in first')
      })

      check('a full disk, when the upload opens', async () => {
        const raw = libraryClient(target.url, (await target.mint('alice')).jwt)
        const { container } = await raw.ensure('alice', 'default', 'reserved')
        let digest = 0
        // Open uploads reserve what they declare (R50): this fills the disk without writing to it.
        const fill = async () => {
          for (let size = 600 * 1024 * MIB; size > MIB;) {
            const hash = `sha256.${String(++digest).padStart(64, '0')}`
            const image = await raw.call('POST', '/v1/images', { hash, container })
            const path = `/v2/imagefile/${image.json.data.id as string}/_multipart`
            const opened = await raw.call('POST', path, { filesize: size })
            if (opened.status === 200) continue
            expect(opened.status, opened.text).toBe(507)
            size /= 2
          }
        }
        const attempt = async (length: number) => {
          await truncate(sif('big.sif'), length)
          await fill()
          return push(alice, 'big.sif', 'alice/default/full')
        }
        // Somebody else on this machine may free space at the wrong moment, but not for ever.
        let refused = await attempt(69_999_999)
        for (let n = 8; refused.code === 0 && n > 5; n--) refused = await attempt(69_999_990 + n)
        await truncate(sif('big.sif'), 70_000_000)
        expectRefusal(refused, "The registry's disk has no room for this image of 699999")
      })
    })
  })
}

const MARK = Buffer.from('no other image ends with this')

/** R5: a pull of which a ranged part fails ends with an error, and leaves no wrong file. */
export function describeRangeFailures(
  name: string,
  makeTarget: () => Promise<Target>,
  options: SuiteOptions = {},
): void {
  const check = testUnless(options)
  describeWithClient(`${name}: a range that fails (R5)`, () => {
    let folder = ''
    let image: Buffer
    let target: Target
    let number = 0

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'sreg-e2e-'))
      const sifs = await makeSifs(join(folder, 'sifs'))
      // Zeros would not tell a missing part from a whole one.
      image = Buffer.alloc(24 * MIB, 'not a zero')
      image.set(await readFile(join(sifs, 'small.sif')))
      target = await makeTarget()
    })

    afterAll(async () => {
      await target?.stop()
      await removeFolder(folder)
    })

    type Event = {
      head: string
      ref: string
      token: { jwt: string; id: string }
      /** Name of the image's blob in the store. */
      blob: string
      /** Waits until the server no longer serves this very request. */
      refused(): Promise<void>
    }
    /** Pulls a private image through a proxy in which `event` happens at the third range. */
    async function pullWith(event: ((at: Event) => Promise<string>) | null) {
      const token = await target.mint('alice')
      const ref = `alice/default/ranges${++number}`
      const pushed = libraryClient(target.url, token.jwt)
      // Content of its own, or the next test would share its blob.
      image.writeUInt32LE(number, image.length - 4)
      const before = new Set(await target.store.names())
      await pushed.push(ref, image, { privateContainer: true })
      const blob = (await target.store.names()).find((name) => !before.has(name)) ?? ''
      let ranges = 0
      const proxy = await startProxy(target.url, async (head) => {
        if (!/^range:/im.test(head) || ++ranges !== 3 || event === null) return head
        const path = /^GET (\S+)/.exec(head)?.[1] ?? ''
        const refused = async () => {
          const deadline = Date.now() + 15_000
          for (;;) {
            const answer = await fetch(target.url + path, { headers: { range: 'bytes=0-1' } })
            await answer.body?.cancel().catch(() => {})
            if (answer.status !== 206) return
            if (Date.now() > deadline) throw new Error('the ticket is still good')
            await new Promise((resolve) => setTimeout(resolve, 50))
          }
        }
        return event({ head, ref, token, blob, refused })
      })
      try {
        const client = await makeClient(join(folder, `client-${number}`))
        expectSuccess(await client.connect(proxy.url, token.jwt))
        const pulled = await client.pull([`library://${ref}`])
        return { ...pulled, ranges }
      } finally {
        await proxy.stop()
      }
    }
    async function expectFailure(event: (at: Event) => Promise<string>) {
      let happening: Promise<string> | undefined
      const pulled = await pullWith((at) => (happening = event(at)))
      expect(happening, pulled.terminal).toBeDefined()
      // The client may fail at a later range, and be gone before this one is let on.
      await happening
      expect(pulled.code, pulled.terminal).not.toBe(0)
      expect(pulled.sha256).toBeNull()
    }

    check('nothing fails: the file is whole', async () => {
      const pulled = await pullWith(null)
      expectSuccess(pulled)
      expect(pulled.ranges).toBe(5)
      expect(pulled.sha256).toBe(sha256(image))
    })

    check('the ticket is altered', () =>
      expectFailure(async ({ head }) => {
        const altered = head.replace(
          /([?&]t=[^ &]*)([^ &])/,
          (_, start: string, last: string) => start + (last === 'A' ? 'B' : 'A'),
        )
        expect(altered).not.toBe(head)
        return altered
      }),
    )

    check('the range lies beyond the end', () =>
      expectFailure(async ({ head }) =>
        head.replace(/^range:.*$/im, `Range: bytes=${image.length}-${image.length + 9}`),
      ),
    )

    check('the image is deleted', () =>
      expectFailure(async ({ head, ref, token, refused }) => {
        const path = `/v1/images/${ref}:latest?arch=amd64`
        const deleted = await libraryClient(target.url, token.jwt).call('DELETE', path)
        expect(deleted.status).toBe(200)
        await refused()
        return head
      }),
    )

    check('the token is revoked (R25)', () =>
      expectFailure(async ({ head, token, refused }) => {
        await target.revoke(token.id)
        await refused()
        return head
      }),
    )

    check('the bytes are gone from the store', () =>
      expectFailure(async ({ head, blob, refused }) => {
        await target.store.remove(blob)
        await refused()
        return head
      }),
    )

    check('the bytes in the store end too early', () =>
      expectFailure(async ({ head, blob }) => {
        await target.store.cut(blob, 11 * MIB)
        return head
      }),
    )
  })
}

/** Many clients push different images to one tag: all succeed, and it names one of them, whole. */
export function describeOneTag(name: string, makeTarget: () => Promise<Target>): void {
  describe(`${name}: ${PUSHERS} pushers of one tag`, () => {
    let target: Target
    let folder = ''
    let images: Buffer[] = []

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'sreg-e2e-'))
      target = await makeTarget()
    })

    afterAll(async () => {
      await target?.stop()
      await removeFolder(folder)
    })

    /** The tag names one of the images, each of which can be had by its hash, whole. */
    async function expectOneOfThem(ref: string) {
      const client = libraryClient(target.url)
      const fetched = async (selector: string) => {
        const answer = await fetch(`${target.url}/v1/imagefile/${ref}:${selector}?arch=amd64`)
        expect(answer.status).toBe(200)
        return sha256(Buffer.from(await answer.arrayBuffer()))
      }
      const digests = images.map((image) => sha256(image))
      expect(new Set(digests).size).toBe(PUSHERS)
      const named = (await client.call('GET', `/v1/images/${ref}:latest?arch=amd64`)).json.data
      expect(digests).toContain(named.hash.slice('sha256.'.length))
      expect(await fetched('latest')).toBe(named.hash.slice('sha256.'.length))
      for (const digest of digests) expect(await fetched(`sha256.${digest}`)).toBe(digest)
    }

    test('over plain HTTP, all in flight at once', async () => {
      const base = (await import('../fixtures/sif.ts')).sampleSif()
      images = Array.from({ length: PUSHERS }, (_, i) => Buffer.concat([base, MARK, bytesOf(i)]))
      const { jwt } = await target.mint('alice')
      const pushed = await Promise.all(
        images.map((image) => libraryClient(target.url, jwt).push('alice/default/raw', image)),
      )
      expect(pushed.map(({ digest }) => digest)).toEqual(images.map((image) => sha256(image)))
      await expectOneOfThem('alice/default/raw')
    })

    describeWithClient('with the real client', () => {
      test(`${AT_ONCE} at a time`, async () => {
        const sifs = await makeSifs(join(folder, 'sifs'))
        const base = await readFile(join(sifs, 'small.sif'))
        images = Array.from({ length: PUSHERS }, (_, i) => Buffer.concat([base, MARK, bytesOf(i)]))
        const client = await makeClient(join(folder, 'client'))
        expectSuccess(await client.connect(target.url, (await target.mint('alice')).jwt))
        const outcomes = await atMost(AT_ONCE, [...images.entries()], async ([index, image]) => {
          const file = join(folder, `${index}.sif`)
          await writeFile(file, image)
          return client.run(['push', '-U', file, 'library://alice/default/race'])
        })
        for (const outcome of outcomes) expectSuccess(outcome)
        await expectOneOfThem('alice/default/race')
      }, 60_000)
    })
  })
}

const bytesOf = (index: number) => Buffer.from(String(index).padStart(4, '0'))
