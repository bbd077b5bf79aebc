/** Who gets which answer, on Deno over TCP. */
import { describeAccess } from '../protocol/access.ts'
import { accessTarget } from './host-access.ts'
import { hostTarget } from './host-target.ts'

describeAccess('Deno', async () => accessTarget(await hostTarget('deno')))
