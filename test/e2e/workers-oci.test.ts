/** Clients of OCI registries, the real one among them, against the registry in workerd. */
import { workersTarget } from '../runtimes/workers-target.ts'
import { describeOciClients } from './oci.ts'

describeOciClients('Workers', workersTarget)
