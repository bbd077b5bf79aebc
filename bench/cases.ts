/** Every case of the benchmark by its name, in the order in which they run: those with a goal come first. */
import { client } from './cases/client.ts'
import { growth } from './cases/growth.ts'
import { herd } from './cases/herd.ts'
import { keys } from './cases/keys.ts'
import { large } from './cases/large.ts'
import { lookup, metadata } from './cases/lookup.ts'
import { pull } from './cases/pull.ts'
import { push } from './cases/push.ts'
import { memoryOf, start } from './cases/start.ts'
import { stored } from './cases/stored.ts'
import { stores } from './cases/stores.ts'
import { sweep } from './cases/sweep.ts'
import type { Case } from './rounds.ts'

/** Rounds of cases that the project has no goal for: all cases together are to end within 75 minutes. */
const FEWER = 3

export const CASES: Record<string, Case> = {
  pull: { about: 'one large image, in one stream and in ranges', run: pull },
  push: { about: 'new content: one body, parts, eight at once', run: push },
  client: { about: 'the real client, library:// beside oras://', run: client },
  stored: { about: 'tags of stored images, and pushes of what is there', run: stored },
  lookup: { about: 'images by tag, arch and hash, on one core', run: lookup },
  growth: { about: 'registries from a thousand images to a million', run: growth },
  herd: { about: 'a thousand clients pull one image at once', run: herd },
  large: { about: 'an image that is larger than memory, made on the fly', rounds: 1, run: large },
  metadata: {
    about: 'search, token check, manifests and small blobs, on one core',
    rounds: FEWER,
    run: metadata,
  },
  start: { about: 'from nothing to the first answer', rounds: FEWER, run: start },
  memory: { about: 'memory, idle and at its highest', rounds: FEWER, run: memoryOf },
  stores: { about: 'disk, and S3 with and without redirects', rounds: FEWER, run: stores },
  sweep: { about: 'garbage collection of many blobs', rounds: FEWER, run: sweep },
  keys: { about: 'lookups in a large keystore', rounds: FEWER, run: keys },
}
