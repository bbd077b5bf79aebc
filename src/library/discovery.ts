/** What a client asks before anything else (protocol.md §1, apptainer-wire.md §2). */
import { identify } from '../core/access.ts'
import { isOciToken, publicKeys } from '../core/tokens.ts'
import { isRegistryError, RegistryError } from '../errors.ts'
import type { Ctx } from '../http/context.ts'
import { PRIVATE } from '../http/json-resp.ts'
import { originOf } from '../http/origin.ts'
import type { LibraryDeps } from './routes.ts'
import { reply } from '../http/reply.ts'

/** From alpha.2 on clients use uploads in parts and tags per arch. */
const API_VERSION = '2.0.0-alpha.2'

export function discoveryHandlers(deps: LibraryDeps) {
  const version = JSON.stringify({ data: { version: deps.version, apiVersion: API_VERSION } })
  const keys = JSON.stringify(publicKeys(deps.keys))
  const json = { 'Content-Type': 'application/json' }

  async function whoami(c: Ctx) {
    const claims = await deps.authenticate(c)
    if (claims === null)
      throw new RegistryError('unauthenticated', 'This needs a token.', { subject: 'token' })
    c.env.entry.userId = claims.userId
    const standing = await deps.database.tokens.standing(claims, deps.clock.now())
    return identify(claims, standing)
  }

  return {
    /** `/assets/config/config.prod.json`: every value an object, URIs without trailing slash. */
    config(c: Ctx): Response {
      const uri = originOf(c, deps.config)
      const body = {
        // registryUri: where SingularityCE from 4.1 on pushes OCI-SIF that are addressed by library://
        libraryAPI: { uri, registryUri: uri },
        keystoreAPI: { uri },
        tokenAPI: { uri },
      }
      // R33: what is built from a Host header must not be cached for others
      return reply(JSON.stringify(body), 200, { ...json, 'Cache-Control': 'no-store' })
    },

    version(): Response {
      return reply(version, 200, json)
    },

    /** The registry's public keys, for whoever wants to verify its tokens. */
    keys(): Response {
      return reply(keys, 200, json)
    },

    /** 404 means "Invalid Credentials" to clients, 401 only "Unknown" (apptainer-wire.md §0.6). */
    async tokenStatus(c: Ctx): Promise<Response> {
      try {
        await whoami(c)
        return reply('{"data":{"status":"valid"}}', 200, { ...json, ...PRIVATE })
      } catch (error) {
        if (!isRegistryError(error, 'unauthenticated')) throw error
        throw new RegistryError('not_found', error.message, { subject: 'token', cause: error })
      }
    },

    /**
     * Bare JSON, no envelope. `secret` is the very token presented: nothing is minted (R36);
     * `get-login-password` prints it for a login to the OCI side, whose own tokens and passwords get 404.
     */
    async currentUser(c: Ctx): Promise<Response> {
      const [, scheme = '', secret = ''] =
        /^(\S+)\s*(.*)$/.exec(c.req.header('authorization')?.trim() ?? '') ?? []
      const identity = await whoami(c).catch((error: unknown) => {
        const other = scheme.toLowerCase() === 'basic' || isOciToken(secret)
        if (!other || !isRegistryError(error, 'unauthenticated')) throw error
        throw new RegistryError('not_found', 'There is no password for this kind of login.', {
          subject: 'token',
          cause: error,
        })
      })
      if (identity.kind !== 'user') throw new Error('whoami lets nobody through')
      const host = new URL(originOf(c, deps.config)).hostname
      const { userId: id, userName: username } = identity
      const email = `${username}@${host}`
      const body = { id, username, realname: username, email, oidc_user_meta: { secret } }
      return reply(JSON.stringify(body), 200, { ...json, ...PRIVATE })
    },

    /** Any 200 would commit the client to its OCI path without a way back: stay with the library. */
    ociRedirect(): Response {
      throw new RegistryError('not_found', 'Library images are served by the library API.', {
        subject: 'route',
      })
    },

    /** Only for people who pass --builder: the service is not in the configuration document. */
    build(): Response {
      throw new RegistryError('unimplemented', 'Remote builds are not available on this registry.')
    },
  }
}
