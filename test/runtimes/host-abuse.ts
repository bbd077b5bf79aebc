/** Hostile input on Bun or Deno over TCP, with nothing beside it: every answer has a second. */
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeOciAbuse } from '../protocol/oci-abuse.ts'
import { hostTarget, rssOf, type HostTarget } from './host-target.ts'

export function describeHostAbuse(name: string, runtime: 'bun' | 'deno'): void {
  describeOciAbuse(name, (options) => hostTarget(runtime, options))

  let first: HostTarget | null = null
  describeBadInput(
    name,
    async (options) => {
      const target = await hostTarget(runtime, options)
      first ??= target
      return target
    },
    () => (first === null ? 0 : rssOf(first.process.pid)),
  )
}
