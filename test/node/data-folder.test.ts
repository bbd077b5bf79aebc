/** The data folder: modes, owner, secrets, lock (R19, R37, R39, R44, R45). */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  lockDataFolder,
  networkFileSystem,
  openDataFolder,
  readOrCreateSecret,
  readOrCreateSigningKeys,
  readSigningKeys,
} from '../../adapters/host/data-folder.ts'
import { platform } from '../../adapters/node/main.ts'

const root = process.getuid?.() === 0
const mode = async (path: string) => (await stat(path)).mode & 0o777

let base: string
beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'sreg-data-'))
})
afterEach(() => rm(base, { recursive: true }))

describe('openDataFolder', () => {
  it('makes the folder and its parents for its owner alone', async () => {
    const folder = await openDataFolder(join(base, 'a/b'), { create: true })
    expect(await mode(join(base, 'a'))).toBe(0o700)
    expect(await mode(folder.root)).toBe(0o700)
    expect(folder.warnings).toEqual([])
  })

  it('narrows a folder that is open to others, and says so', async () => {
    const path = join(base, 'wide')
    await openDataFolder(path, { create: true })
    await chmod(path, 0o755)
    const folder = await openDataFolder(path, { create: false })
    expect(await mode(path)).toBe(0o700)
    expect(folder.warnings).toEqual([expect.stringContaining('755')])
  })

  it('takes a volume of its own, which is open to others and has nothing in it', async () => {
    const path = join(base, 'volume')
    await mkdir(join(path, 'lost+found'), { recursive: true })
    await chmod(path, 0o755)
    expect((await openDataFolder(path, { create: true })).warnings).toHaveLength(1)
    expect(await mode(path)).toBe(0o700)
  })

  it('leaves a folder that is open to others, and in which they have things, as it is', async () => {
    const path = join(base, 'shared')
    await mkdir(join(path, 'of somebody else'), { recursive: true })
    await chmod(path, 0o777)
    const opening = openDataFolder(path, { create: true })
    await expect(opening).rejects.toMatchObject({
      code: 'invalid',
      message: expect.stringContaining('a folder of its own') as string,
    })
    expect(await mode(path)).toBe(0o777)
  })

  it('does not make a folder that an admin command names by mistake', async () => {
    const opening = openDataFolder(join(base, 'none'), { create: false })
    await expect(opening).rejects.toMatchObject({
      code: 'not_found',
      message: expect.stringContaining('Start the server first') as string,
    })
    expect(await readdir(base)).toEqual([])
  })

  it.skipIf(!root)('R44: refuses to run as another user than the owner (needs root)', async () => {
    await chown(base, 65534, 65534)
    await expect(openDataFolder(base, { create: true })).rejects.toMatchObject({
      code: 'denied',
      message: expect.stringMatching(/belongs to nobody.*runs as root.*sudo -u nobody/) as string,
    })
    await chown(base, 0, 0)
  })

  it('knows network file systems by their magic, signed or not', () => {
    expect(networkFileSystem(0x6969)).toBe('NFS')
    expect(networkFileSystem(0xff534d42)).toBe('CIFS')
    expect(networkFileSystem(0xff534d42 | 0)).toBe('CIFS')
    expect(networkFileSystem(0xef53)).toBeNull()
  })
})

describe('secrets', () => {
  it('R37: makes secret and keys once, for the owner alone, and finds them again', async () => {
    const folder = await openDataFolder(base, { create: true })
    const secret = await readOrCreateSecret(folder)
    const keys = await readOrCreateSigningKeys(folder)
    expect(secret.reveal()).toMatch(/^[0-9a-f]{64}$/)
    expect((await readOrCreateSecret(folder)).reveal()).toBe(secret.reveal())
    expect(await readOrCreateSigningKeys(folder)).toEqual(keys)
    expect(await mode(folder.secretFile)).toBe(0o600)
    expect(await mode(folder.signingKeysFile)).toBe(0o600)
    expect((await readdir(base)).sort()).toEqual(['secret', 'signing-keys.json'])
  })

  it('signs with the current key what its public half verifies', async () => {
    const folder = await openDataFolder(base, { create: true })
    const { current } = await readOrCreateSigningKeys(folder)
    const { createPrivateKey, createPublicKey, sign, verify } = await import('node:crypto')
    const { d: _, ...shown } = current
    const signature = sign(
      null,
      Buffer.from('text'),
      createPrivateKey({ key: current, format: 'jwk' }),
    )
    const key = createPublicKey({ key: shown, format: 'jwk' })
    expect(verify(null, Buffer.from('text'), key, signature)).toBe(true)
  })

  it('R37: never hands out the private part of an older key', async () => {
    const folder = await openDataFolder(base, { create: true })
    const { current } = await readOrCreateSigningKeys(folder)
    await writeFile(folder.signingKeysFile, JSON.stringify({ current, previous: [current] }))
    const { previous } = await readSigningKeys(folder)
    expect(previous).toEqual([{ kty: 'OKP', crv: 'Ed25519', x: current.x, kid: current.kid }])
  })

  it('does not replace a damaged file', async () => {
    const folder = await openDataFolder(base, { create: true })
    await writeFile(folder.signingKeysFile, '{"current":{}}')
    await writeFile(folder.secretFile, 'short')
    await expect(readOrCreateSigningKeys(folder)).rejects.toMatchObject({ code: 'internal' })
    await expect(readOrCreateSecret(folder)).rejects.toMatchObject({ code: 'internal' })
    expect(await readFile(folder.signingKeysFile, 'utf8')).toBe('{"current":{}}')
  })

  it('does not make keys for a command that only reads them', async () => {
    const folder = await openDataFolder(base, { create: true })
    await expect(readSigningKeys(folder)).rejects.toMatchObject({ code: 'not_found' })
    expect(await readdir(base)).toEqual([])
  })

  it('narrows a secret that others could read', async () => {
    const folder = await openDataFolder(base, { create: true })
    await readOrCreateSecret(folder)
    await chmod(folder.secretFile, 0o644)
    await readOrCreateSecret(folder)
    expect(await mode(folder.secretFile)).toBe(0o600)
    expect(folder.warnings).toEqual([expect.stringContaining('600 now')])
  })
})

describe('R45: one server per data folder', () => {
  it('refuses a second one until the first lets go', async () => {
    const folder = await openDataFolder(base, { create: true })
    const release = await lockDataFolder(folder, platform)
    await expect(lockDataFolder(folder, platform)).rejects.toThrow(
      `Another sreg-lite serve is using ${base}`,
    )
    release()
    ;(await lockDataFolder(folder, platform))()
  })

  it('holds against other processes, and a killed one leaves nothing behind', async () => {
    const folder = await openDataFolder(base, { create: true })
    const source = (name: string) =>
      JSON.stringify(new URL(`../../adapters/${name}`, import.meta.url).href)
    const child = spawn(process.execPath, [
      '--input-type=module',
      '--eval',
      `const { openDataFolder, lockDataFolder } = await import(${source('host/data-folder.ts')})
       const { platform } = await import(${source('node/main.ts')})
       await lockDataFolder(await openDataFolder(${JSON.stringify(base)}, { create: false }), platform)
       console.log('locked')
       setInterval(() => {}, 1000)`,
    ])
    await once(child.stdout, 'data')
    await expect(lockDataFolder(folder, platform)).rejects.toThrow(
      'Another sreg-lite serve is using',
    )
    child.kill('SIGKILL')
    await once(child, 'exit')
    ;(await lockDataFolder(folder, platform))()
  })
})
