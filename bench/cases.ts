/** Every case of the benchmark by its name, in the order in which they run. */
import { client } from './cases/client.ts'
import { lookup, metadata } from './cases/lookup.ts'
import { pull } from './cases/pull.ts'
import { push } from './cases/push.ts'
import { memoryOf, start } from './cases/start.ts'
import { stored } from './cases/stored.ts'
import { stores } from './cases/stores.ts'
import { sweep } from './cases/sweep.ts'
import { benchGrowth } from './growth.ts'
import { benchHerd } from './herd.ts'
import { benchKeys } from './keys.ts'
import { benchLarge } from './large.ts'
import type { Case } from './rounds.ts'

export const CASES: Record<string, Case> = {
  pull: { about: 'one large image, in one stream and in ranges', run: pull },
  push: { about: 'new content: one body, parts, eight at once', run: push },
  stored: { about: 'tags of stored images, and pushes of what is there', run: stored },
  lookup: { about: 'images by tag, arch and hash, on one core', run: lookup },
  metadata: { about: 'search, token check, manifests and small blobs, on one core', run: metadata },
  client: { about: 'the real client, library:// beside oras://', run: client },
  start: { about: 'from nothing to the first answer', run: start },
  memory: { about: 'memory, idle and at its highest', run: memoryOf },
  stores: { about: 'disk, and S3 with and without redirects', run: stores },
  sweep: { about: 'garbage collection of many blobs', run: sweep },
  herd: { about: 'a thousand clients pull one image at once', alone: true, run: benchHerd },
  large: {
    about: 'an image that is larger than memory, made on the fly',
    alone: true,
    run: benchLarge,
  },
  growth: {
    about: 'registries from a thousand images to a million',
    alone: true,
    run: async ({ folder, rounds, images, say }) => ({
      ...(await benchGrowth({ folder, rounds, sizes: images, say })),
      curve: { name: 'case', x: 'images', y: 'median ms' },
    }),
  },
  keys: { about: 'lookups in a large keystore', alone: true, run: benchKeys },
}
