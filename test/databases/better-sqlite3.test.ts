/** The SQLite file under Node against the contract. */
import * as betterSqlite3 from '../../adapters/databases/better-sqlite3.ts'
import * as nodeSqlite from '../../adapters/databases/node-sqlite.ts'
import { describeSqliteFile } from '../contract/sqlite-file.ts'

describeSqliteFile('better-sqlite3', betterSqlite3, { 'node:sqlite': nodeSqlite })
