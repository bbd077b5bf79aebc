/** The real client against the registry on Deno. */
import { hostTarget } from '../runtimes/host-target.ts'
import { describeClient, describeOneTag, describeRangeFailures } from './suite.ts'

describeClient('Deno', () => hostTarget('deno'))
describeRangeFailures('Deno', () => hostTarget('deno'))
describeOneTag('Deno', () => hostTarget('deno'))
