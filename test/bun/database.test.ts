/** The SQLite file under Bun, by Bun itself, against the contract. */
import { expect, it } from 'vitest'
import * as betterSqlite3 from '../../adapters/databases/better-sqlite3.ts'
import * as bunSqlite from '../../adapters/databases/bun-sqlite.ts'
import { describeBusyFile, describeSqliteFile } from '../contract/sqlite-file.ts'

it('runs inside Bun', () => expect(process.versions).toHaveProperty('bun'))

describeSqliteFile('bun:sqlite', bunSqlite, { 'better-sqlite3': betterSqlite3 })
describeBusyFile('bun:sqlite', bunSqlite)
