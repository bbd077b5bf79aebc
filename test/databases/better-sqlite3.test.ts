/** The SQLite file under Node against the contract. */
import * as betterSqlite3 from '../../adapters/databases/better-sqlite3.ts'
import { describeSqliteFile } from '../contract/sqlite-file.ts'

describeSqliteFile('better-sqlite3', betterSqlite3)
