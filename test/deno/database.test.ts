/** The SQLite file under Deno, by Deno itself, against the contract. */
import { expect, it } from 'vitest'
import * as betterSqlite3 from '../../adapters/databases/better-sqlite3.ts'
import * as nodeSqlite from '../../adapters/databases/node-sqlite.ts'
import { describeBusyFile, describeSqliteFile } from '../contract/sqlite-file.ts'

it('runs inside Deno', () => expect(process.versions).toHaveProperty('deno'))

describeSqliteFile('node:sqlite', nodeSqlite, { 'better-sqlite3': betterSqlite3 })
describeBusyFile('node:sqlite', nodeSqlite)
