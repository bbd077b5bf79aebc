/** Who gets which answer, on Bun over TCP. */
import { describeAccess } from '../protocol/access.ts'
import { accessTarget } from './host-access.ts'
import { hostTarget } from './host-target.ts'

describeAccess('Bun', async () => accessTarget(await hostTarget('bun')))
