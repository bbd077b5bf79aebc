/** The server of Bun, in Bun itself. */
import { listen } from '../../adapters/bun/server.ts'
import { bunTransfer } from '../../adapters/bun/transfer.ts'
import { describeWebServer } from '../runtimes/web-server.ts'

describeWebServer('Bun', listen, { transferOf: bunTransfer })
