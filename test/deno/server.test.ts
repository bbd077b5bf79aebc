/** The server of Deno, in Deno itself. */
import { listen } from '../../adapters/deno/server.ts'
import { describeWebServer } from '../runtimes/web-server.ts'

describeWebServer('Deno', listen)
