/** The server of Deno, in Deno itself. */
import { listen } from '../../adapters/deno/server.ts'
import { describeWebServer } from '../runtimes/web-server.ts'

describeWebServer('Deno', listen, {
  lingers: 'Deno.serve has no way to end a connection whose request body is not read to its end',
  keepsIdle: 'Deno.serve keeps idle connections for ever',
})
