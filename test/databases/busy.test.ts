/** The SQLite file under Node while others write to it, with nothing beside it. */
import * as betterSqlite3 from '../../adapters/databases/better-sqlite3.ts'
import { describeBusyFile } from '../contract/sqlite-file.ts'

describeBusyFile('better-sqlite3', betterSqlite3)
