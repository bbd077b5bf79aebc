/** The corpus of keys and signed texts inside Deno. */
import { describeOpenPgp } from '../contract/openpgp.ts'

describeOpenPgp()
