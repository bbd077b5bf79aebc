/** Hostile input on Deno over TCP. */
import { describeHostAbuse } from './host-abuse.ts'

describeHostAbuse('Deno', 'deno')
