/** Who gets which answer, on a runtime that serves a data folder. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import type { AccessTarget } from '../protocol/access.ts'
import type { Target } from './target.ts'
