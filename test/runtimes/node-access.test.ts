/** Who gets which answer, on Node over TCP. */
import { describeAccess } from '../protocol/access.ts'
import { accessTarget } from './host-access.ts'
import { nodeTarget } from './target.ts'

describeAccess('Node', async () => accessTarget(await nodeTarget()))
