/**
 * The keystore with the programs that people have: Apptainer signs, verifies and looks up with it,
 * gpg sends and receives. A function of a factory, asked of every runtime.
 */
import { existsSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { libraryClient } from '../protocol/client.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { MAIN, makeClient, makeSifs, NODE, removeFolder, runProgram } from './apptainer.ts'
import type { Client, Outcome } from './apptainer.ts'
import { describeWithClient } from './suite.ts'

type MakeTarget = (options?: TargetOptions) => Promise<Target>

function expectSuccess({ code, terminal }: Outcome): string {
  expect(code, terminal).toBe(0)
  return terminal
}

/** Both programs against the keystore of what `makeTarget` starts. */
export function describeKeystoreClients(name: string, makeTarget: MakeTarget): void {
  describeApptainer(name, makeTarget)
  describeGpg(name, makeTarget)
}

function describeApptainer(name: string, makeTarget: MakeTarget): void {
  describeWithClient(`${name}: keys with the real client`, () => {
    let folder = ''
    let sifs = ''
    let target: Target
    let alice: Client
    let bob: Client
    let nobody: Client
    let fingerprint = ''

    const client = async (label: string, user: string) => {
      const made = await makeClient(join(folder, label))
      expectSuccess(await made.connect(target.url, (await target.mint(user)).jwt))
      return made
    }

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'sreg-keys-'))
      sifs = await makeSifs(join(folder, 'sifs'))
      target = await makeTarget()
      alice = await client('alice', 'alice')
      bob = await client('bob', 'bob')
      nobody = await client('nobody', 'bob')
      expectSuccess(await nobody.run(['remote', 'logout', 'sreg']))
      const names = ['--name', 'Alice Author', '--email', 'alice@example.org', '--comment', 'e2e']
      const secret = ['--password', '', '--bit-length', '2048', '--push=false']
      expectSuccess(await alice.run(['key', 'newpair', ...names, ...secret]))
      const { terminal } = await alice.run(['key', 'list'])
      fingerprint = /Fingerprint: *([0-9A-F]{40})/.exec(terminal)?.[1] ?? terminal
      await copyFile(join(sifs, 'small.sif'), join(folder, 'signed.sif'))
      expectSuccess(await alice.run(['sign', join(folder, 'signed.sif')]))
    }, 120_000)
    afterAll(async () => {
      await target?.stop()
      await removeFolder(folder)
    })

    test('before it is pushed, nobody knows the key', async () => {
      for (const who of [bob, nobody]) {
        const search = await who.run(['key', 'search', 'alice@example.org'])
        expect(search.code, search.terminal).not.toBe(0)
        expect(search.terminal).toContain('no matching keys found')
        const pull = await who.run(['key', 'pull', fingerprint])
        expect(pull.terminal).toContain('no matching keys found')
        const verify = await who.run(['verify', join(folder, 'signed.sif')])
        expect(verify.code, verify.terminal).not.toBe(0)
      }
    })

    test('key push: logged out it is refused, logged in the server says what it has', async () => {
      // it asks which of the keys
      expectSuccess(await alice.run(['key', 'export', '--armor', join(folder, 'a.asc')], '0\n'))
      expectSuccess(await nobody.run(['key', 'import', join(folder, 'a.asc')]))
      const refused = await nobody.run(['key', 'push', fingerprint])
      expect(refused.code, refused.terminal).not.toBe(0)
      expect(refused.terminal).toMatch(/[Tt]oken|401/)
      expectSuccess(await nobody.run(['key', 'remove', fingerprint]))
      const pushed = expectSuccess(await alice.run(['key', 'push', fingerprint]))
      expect(pushed).toContain(`Key server response: Received the key ${fingerprint}`)
      expect(pushed).toContain('pushed to server successfully')
      // once more is as good
      expectSuccess(await alice.run(['key', 'push', fingerprint]))
    })

    test('key search: text, e-mail, fingerprint and key id, long and short, logged out too', async () => {
      for (const who of [bob, nobody])
        for (const search of [
          'author',
          'Alice Author (e2e)',
          'alice@example.org',
          fingerprint,
          fingerprint.toLowerCase(),
          fingerprint.slice(-16),
          fingerprint.slice(-8),
          `0x${fingerprint.toLowerCase()}`,
        ]) {
          const long = expectSuccess(await who.run(['key', 'search', '-l', search]))
          expect(long).toContain('Showing 1 results')
          expect(long).toMatch(
            new RegExp(
              `^${fingerprint} +RSA +2048 .*\\[enabled\\] +Alice Author \\(e2e\\) <alice@example\\.org>`,
              'm',
            ),
          )
          const short = expectSuccess(await who.run(['key', 'search', search]))
          expect(short).toContain(fingerprint.slice(-8))
        }
    })

    test('key pull: by fingerprint and short id', async () => {
      for (const [label, id] of [
        ['full', fingerprint],
        ['short', fingerprint.slice(-8)],
      ] as const) {
        const fresh = await client(`pull-${label}`, 'bob')
        expect(expectSuccess(await fresh.run(['key', 'pull', id]))).toContain('1 key(s) added')
        expect((await fresh.run(['key', 'list'])).terminal).toContain(fingerprint)
      }
    })

    test('verify with an empty keyring shows the signer, logged in and out', async () => {
      for (const who of [bob, nobody]) {
        const terminal = expectSuccess(await who.run(['verify', join(folder, 'signed.sif')]))
        expect(terminal).toContain('[REMOTE]')
        expect(terminal).toContain('Alice Author (e2e) <alice@example.org>')
        expect(terminal).toContain(fingerprint)
      }
    })

    test('a tampered copy does not verify', async () => {
      const bytes = await readFile(join(folder, 'signed.sif'))
      // inside of the partition, a squashfs
      const at = bytes.indexOf('hsqs') + 100
      expect(at).toBeGreaterThan(100)
      bytes[at] = (bytes[at] ?? 0) ^ 1
      await writeFile(join(folder, 'tampered.sif'), bytes)
      const { code, terminal } = await bob.run(['verify', join(folder, 'tampered.sif')])
      expect(code, terminal).not.toBe(0)
      expect(terminal).toContain('data object integrity compromised')
    })

    test('signed images go up and come down without a word about the key', async () => {
      const ref = 'library://bob/default/signed'
      await copyFile(join(folder, 'signed.sif'), join(folder, 'bob.sif'))
      const pushed = expectSuccess(await bob.run(['push', join(folder, 'bob.sif'), ref]))
      expect(pushed).not.toMatch(/WARN|unsigned|not be verified|unknown/i)
      for (const who of [alice, bob, nobody]) {
        const pulled = await who.pull([ref])
        expect(expectSuccess(pulled)).not.toMatch(/WARN|could not be verified|unknown/i)
        expect(expectSuccess(await who.run(['verify', pulled.file]))).toContain(fingerprint)
      }
    })
  })
}

/** A gpg with a home of its own. The path is short: sockets lie in it. */
async function makeGpg(base: string, label: string) {
  const home = join(base, label)
  await mkdir(home, { mode: 0o700 })
  const env = { ...process.env, GNUPGHOME: home, LC_ALL: 'C' }
  const run = (...args: string[]) => runProgram('gpg', ['--batch', '--yes', ...args], { env })
  return {
    run,
    /** A run that must succeed. */
    must: async (...args: string[]) => expectSuccess(await run(...args)),
    make: async (userId: string, algorithm: string): Promise<string> => {
      const quick = ['--passphrase', '', '--quick-generate-key', userId, algorithm]
      expectSuccess(await run(...quick, 'sign', 'never'))
      const listed = expectSuccess(await run('--with-colons', '--list-secret-keys', userId))
      return /^fpr:::::::::([0-9A-F]{40}):/m.exec(listed)?.[1] ?? listed
    },
    stop: () => runProgram('gpgconf', ['--kill', 'all'], { env }),
  }
}
type Gpg = Awaited<ReturnType<typeof makeGpg>>

function describeGpg(name: string, makeTarget: MakeTarget): void {
  describe(`${name}: keys with gpg`, () => {
    const missing = ['/usr/bin/gpg', '/usr/bin/dirmngr'].filter((path) => !existsSync(path))
    if (missing.length > 0) {
      test('with gpg', (context) => {
        const reason = `${missing.join(' and ')} missing (apt-get install gnupg)`
        if (process.env.CI) throw new Error(reason)
        context.skip(reason)
      })
      return
    }
    let folder = ''
    let open: Target
    let closed: Target
    const gpgs: Gpg[] = []
    const gpg = async (label: string) => {
      const made = await makeGpg(folder, label)
      gpgs.push(made)
      return made
    }

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'g'))
      open = await makeTarget({ env: { SREG_KEYS_ADD: 'anyone' } })
      closed = await makeTarget()
    }, 120_000)
    afterAll(async () => {
      for (const { stop } of gpgs) await stop()
      await open?.stop()
      await closed?.stop()
      await removeFolder(folder)
    })

    const KINDS = ['rsa2048', 'ed25519', 'nistp256', 'dsa2048'] as const
    for (const scheme of ['hkp', 'http'] as const)
      test(`${scheme}://: sends, searches and receives ${KINDS.join(', ')}`, async () => {
        const server = open.url.replace('http:', `${scheme}:`)
        const [sender, receiver] = [await gpg(`s${scheme}`), await gpg(`r${scheme}`)]
        for (const kind of KINDS) {
          const email = `${kind}@${scheme}.example.org`
          const fingerprint = await sender.make(`Gpg ${kind} <${email}>`, kind)
          await sender.must('--keyserver', server, '--send-keys', fingerprint)
          for (const search of [email, `Gpg ${kind}`, `0x${fingerprint}`]) {
            const found = await receiver.run(
              '--keyserver',
              server,
              '--with-colons',
              '--search-keys',
              search,
            )
            expect(found.terminal).toContain(fingerprint)
            expect(found.terminal).toContain(email.replace('@', '%40'))
          }
          // with http://, gpg receives the very address that it is given
          await (scheme === 'hkp'
            ? receiver.must('--keyserver', server, '--recv-keys', fingerprint)
            : receiver.must('--fetch-keys', `${server}/pks/lookup?op=get&search=0x${fingerprint}`))
          expect(await exported(receiver, fingerprint)).toEqual(await exported(sender, fingerprint))
        }
      }, 120_000)

    test("one with a revoked user id, and a third party's signature, which is dropped", async () => {
      const server = open.url.replace('http:', 'hkp:')
      const [sender, friend, receiver] = [await gpg('su'), await gpg('fu'), await gpg('ru')]
      const fingerprint = await sender.make('Two Names <new@example.org>', 'ed25519')
      const empty = ['--passphrase', '']
      await sender.must(...empty, '--quick-add-uid', fingerprint, 'Two Names <old@example.org>')
      await sender.must(...empty, '--quick-revoke-uid', fingerprint, 'Two Names <old@example.org>')
      const before = await exported(sender, fingerprint)
      await friend.make('A Friend <friend@example.org>', 'ed25519')
      await writeFile(
        join(folder, 'own.asc'),
        await sender.must('--armor', '--export', fingerprint),
      )
      await friend.must('--import', join(folder, 'own.asc'))
      await friend.must(...empty, '--quick-sign-key', fingerprint)
      expect(await exported(friend, fingerprint)).not.toEqual(before)
      await friend.must('--keyserver', server, '--send-keys', fingerprint)
      await receiver.must('--keyserver', server, '--recv-keys', fingerprint)
      expect(await exported(receiver, fingerprint)).toEqual(before)
      const listed = await receiver.must('--with-colons', '--list-keys', fingerprint)
      expect(listed).toMatch(/^uid:r:.*old@example\.org/m)
      const search = await receiver.run(
        '--keyserver',
        server,
        '--with-colons',
        '--search-keys',
        'Two Names',
      )
      expect(search.terminal).toMatch(/^uid:.*old%40example\.org.*:r:?$/m)
    }, 60_000)

    test('a revocation that is sent later is received', async () => {
      const [sender, receiver] = [await gpg('sr'), await gpg('rr')]
      const fingerprint = await sender.make('Later Revoked <later@example.org>', 'ed25519')
      const server = ['--keyserver', open.url.replace('http:', 'hkp:')]
      await sender.must(...server, '--send-keys', fingerprint)
      await receiver.must(...server, '--recv-keys', fingerprint)
      const file = join(folder, 'sr', 'openpgp-revocs.d', `${fingerprint}.rev`)
      await writeFile(join(folder, 'rev.asc'), (await readFile(file, 'utf8')).replace(/^:-/m, '-'))
      await sender.must('--import', join(folder, 'rev.asc'))
      await sender.must(...server, '--send-keys', fingerprint)
      await receiver.must(...server, '--recv-keys', fingerprint)
      expect(await receiver.must('--with-colons', '--list-keys', fingerprint)).toMatch(/^pub:r:/m)
    }, 60_000)

    test('a server that wants a token refuses gpg with a sentence', async () => {
      const sender = await gpg('sc')
      const fingerprint = await sender.make('Refused <refused@example.org>', 'ed25519')
      const sent = await sender.run('--keyserver', closed.url, '--send-keys', fingerprint)
      expect(sent.code, sent.terminal).not.toBe(0)
      expect(sent.terminal).toMatch(/failed/)
      const keytext = await sender.must('--armor', '--export', fingerprint)
      const form = new URLSearchParams({ keytext }).toString()
      const { status, json } = await libraryClient(closed.url).call('POST', '/pks/add', form)
      expect([status, json.error.message]).toEqual([401, expect.stringMatching(/log in first/)])
    })

    test('key claim with gpg: print, sign, hand in', async () => {
      const signer = await gpg('cl')
      const fingerprint = await signer.make('Claimed <claimed@example.org>', 'rsa2048')
      const token = join(folder, 'token')
      await writeFile(token, (await closed.mint('alice')).jwt, { mode: 0o600 })
      const sreg = (...args: string[]) =>
        runProgram(NODE, [MAIN, 'key', ...args, '--server', closed.url, '--token-file', token])
      const key = join(folder, 'claimed.asc')
      await writeFile(key, await signer.must('--armor', '--export', fingerprint))
      expectSuccess(await sreg('add', key))
      const challenge = expectSuccess(await sreg('claim', fingerprint))
      const text = challenge.slice(0, challenge.indexOf('\nSign this text'))
      await writeFile(join(folder, 'challenge'), `${text}\n`)
      const signed = join(folder, 'challenge.asc')
      await signer.must('--output', signed, '--clearsign', join(folder, 'challenge'))
      expectSuccess(await sreg('claim', fingerprint, '--signed', signed))
      expect(expectSuccess(await sreg('list'))).toMatch(
        new RegExp(`^${fingerprint} +alice +valid`, 'm'),
      )
    }, 60_000)
  })
}

/** The packets of a key as gpg has them, in an order that does not depend on when they came. */
async function exported({ must }: Gpg, fingerprint: string): Promise<string[]> {
  const armor = await must('--armor', '--export', fingerprint)
  const body = /\n\n([\s\S]*?)\n=/.exec(armor)?.[1] ?? ''
  return packetsOf(Buffer.from(body, 'base64'))
}

/** Packets of old and new format as hex of tag and body, sorted. */
function packetsOf(bytes: Buffer): string[] {
  const packets: string[] = []
  for (let at = 0; at < bytes.length;) {
    const head = bytes.readUInt8(at)
    const old = (head & 0x40) === 0
    const tag = old ? (head >> 2) & 15 : head & 63
    const [skip, body] = lengthOf(bytes, at, old)
    packets.push(`${tag}:${bytes.subarray(at + skip, at + skip + body).toString('hex')}`)
    at += skip + body
  }
  return packets.toSorted()
}

/** Bytes of a packet's header, and of its body. */
function lengthOf(bytes: Buffer, at: number, old: boolean): [number, number] {
  const first = bytes.readUInt8(at + 1)
  if (old) {
    const kind = bytes.readUInt8(at) & 3
    if (kind === 0) return [2, first]
    return kind === 1 ? [3, bytes.readUInt16BE(at + 1)] : [5, bytes.readUInt32BE(at + 1)]
  }
  if (first < 192) return [2, first]
  if (first < 224) return [3, (first - 192) * 256 + bytes.readUInt8(at + 2) + 192]
  return [6, bytes.readUInt32BE(at + 2)]
}
