/** createApp: puts the protocols on one root, in the right order. */
import { Hono } from 'hono'
import { RegExpRouter } from 'hono/router/reg-exp-router'
import { createAdmin } from './admin.ts'
import type { Config } from './config.ts'
import { createAccess, operatorClaims } from './core/access.ts'
import { createAudit } from './core/audit.ts'
import { createBridge } from './core/bridge.ts'
import { createCatalog } from './core/catalog.ts'
import { createKeyring } from './core/keyring.ts'
import { createManifests } from './core/manifests.ts'
import { createExports, createImports } from './core/moving.ts'
import type { Claims } from './core/model.ts'
import { createOciLogins } from './core/oci-access.ts'
import { createOciUploads } from './core/oci-uploads.ts'
import { createPeople } from './core/people.ts'
import { createPolicies } from './core/policies.ts'
import { createPopularity } from './core/popularity.ts'
import { createQuotas } from './core/quotas.ts'
import { createRepositories } from './core/repositories.ts'
import { createShares } from './core/shares.ts'
import { createSharing } from './core/sharing.ts'
import { createSweep, type Sweep, type SweepBudget } from './core/sweep.ts'
import { createTallies } from './core/tallies.ts'
import { createTeams } from './core/teams.ts'
import { eitherVerifier, ociTokenVerifier, type JWK, type TokenIssuer } from './core/tokens.ts'
import { createUploads } from './core/uploads.ts'
import { createVerdicts } from './core/verdicts.ts'
import { hkpRoutes } from './hkp/routes.ts'
import { authenticate } from './http/authenticate.ts'
import type { Bindings, Connection, Ctx, Env } from './http/context.ts'
import { createLimits } from './http/limit.ts'
import { logged } from './http/log.ts'
import { networkOf } from './http/origin.ts'
import { openApi } from './http/openapi.ts'
import { ticketBox } from './http/ticket.ts'
import type { Transfer } from './http/transfer.ts'
import { libraryRoutes } from './library/routes.ts'
import { manageRoutes } from './manage/routes.ts'
import { authenticate as authenticateOci } from './oci/authenticate.ts'
import { ociRoutes } from './oci/routes.ts'
import type {
  Assets,
  BlobStore,
  Clock,
  Database,
  Ended,
  Ids,
  Log,
  RateLimiter,
  TokenVerifier,
} from './ports.ts'
import { shubRoutes } from './shub/routes.ts'
import { webRoutes } from './web/routes.ts'

export {
  brokenBody,
  endedEarly,
  streamTransfer,
  webTransfer,
  type Poured,
  type Rate,
  type Transfer,
} from './http/transfer.ts'
export type { Bindings, Connection, Ctx } from './http/context.ts'
export { isTrusted, parseAddress } from './http/origin.ts'
export { ENDED_MS, type Sweep, type SweepBudget, type SweepReport } from './core/sweep.ts'

export type Deps = {
  config: Pick<
    Config,
    | 'publicUrl'
    | 'trustedProxies'
    | 'shortRefs'
    | 'minFree'
    | 'maxImage'
    | 'sweepGrace'
    | 'sweepInterval'
    | 'keys'
    | 'limits'
    | 'audit'
    | 'checkSignatures'
    | 'access'
    | 'tokenMaxAge'
    | 'defaultQuota'
    | 'ociReferrers'
  >
  version: string
  /** Binds tickets, tokens, database and blob store to each other (R10, R12, R13). */
  registryId: string
  /** Secret for tickets, and the former one while its tickets run out (R37). */
  secret: string
  previousSecret?: string
  /** Good once for an administrator's token (R19). */
  setupSecret?: string
  database: Database
  blobs: BlobStore
  verifier: TokenVerifier
  /** In process, on the command line beside a data folder: who asks (`cli:` and a name), without a token. */
  operator?: string
  /** Public keys (JWK) that tokens are verified with. */
  keys: JWK[]
  /** Signs the tokens that are made over HTTP. */
  issuer: TokenIssuer
  transfer: Transfer
  /** What the viewer at /docs is made of; without it there is the document only. */
  assets?: Assets
  limiter: RateLimiter
  ended: Ended
  /** Counts are written together, at most this often; 5 s where nothing is said. */
  tallyEveryMs?: number
  clock: Clock
  ids: Ids
  log: Log
  /** For a sweep that runs where no process lives between two requests, in small steps. */
  sweep?: { budget: SweepBudget; persistent: boolean }
}

export type App = {
  /** Answers one request; `connection` says what only the runtime knows about it. */
  fetch(request: Request, connection: Connection): Response | Promise<Response>
  sweep: Sweep
  /** Writes what is still counted in memory. */
  flush(): Promise<void>
}

/**
 * Builds the registry. Mount order matters (docs/decisions/0001): the management API before the
 * library, which owns the rest of `/v1`; the library before OCI, because its `/v2/imagefile` and
 * `/v2/tags` lie under OCI's prefix; `web` last, because it owns the rest.
 */
export function createApp(deps: Deps): App {
  const { config, database, blobs, clock, ids, log } = deps
  const { minFree, maxImage, checkSignatures, defaultQuota, shortRefs, ociReferrers } = config
  const access = createAccess(config.access)
  const shared = { ...deps, access, minFree, maxImage, checkSignatures, defaultQuota, shortRefs }
  const shares = createShares(shared)
  const verdicts = createVerdicts(deps)
  const tallies = createTallies({ ...deps, everyMs: deps.tallyEveryMs })
  const defer = (c: { env: Connection }, work: Promise<unknown> | null) => {
    const done = work?.catch((error: unknown) =>
      log.event('error', 'deferred', { reason: String(error) }),
    )
    if (done !== undefined) c.env.waitUntil?.(done)
  }
  const identified =
    (by: typeof authenticate, verifier: TokenVerifier) =>
    async (c: Ctx, options?: { expired?: boolean }): Promise<Claims | null> => {
      if (deps.operator !== undefined) return operatorClaims(deps.operator)
      const claims = await by(c, verifier, options)
      if (claims === null) return null
      defer(c, tallies.tokenUse(claims.tokenId))
      return { ...claims, address: c.env.entry.address }
    }
  const common = {
    ...deps,
    limits: createLimits({ ...deps, tallies, defer }),
    access,
    authenticate: identified(authenticate, deps.verifier),
  }
  const tickets = ticketBox({
    secret: deps.secret,
    registryId: deps.registryId,
    ...(deps.previousSecret === undefined ? {} : { previous: deps.previousSecret }),
  })

  const keyring = createKeyring({
    ...deps,
    access,
    policy: config.keys,
    async changed(fingerprints) {
      const done = await verdicts.reverify(fingerprints, 2)
      // where no process lives on, the sweep does the rest
      if (done || deps.sweep !== undefined) return
      void verdicts
        .reverify(fingerprints, Infinity)
        .catch((error: unknown) => log.event('error', 'reverify', { reason: String(error) }))
    },
    challenges: {
      make: ({ fingerprint, userId }, notAfter) =>
        tickets.sign('key-claim', { key: fingerprint, subject: userId }, notAfter),
      read(ticket, now) {
        const { key, subject } = tickets.open('key-claim', ticket, now)
        return { fingerprint: key ?? '', userId: subject ?? '' }
      },
    },
  })

  // named, and not left to Hono to choose: a path that this router cannot hold ends the start, where
  // otherwise another one would take over that takes twice as long for every request
  const root = new Hono<Env>({ router: new RegExpRouter(), strict: false })
  const keyIds = deps.keys.map(({ kid }) => kid ?? '')
  const catalog = createCatalog(shared)
  const repositories = createRepositories({ ...shared, catalog })
  const bridge = createBridge({ ...shared, catalog })
  const protocols = [
    manageRoutes({
      ...common,
      admin: createAdmin({ ...deps, tokenMaxAge: config.tokenMaxAge }),
      keyring,
      people: createPeople({ ...shared, tokenMaxAge: config.tokenMaxAge }),
      policies: createPolicies(shared),
      audit: createAudit(shared),
      quotas: createQuotas(shared),
      popularity: createPopularity(shared),
      shares,
      teams: createTeams(shared),
      sharing: createSharing(shared),
      exports: createExports({ ...shared, keyIds }),
      imports: createImports({ ...shared, keyIds }),
    }),
    libraryRoutes({
      ...common,
      tickets,
      catalog,
      uploads: createUploads(shared),
      shares,
      tallies,
      defer,
    }),
    hkpRoutes({ ...common, keyring, policy: config.keys }),
  ]
  const shub = shubRoutes({ ...common, catalog })
  const oci = ociRoutes({
    ...common,
    authenticate: identified(
      authenticateOci,
      eitherVerifier(deps.verifier, ociTokenVerifier(deps)),
    ),
    logins: createOciLogins(deps),
    manifests: createManifests({ ...shared, repositories, bridge, ociReferrers }),
    uploads: createOciUploads({ ...shared, repositories }),
    tickets,
    tallies,
    defer,
  })
  const { version } = deps
  const document = () => {
    const tables = [...protocols, shub, oci, web].map(({ table }) => table)
    return openApi(tables, { version, publicUrl: config.publicUrl })
  }
  const web: ReturnType<typeof webRoutes> = webRoutes({ ...common, document })
  for (const protocol of protocols) root.route('/', protocol)
  // Called and not mounted: OCI's names with slashes, and an entity before `/api`, are no paths for
  // the router of all the others.
  const rest = new Hono<Env>({ strict: false }).route('/', shub).route('/', web)
  root.all('/v2/*', (c) => oci.fetch(c.req.raw, c.env))
  root.all('/*', (c) => rest.fetch(c.req.raw, c.env))

  return {
    fetch: logged((request, bindings: Bindings) => root.fetch(request, bindings), {
      log,
      clock,
      ids,
      trustedProxies: config.trustedProxies,
      refused(request, bindings) {
        const { code, userId, tokenId, address, route, refusal, asksForAnother } = bindings.entry
        // a client without a token, or with a smaller one, asks like that before it logs in
        const asks = asksForAnother || !request.headers.has('authorization')
        if (code === 'unauthenticated' && asks) return
        const denial = tallies.denied({
          actorId: userId ?? '',
          tokenId: tokenId ?? '',
          address: address === null ? '' : networkOf(address),
          action: `${request.method} ${route ?? ''}`,
          detail: refusal ?? '',
        })
        defer({ env: bindings }, denial)
      },
    }),
    sweep: createSweep({
      database,
      blobs,
      clock,
      log,
      registryId: deps.registryId,
      graceSeconds: config.sweepGrace,
      intervalSeconds: config.sweepInterval,
      checkSignatures,
      audit: config.audit,
      ...deps.sweep,
    }),
    flush: tallies.flush,
  }
}
