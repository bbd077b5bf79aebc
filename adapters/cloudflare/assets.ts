/** Files of others that pages need, as static assets of the deployment ([assets] in wrangler.toml). */
import type { Fetcher } from '@cloudflare/workers-types'
import type { Assets } from '../../src/ports.ts'

export function workerAssets(binding: Pick<Fetcher, 'fetch'>): Assets {
  return {
    async get(name) {
      // the host is looked at by nobody
      const answer = await binding.fetch(`https://assets.invalid/${name}`)
      if (answer.status === 200) return new Uint8Array(await answer.arrayBuffer())
      await answer.body?.cancel()
      if (answer.status === 404) return null
      throw new Error(`the asset ${name} answers ${answer.status}`)
    },
  }
}
