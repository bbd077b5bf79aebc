/** Hostile input on Bun over TCP. */
import { describeHostAbuse } from './host-abuse.ts'

describeHostAbuse('Bun', 'bun')
