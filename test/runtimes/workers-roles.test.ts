/** Every route for every role in every situation, in workerd over TCP. */
import { describeRoles } from '../protocol/roles.ts'
import { workersTarget } from './workers-target.ts'

// R25: part addresses are signed without the database, and an isolate knows of ended tokens only what
// it has ended itself. The two situations come after a restart.
const REVOKED = '1444244444214'

describeRoles('Workers', workersTarget, {
  'PUT /v2/imagefile/:id/_multipart': { 'read-only': REVOKED, 'limit reached': REVOKED },
})
