/** POST /pks/add: a form with one field, the armor (protocol.md §7.1). */
import type { Keyring } from '../core/keyring.ts'
import { RegistryError } from '../errors.ts'
import { readText } from '../http/body.ts'
import type { Ctx } from '../http/context.ts'
import { PRIVATE } from '../http/json-resp.ts'
import type { Transfer } from '../http/transfer.ts'
import { CORS } from './lookup.ts'
import { reply } from '../http/reply.ts'

/** An armor of 1 MiB (R53) and its escapes. */
const LARGEST = 1_500_000

export function addHandler({ keyring, transfer }: { keyring: Keyring; transfer: Transfer }) {
  return async (c: Ctx): Promise<Response> => {
    const form = new URLSearchParams(await readText(c, transfer, LARGEST))
    const armor = form.get('keytext') ?? ''
    if (armor.trim() === '')
      throw new RegistryError('invalid', 'The field keytext holds no public key.', {
        subject: 'key',
      })
    const added = await keyring.add(armor, c.get('claims'), c.env.entry.address)
    const names = added.map(({ fingerprint }) => fingerprint).join(', ')
    // Apptainer prints this line as it is
    return reply(`Received ${added.length === 1 ? 'the key' : 'the keys'} ${names}\n`, 200, {
      'Content-Type': 'text/plain; charset=utf-8',
      ...CORS,
      ...PRIVATE,
    })
  }
}
