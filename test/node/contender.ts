/** A process that listens on a port at the moment it is told, says whether it may, and shuts when told so. */
import { createServer } from 'node:http'
import type { Server } from 'node:net'
import { listenTogether, shut } from '../../adapters/node/acceptors.ts'

export type Told = { host: string; port: number; at: number } | 'shut'
export type Said = 'ready' | 'listens' | 'refused' | 'shut'

const say = (word: Said) => process.send?.(word)
let open: Server[] = []

process.on('message', (told: Told) => {
  if (told === 'shut') {
    void Promise.all(open.splice(0).map(shut)).then(() => say('shut'))
    return
  }
  // no timer is as exact
  while (Date.now() < told.at);
  listenTogether(createServer(), told, { allowHalfOpen: true, failed: () => {} }).then(
    (listening) => {
      open = listening
      say('listens')
    },
    () => say('refused'),
  )
})
say('ready')
