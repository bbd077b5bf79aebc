/** The corpus of keys and signed texts inside workerd. */
import { describeOpenPgp } from '../contract/openpgp.ts'

describeOpenPgp()
