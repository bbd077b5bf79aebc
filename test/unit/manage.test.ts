/** A refused setup secret: one answer for the caller, the reason for the log line (R19, R34). */
import { generateKeyPairSync } from 'node:crypto'
import { expect, test } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import { openDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { migrations } from '../../adapters/host/program.ts'
import { consoleLog, randomIds, systemClock } from '../../adapters/system.ts'
import {
  createAdmin,
  createExports,
  createImports,
  createKeyring,
  tokenIssuer,
} from '../../src/admin.ts'
import { createAccess, DEFAULT_RULES } from '../../src/core/access.ts'
import { createPeople } from '../../src/core/people.ts'
import { createAudit } from '../../src/core/audit.ts'
import { createPolicies } from '../../src/core/policies.ts'
import { createPopularity } from '../../src/core/popularity.ts'
import { createQuotas } from '../../src/core/quotas.ts'
import { createShares } from '../../src/core/shares.ts'
import { createSharing } from '../../src/core/sharing.ts'
import { createTeams } from '../../src/core/teams.ts'
import { newEntry } from '../../src/http/context.ts'
import { webTransfer } from '../../src/http/transfer.ts'
import { manageRoutes } from '../../src/manage/routes.ts'
import { testLimits } from '../fixtures/limits.ts'

const SECRET = 'a setup secret of more than thirty-two characters'

test('why a setup secret is refused stands in the log line alone', async () => {
  const opened = await openDatabase(':memory:', { mode: 'server', migrations: migrations() })
  const { database } = opened
  const { x, d } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
  const signingKey = { kty: 'OKP', crv: 'Ed25519', x, d, kid: 'test' }
  const issuer = tokenIssuer({ registryId: randomIds.next(), signingKey })
  const admin = createAdmin({ database, ids: randomIds, clock: systemClock, issuer })
  const access = createAccess(DEFAULT_RULES)
  const moving = {
    database,
    blobs: memoryBlobs(),
    clock: systemClock,
    ids: randomIds,
    log: consoleLog({ form: 'off' }),
    registryId: randomIds.next(),
    keyIds: ['test'],
    minFree: 0,
  }
  const deps = { database, clock: systemClock, access }
  const shared = {
    admin,
    access,
    people: createPeople({
      database,
      access,
      issuer,
      clock: systemClock,
      ids: randomIds,
      tokenMaxAge: Infinity,
    }),
    audit: createAudit({ database, clock: systemClock, access }),
    policies: createPolicies(deps),
    quotas: createQuotas(deps),
    popularity: createPopularity(deps),
    shares: createShares({ ...deps, ids: randomIds, shortRefs: 'default' }),
    config: { publicUrl: null, trustedProxies: [] },
    teams: createTeams({ database, clock: systemClock, ids: randomIds, access }),
    sharing: createSharing({ database, clock: systemClock, ids: randomIds, access }),
    database,
    clock: systemClock,
    transfer: webTransfer,
    keyring: createKeyring({
      access,
      database,
      clock: systemClock,
      registryId: 'test',
      policy: { add: 'token', read: 'public' },
    }),
    exports: createExports(moving),
    imports: createImports(moving),
  }
  async function claim(secret: string, setupSecret: string | null) {
    const app = manageRoutes({
      ...shared,
      ...(setupSecret === null ? {} : { setupSecret }),
      authenticate: () => Promise.resolve(null),
      limits: testLimits(),
    })
    const entry = newEntry('r1')
    const request = new Request('http://x/v1/first-admin', {
      method: 'POST',
      body: JSON.stringify({ secret }),
    })
    const response = await app.fetch(request, { entry, peer: { address: null, encrypted: false } })
    return { status: response.status, text: await response.text(), entry }
  }

  try {
    const unset = await claim(SECRET, null)
    const wrong = await claim(`${SECRET}.`, SECRET)
    const good = await claim(SECRET, SECRET)
    const used = await claim(SECRET, SECRET)
    expect(good.status).toBe(200)
    // there was no administrator: this made one
    const [first] = await database.users.list()
    expect(first).toMatchObject({ name: 'admin', role: 'admin', id: good.entry.userId })
    expect(JSON.parse(good.text).data.id).toBe(good.entry.tokenId)
    for (const { status, text } of [wrong, used]) expect([status, text]).toEqual([403, unset.text])
    expect([unset, wrong, used].map(({ entry }) => entry.reason)).toEqual([
      'no setup secret is configured',
      'a wrong setup secret',
      'the setup secret was used before',
    ])
    for (const { entry } of [unset, wrong, good, used])
      expect(JSON.stringify(entry)).not.toContain(SECRET)
  } finally {
    opened.close()
  }
})
