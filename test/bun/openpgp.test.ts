/** The corpus of keys and signed texts inside Bun. */
import { describeOpenPgp } from '../contract/openpgp.ts'

describeOpenPgp()
