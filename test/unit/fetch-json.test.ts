/** Documents of other servers, fetched by Node. */
import { describeFetchJson } from '../contract/fetch-json.ts'

describeFetchJson('Node')
