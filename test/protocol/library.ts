/**
 * The library API over HTTP, against any runtime: `makeTarget` is all that is known of it. Tests
 * name the rule of the threat model they guard.
 */
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { describeCatalog } from './library-catalog.ts'
import { describeDiscovery } from './library-discovery.ts'
import { describeDocs } from './docs.ts'
import { describeDownloads } from './library-downloads.ts'
import { describeUploads } from './library-uploads.ts'

export function describeLibrary(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describeDiscovery(name, makeTarget)
  describeCatalog(name, makeTarget)
  describeUploads(name, makeTarget)
  describeDownloads(name, makeTarget)
  describeDocs(name, makeTarget)
}
