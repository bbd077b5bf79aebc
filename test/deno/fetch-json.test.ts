/** Documents of other servers, fetched by Deno. */
import { describeFetchJson } from '../contract/fetch-json.ts'

describeFetchJson('Deno')
