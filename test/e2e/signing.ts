/**
 * What the real client says where a collection asks for signatures (R17, R18): a function of a
 * factory, as suite.ts.
 */
import { copyFile, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as openpgp from 'openpgp'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { objectsOf } from '../fixtures/signed-sif.ts'
import { libraryClient } from '../protocol/client.ts'
import type { Target } from '../runtimes/target.ts'
import {
  MAIN,
  makeClient,
  makeSifs,
  NODE,
  removeFolder,
  runProgram,
  type Client,
  type Outcome,
} from './apptainer.ts'
import { describeWithClient } from './suite.ts'

function expectSuccess({ code, terminal }: Outcome): void {
  expect(code, terminal).toBe(0)
}

export function describeSigning(name: string, makeTarget: () => Promise<Target>): void {
  describeWithClient(`${name}: signatures with the real client`, () => {
    let folder = ''
    let target: Target
    let alice: Client
    let mallory: Client
    let secret: openpgp.PrivateKey
    let token: string
    let copies = 0

    /** The key that a client made for itself. */
    const secretOf = async (config: string) => {
      const binaryKey = await readFile(join(config, 'keys/pgp-secret'))
      return openpgp.readPrivateKey({ binaryKey })
    }
    const fingerprintOf = (key: openpgp.Key) => key.getFingerprint().toUpperCase()

    /** An image like no other, built by Alice and signed by these clients, one after the other. */
    async function image(...signers: Client[]): Promise<string> {
      const file = join(folder, `image-${(copies += 1)}.sif`)
      const box = await mkdtemp(join(folder, 'box-'))
      await writeFile(join(box, 'content.txt'), `${copies}`)
      expectSuccess(await alice.run(['build', file, box]))
      for (const signer of signers) expectSuccess(await signer.run(['sign', file]))
      return file
    }
    const push = (file: string, ref = `alice/strict/box:v${copies}`) =>
      alice.run(['push', '-U', file, `library://${ref}`])
    async function expectRefused(file: string, sentence: string | RegExp): Promise<void> {
      const { code, terminal } = await push(file)
      expect(code, terminal).not.toBe(0)
      expect(terminal).toContain('alice/strict takes only images with a good signature')
      expect(terminal).toMatch(sentence)
      expect(terminal).toContain('403')
    }

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'sreg-e2e-'))
      const sifs = await makeSifs(join(folder, 'sifs'))
      target = await makeTarget()
      token = (await target.mint('alice')).jwt
      alice = await makeClient(join(folder, 'alice'), { keyring: join(sifs, 'keyring') })
      expectSuccess(await alice.connect(target.url, token))
      secret = await secretOf(join(sifs, 'keyring'))
      mallory = await makeClient(join(folder, 'mallory'))
      expectSuccess(await mallory.connect(target.url, (await target.mint('mallory')).jwt))
      const made = ['--name', 'Mallory', '--email', 'm@example.org', '--comment', 'x']
      const options = ['--password', '', '--bit-length', '2048', '--push=false']
      expectSuccess(await mallory.run(['key', 'newpair', ...made, ...options]))

      // Alice's key: pushed with the client, claimed by a signature, asked for by the command line
      expectSuccess(await alice.run(['key', 'push', fingerprintOf(secret)]))
      const api = libraryClient(target.url, token)
      const at = `/v1/keys/${fingerprintOf(secret)}`
      const { challenge } = (await api.call('POST', `${at}/challenge`)).json.data
      const message = await openpgp.createCleartextMessage({ text: challenge })
      const signed = await openpgp.sign({ message, signingKeys: secret })
      expect((await api.call('POST', `${at}/claim`, { signed })).status).toBe(200)
      expectSuccess(await push(await image(), 'alice/strict/open'))
      const file = join(alice.folder, 'token')
      const options2 = ['--server', target.url, '--token-file', file]
      const set = await runProgram(NODE, [MAIN, 'policy', 'alice/strict', 'require', ...options2])
      expect(set).toEqual({ code: 0, terminal: 'require\n' })
    }, 120_000)

    afterAll(async () => {
      await target?.stop()
      await removeFolder(folder)
    })

    test('a good signature passes, and comes down without a warning', async () => {
      const file = await image(alice)
      expectSuccess(await alice.run(['push', file, 'library://alice/strict/box:good']))
      // a client whose keyring is empty finds the key in the keystore
      const pulled = await mallory.pull(['library://alice/strict/box:good'])
      expectSuccess(pulled)
      expect(pulled.terminal).not.toMatch(/WARN/)
      const verified = await mallory.run(['verify', pulled.file])
      expectSuccess(verified)
      expect(verified.terminal).toContain(fingerprintOf(secret))
      const search = await mallory.run(['search', '--signed', 'alice/strict'])
      expectSuccess(search)
      expect(search.terminal).toContain('alice/strict/box')
    })

    test('unsigned: refused, and the sentence stands on the terminal', async () => {
      await expectRefused(await image(), /this one is unsigned\. Sign it \(apptainer sign\)/)
    })

    test('tampered with: refused', async () => {
      const file = await image(alice)
      const bytes = await readFile(file)
      const partition = objectsOf(bytes).find(({ type }) => type === 0x4004)!
      bytes[partition.offset + 200]! ^= 1
      await writeFile(file, bytes)
      await expectRefused(file, /the bytes of object \d are not those that were signed/)
      const verify = await alice.run(['verify', file])
      expect(verify.code, verify.terminal).not.toBe(0)
    })

    test("a stranger's: refused, whether their key is known or not", async () => {
      const file = await image(mallory)
      await expectRefused(file, /signed with a key that is unknown here/)
      const strange = await secretOf(join(mallory.folder, 'config'))
      expectSuccess(await mallory.run(['key', 'push', fingerprintOf(strange)]))
      await expectRefused(file, /nobody who may write there has claimed/)
    })

    test('two signers, and signed once more by the same: pass', async () => {
      expectSuccess(await push(await image(mallory, alice)))
      expectSuccess(await push(await image(alice, alice)))
    })

    test('a key that is revoked: refused; what is there is pulled on, but not tagged', async () => {
      const old = await image(alice)
      expectSuccess(await push(old, 'alice/strict/box:old'))
      const { publicKey } = await openpgp.revokeKey({ key: secret, format: 'object' })
      const body = new URLSearchParams({ keytext: publicKey.armor() }).toString()
      const headers = { 'content-type': 'application/x-www-form-urlencoded' }
      const added = await libraryClient(target.url, token).call('POST', '/pks/add', body, headers)
      expect(added.status).toBe(200)
      await expectRefused(await image(alice), /does not count: the key is revoked/)
      const again = await push(old, 'alice/strict/box:new')
      expect(again.code, again.terminal).not.toBe(0)
      expect(again.terminal).toContain('the key is revoked')
      const copy = join(folder, 'copy.sif')
      await copyFile(old, copy)
      expectSuccess(await mallory.pull(['library://alice/strict/box:old']))
    })
  })
}
