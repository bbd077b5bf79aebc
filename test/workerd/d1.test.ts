/** D1 inside workerd against the contract. */
import { describeDatabase } from '../contract/database.ts'
import { make } from './database.ts'

describeDatabase('D1', { make, worlds: 6 })
