/** Documents of other servers, fetched by Bun. */
import { describeFetchJson } from '../contract/fetch-json.ts'

describeFetchJson('Bun')
