/**
 * Prints fresh secrets for a deployment on Workers, as a file for `wrangler secret bulk`:
 *
 *   node scripts/worker-secrets.mjs > secrets.json
 */
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto'

const { x, d } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
const members = { crv: 'Ed25519', kty: 'OKP', x }
// Named by its thumbprint (RFC 7638), as the keys of data folders are.
const kid = createHash('sha256').update(JSON.stringify(members)).digest('base64url')
const keys = { current: { ...members, kid, d }, previous: [] }
const secrets = {
  SREG_SECRET: randomBytes(32).toString('hex'),
  SREG_SIGNING_KEYS: JSON.stringify(keys),
  SREG_SETUP_SECRET: randomBytes(32).toString('hex'),
}
process.stdout.write(`${JSON.stringify(secrets, null, 2)}\n`)
