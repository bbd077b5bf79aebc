/** What every runtime makes of the corpus of keys, and of texts that they signed (R17, R46, R53). */
import { describe, expect, it } from 'vitest'
import { mergeKeys, readClearsigned, readKeys, verifyClearsigned } from '../../src/core/openpgp.ts'
import type { KeyFacts } from '../../src/core/openpgp.ts'

const FILES = import.meta.glob('../fixtures/keys/*', {
  query: '?raw',
  import: 'default',
  eager: true,
})
const NOW = new Date('2026-06-01T00:00:00Z')

export function file(name: string): string {
  const text = FILES[`../fixtures/keys/${name}`]
  if (text === undefined) throw new Error(`There is no ${name}.`)
  return text
}

const day = (date: Date | null) =>
  date === null ? '' : ` until ${date.toISOString().slice(0, 10)}`

/** A key in one line: version, algorithm/bits | user ids | subkeys, each with what is unusual. */
function inWords(key: KeyFacts): string {
  const users = key.userIds.map(
    ({ text, email, revoked, expiresAt }) =>
      `${text}${email === null ? ' (no address)' : ''}${revoked ? ' revoked' : ''}${day(expiresAt)}`,
  )
  const subkeys = key.subkeys.map(
    ({ canSign, revoked, expiresAt }) =>
      `${canSign ? 'signing' : 'other'}${revoked ? ' revoked' : ''}${day(expiresAt)}`,
  )
  const head = `v${key.version} ${key.algorithm}/${key.bits}${key.revoked ? ' revoked' : ''}`
  return `${head}${day(key.expiresAt)} | ${users.join(', ')} | ${subkeys.join(', ')}`
}

const BEA = 'v4 22/256 | Bea <bea@example.org> | '
const ANN = 'v4 22/256 | ann <ann@example.org> | other'
const RSA = 'v4 1/2048 | rsa2048 <rsa2048@example.org> | '

/** Every file of the corpus that is a key, and what is kept of it. */
const KEPT: Record<string, string[]> = {
  // Algorithms.
  'gpg-rsa1024.asc': ['v4 1/1024 | rsa1024 <rsa1024@example.org> | '],
  'gpg-rsa2048.asc': [RSA],
  'gpg-rsa4096-as-apptainer-makes.asc': ['v4 1/4096 | apptainer <apptainer@example.org> | other'],
  'gpg-dsa-elgamal.asc': ['v4 17/2048 | dsa <dsa@example.org> | other'],
  'gpg-nistp256.asc': ['v4 19/256 | nistp256 <nistp256@example.org> | '],
  'gpg-nistp384.asc': ['v4 19/384 | nistp384 <nistp384@example.org> | '],
  'gpg-nistp521.asc': ['v4 19/521 | nistp521 <nistp521@example.org> | '],
  'gpg-ed25519.asc': [ANN],
  'version-4-ed25519-of-rfc-9580.asc': ['v4 27/256 | Modern <modern@example.org> | other'],
  'version-6-curve25519.asc': ['v6 27/256 | Six <six@example.org> | other'],
  'version-6-curve448.asc': ['v6 28/448 | Six <six@example.org> | other'],
  'version-6-expiry-in-a-user-id.asc': ['v6 27/256 | Six <six@example.org> | '],
  'gpg-sha1-self-signature.asc': ['v4 1/2048 | sha1 <sha1@example.org> | '],
  // How a key stands.
  'gpg-expired.asc': ['v4 22/256 until 2024-02-01 | expired <expired@example.org> | '],
  'gpg-expiry-extended.asc': ['v4 22/256 until 2034-01-01 | extended <extended@example.org> | '],
  'direct-key-signature.asc': ['v4 22/256 until 2024-01-02 | Bea <bea@example.org> | '],
  'gpg-revoked-before.asc': ['v4 22/256 | revoked <revoked@example.org> | '],
  'gpg-revoked.asc': ['v4 22/256 revoked | revoked <revoked@example.org> | '],
  'revoked-without-user-id.asc': ['v4 22/256 revoked |  | '],
  'revoked-in-the-future.asc': ['v4 22/256 revoked | Bea <bea@example.org> | '],
  'revoked-by-a-stranger.asc': [BEA],
  'gpg-designated-revoker.asc': ['v4 22/256 | heir <heir@example.org> | '],
  // Not honoured: see readKeys.
  'revoked-by-designated-revoker.asc': [BEA],
  'gpg-revoked-user-id-before.asc': [
    'v4 22/256 | Old <old@example.org>, alias <alias@example.org> | ',
  ],
  'gpg-revoked-user-id.asc': [
    'v4 22/256 | alias <alias@example.org>, Old <old@example.org> revoked | ',
  ],
  'user-id-certified-again-after-revocation.asc': [BEA],
  'revoked-user-id-without-certification.asc': [
    'v4 22/256 | Bea <bea@example.org>, Old <old@example.org> revoked | ',
  ],
  'user-id-expires.asc': ['v4 22/256 | Bea <bea@example.org> until 2024-01-02 | '],
  'primary-user-id-second.asc': ['v4 22/256 | First <first@example.org>, Bea <bea@example.org> | '],
  // Subkeys.
  'plain.asc': [`${BEA}other`],
  'gpg-signing-subkeys.asc': [
    'v4 22/256 | signer <signer@example.org> | signing, signing until 2024-02-01',
  ],
  'gpg-revoked-subkey.asc': [
    'v4 22/256 | signer <signer@example.org> | signing revoked, signing until 2024-02-01',
  ],
  'gpg-only-the-subkey-signs.asc': ['v4 22/256 | certify <certify@example.org> | signing'],
  'signing-subkey-not-cross-signed.asc': [`${BEA}other`],
  'signing-subkey-cross-signed.asc': [`${BEA}signing`],
  'signing-subkey-cross-signed-by-another.asc': [`${BEA}other`],
  'signing-subkey-taken-from-another-key.asc': [`${BEA}other`],
  'subkey-of-another-key.asc': [BEA],
  'broken-subkey.asc': [BEA],
  'no-user-id-but-a-subkey.asc': ['v4 22/256 |  | other'],
  // User ids are data, whatever they hold.
  'html-user-id.asc': ['v4 22/256 | <b>Bea</b> <script>alert(1)</script> (no address) | '],
  'crlf-user-id.asc': ['v4 22/256 | Bea\r\nSet-Cookie: a=b <b@example.org> | '],
  'control-characters-user-id.asc': ['v4 22/256 | Bea\0\u001b[31m\u0007 (no address) | '],
  'latin1-user-id.asc': ['v4 22/256 | B\ufffda (no address) | '],
  'empty-user-id.asc': ['v4 22/256 |  (no address) | '],
  'bare-address-user-id.asc': ['v4 22/256 | Bea@Example.org | '],
  // What is dropped, and leaves the rest.
  'gpg-certified-by-others.asc': ['v4 22/256 | popular <popular@example.org> | '],
  'photo.asc': [BEA],
  'unknown-packets.asc': [BEA],
  'huge-user-id.asc': [BEA],
  'user-id-without-self-signature.asc': [BEA],
  'user-id-signed-by-another.asc': [BEA],
  'critical-unknown-subpacket.asc': [BEA],
  'certified-in-the-future.asc': [BEA],
  'same-parts-twice.asc': [`${BEA}other`],
  // Several keys, and armor that is odd but whole.
  'gpg-two-keys.asc': [RSA, ANN],
  'gpg-five-keys.asc': [
    RSA,
    'v4 19/256 | nistp256 <nistp256@example.org> | ',
    'v4 19/384 | nistp384 <nistp384@example.org> | ',
    'v4 19/521 | nistp521 <nistp521@example.org> | ',
    ANN,
  ],
  'armors-two.asc': [ANN, RSA],
  'armor-crlf.asc': [BEA],
  'armor-with-headers.asc': [BEA],
  'armor-in-a-letter.asc': [BEA],
  'armor-wrong-checksum.asc': [BEA],
}

const NO_SIGNATURE = /^The key [0-9A-F]{40} has no valid signature of its own\.$/
const NOT_SUPPORTED = 'The key is broken, too large, or of an algorithm that is not supported.'
const OTHER_ARMOR = 'This is no public key but another kind of OpenPGP armor.'
const MESSAGE = 'This is an OpenPGP message, not a key.'

/** Every other file of the corpus, and what its sender reads. */
const REFUSED: Record<string, string | RegExp> = {
  'no-self-signature.asc': NO_SIGNATURE,
  'primary-key-alone.asc': NO_SIGNATURE,
  'only-a-foreign-self-signature.asc': NO_SIGNATURE,
  'signatures-of-another-key.asc': NO_SIGNATURE,
  'broken-self-signature.asc': NO_SIGNATURE,
  'broken-user-id.asc': NO_SIGNATURE,
  'gpg-brainpool.asc': NOT_SUPPORTED,
  'unknown-algorithm.asc': NOT_SUPPORTED,
  'rsa-16384.asc': NOT_SUPPORTED,
  'rsa-huge-exponent.asc': NOT_SUPPORTED,
  'bytes-behind-the-key.asc': NOT_SUPPORTED,
  'version-3.asc': 'Keys of version 3 and older are not safe, and not accepted.',
  'version-5.asc': 'Only OpenPGP keys of version 4 and 6 are accepted.',
  'gpg-six-keys.asc': 'There are more than 5 keys in it.',
  'parts-ahead-of-the-key.asc': /does not begin with a key/,
  'revocation-alone.asc': /does not begin with a key\. Import a revocation first/,
  'literal-data.asc': MESSAGE,
  'gpg-compressed-in-key-armor.asc': MESSAGE,
  'gpg-encrypted-in-key-armor.asc': MESSAGE,
  'gpg-message.asc': OTHER_ARMOR,
  'gpg-detached-signature.asc': OTHER_ARMOR,
  'gpg-clear-signed.asc': OTHER_ARMOR,
  'armor-of-a-signature.asc': OTHER_ARMOR,
  'armor-empty.asc': /no armored OpenPGP public key/,
  'armor-prose.asc': /no armored OpenPGP public key/,
  'armor-nothing-inside.asc': 'There is no public key in the armor.',
  'armor-without-end.asc': 'The armor is cut off: its END line is missing.',
  'armor-cut-in-the-middle.asc': 'The armor is cut off: its last packet is not complete.',
  'armor-without-empty-line.asc': /lacks the empty line/,
  'armor-no-base64.asc': /no base64/,
  'armor-no-packets.asc': /no OpenPGP packets/,
}

/** Signed texts of the corpus: the key they are checked with, and the verdict. */
const SIGNED: [text: string, key: string, good: boolean, why: string | null][] = [
  ['rsa2048-json', 'gpg-rsa2048.asc', true, null],
  ['apptainer-json', 'gpg-rsa4096-as-apptainer-makes.asc', true, null],
  ['dsa-json', 'gpg-dsa-elgamal.asc', true, null],
  ['nistp256-json', 'gpg-nistp256.asc', true, null],
  ['nistp521-json', 'gpg-nistp521.asc', true, null],
  ['ann-sifhash', 'gpg-ed25519.asc', true, null],
  ['ann-sifhash', 'gpg-two-keys.asc', true, null],
  ['ann-sifhash', 'plain.asc', false, 'No key is known that made this signature.'],
  ['ann-over-sha1', 'gpg-ed25519.asc', false, 'The signature is over SHA-1, which is not safe.'],
  ['certify-by-its-subkey', 'gpg-only-the-subkey-signs.asc', true, null],
  ['signer-by-a-subkey-revoked-since', 'gpg-signing-subkeys.asc', true, null],
  [
    'signer-by-a-subkey-revoked-since',
    'gpg-revoked-subkey.asc',
    false,
    'The subkey that signed is revoked.',
  ],
  [
    'signer-by-a-subkey-expired-since',
    'gpg-revoked-subkey.asc',
    true,
    'The key has expired since it signed.',
  ],
  [
    'expired-by-a-key-expired-since',
    'gpg-expired.asc',
    true,
    'The key has expired since it signed.',
  ],
  ['revoked-by-a-key-revoked-since', 'gpg-revoked-before.asc', true, null],
  ['revoked-by-a-key-revoked-since', 'gpg-revoked.asc', false, 'The key is revoked.'],
  [
    'rsa1024-by-a-short-key',
    'gpg-rsa1024.asc',
    false,
    'The key is too short: 1024 bits, and signatures need 2047.',
  ],
]

export function describeOpenPgp(): void {
  describe('the corpus of keys', () => {
    it('has an expected outcome for every file', () => {
      const names = Object.keys(FILES)
        .map((path) => path.slice('../fixtures/keys/'.length))
        .filter((name) => name.endsWith('.asc'))
      expect([...Object.keys(KEPT), ...Object.keys(REFUSED)].sort()).toEqual(names.sort())
      expect(names.length).toBeGreaterThanOrEqual(40)
    })

    it.each(Object.entries(KEPT))('R53 keeps of %s what is valid', async (name, expected) => {
      const keys = await readKeys(file(name), NOW)
      expect(keys.map(inWords)).toEqual(expected)
      for (const key of keys) {
        // What was kept is a key by itself, and the same one.
        expect(await readKeys(key.armor, NOW)).toEqual([key])
        expect(key.fingerprint).toMatch(key.version === 6 ? /^[0-9A-F]{64}$/ : /^[0-9A-F]{40}$/)
        expect(key.keyId).toBe(
          key.version === 6 ? key.fingerprint.slice(0, 16) : key.fingerprint.slice(24),
        )
      }
    })

    it.each(Object.entries(REFUSED))('R53 refuses %s with a sentence', async (name, sentence) => {
      const text = file(name)
      const error = await readKeys(text, NOW).then(
        () => null,
        (error: unknown) => error as Error,
      )
      expect(error).toMatchObject({
        code: 'invalid',
        subject: 'key',
        message: typeof sentence === 'string' ? sentence : expect.stringMatching(sentence),
      })
      const lines = text.split(/\s+/).filter((line) => line.length > 20)
      for (const line of lines) expect(String(error?.stack)).not.toContain(line)
    })
  })

  describe('merging', () => {
    const merged = async (a: string, b: string) => inWords(await mergeKeys(file(a), file(b), NOW))

    it.each([
      ['gpg-revoked-before.asc', 'gpg-revoked.asc'],
      ['gpg-revoked-user-id-before.asc', 'gpg-revoked-user-id.asc'],
      ['gpg-signing-subkeys.asc', 'gpg-revoked-subkey.asc'],
    ])('R46 a revocation is not lost: %s and %s', async (before, after) => {
      expect([await merged(before, after)]).toEqual(KEPT[after])
      expect([await merged(after, before)]).toEqual(KEPT[after])
    })

    it('joins what two copies have', async () => {
      expect(await merged('html-user-id.asc', 'plain.asc')).toBe(
        'v4 22/256 | <b>Bea</b> <script>alert(1)</script> (no address), Bea <bea@example.org> | other',
      )
    })

    it('refuses two different keys', async () => {
      await expect(merged('plain.asc', 'gpg-ed25519.asc')).rejects.toThrow(
        'Only two copies of the same key can be merged.',
      )
    })
  })

  describe('clear-signed texts', () => {
    it.each(SIGNED)('R17 %s with %s is good: %s', async (name, key, good, why) => {
      const text = file(`signed-${name}.txt`)
      const verdict = await verifyClearsigned(text, [file(key)], NOW)
      expect({ good: verdict.good, why: verdict.why }).toEqual({ good, why })
      const issuer = (await readClearsigned(text))?.issuers[0] ?? ''
      const signer = (await readKeys(file(key), NOW)).find(({ fingerprint, subkeys }) =>
        [fingerprint, ...subkeys.map((subkey) => subkey.fingerprint)].includes(issuer),
      )
      if (good) expect(verdict.fingerprint).toBe(signer?.fingerprint)
    })

    it('tells the text and who is said to have signed it', async () => {
      const [ann] = await readKeys(file('gpg-ed25519.asc'), NOW)
      expect(await readClearsigned(file('signed-ann-sifhash.txt'))).toEqual({
        plaintext: `SIFHASH:\n${'0123456789abcdef'.repeat(6)}`,
        issuers: [ann?.fingerprint],
      })
      expect(await readClearsigned(file('gpg-clear-signed.asc'))).toMatchObject({
        plaintext: 'text\n- dashed',
      })
    })
  })
}
