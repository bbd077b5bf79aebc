/**
 * Who may import whom, and which words may stand where: the dependency rule as data.
 * "Protocols know the core; the core knows ports; adapters know ports; entries know everything;
 * nobody else knows anybody." Also guards R6's ground: no transaction object crosses a port.
 */
import { readFileSync, readdirSync } from 'node:fs'
import { dirname, join, posix, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Types only, of these files. */
const types = (...files: string[]) => files.map((file) => `type ${file}`)

const PROTOCOL = ['hono', 'zod', 'src/http/', 'src/core/', 'src/errors.ts']
const PROTOCOL_TYPES = types('src/ports.ts', 'src/config.ts')

/**
 * First rule whose `files` matches decides. A target ending in `/` is a folder or a prefix
 * (`hono/` after `hono`: a package stands for its subpaths too); `type X` allows `import type` only.
 */
const RULES: { files: RegExp; may: string[] }[] = [
  { files: /^src\/errors\.ts$/, may: [] },
  {
    files: /^src\/core\/digest\.ts$/,
    may: ['src/core/', 'src/errors.ts', 'node:crypto', ...types('src/ports.ts')],
  },
  {
    files: /^src\/core\/(?:tokens|issuers)\.ts$/,
    may: ['src/core/', 'src/errors.ts', 'jose', ...types('src/ports.ts')],
  },
  {
    files: /^src\/core\/openpgp\.ts$/,
    may: ['src/core/', 'src/errors.ts', 'openpgp', ...types('src/ports.ts')],
  },
  {
    files: /^src\/core\/[^/]+\.ts$/,
    may: ['src/core/', 'src/errors.ts', ...types('src/ports.ts')],
  },
  { files: /^src\/ports\.ts$/, may: types('src/core/model.ts', 'src/errors.ts') },
  {
    files: /^src\/config\.ts$/,
    may: [
      'zod',
      'src/errors.ts',
      'src/issuers-config.ts',
      ...types('src/core/issuers.ts', 'src/core/access.ts'),
    ],
  },
  {
    files: /^src\/issuers-config\.ts$/,
    may: ['zod', 'src/core/names.ts', ...types('src/core/issuers.ts')],
  },
  {
    files: /^src\/http\/[^/]+\.ts$/,
    may: ['hono', 'zod', 'src/http/', 'src/core/', 'src/errors.ts', ...PROTOCOL_TYPES],
  },
  { files: /^src\/library\/[^/]+\.ts$/, may: ['src/library/', ...PROTOCOL, ...PROTOCOL_TYPES] },
  { files: /^src\/oci\/[^/]+\.ts$/, may: ['src/oci/', ...PROTOCOL, ...PROTOCOL_TYPES] },
  { files: /^src\/hkp\/[^/]+\.ts$/, may: ['src/hkp/', ...PROTOCOL, ...PROTOCOL_TYPES] },
  { files: /^src\/shub\/[^/]+\.ts$/, may: ['src/shub/', ...PROTOCOL, ...PROTOCOL_TYPES] },
  {
    files: /^src\/manage\/[^/]+\.ts$/,
    may: ['src/manage/', ...PROTOCOL, ...PROTOCOL_TYPES, ...types('src/admin.ts')],
  },
  { files: /^src\/web\/[^/]+\.ts$/, may: ['src/web/', ...PROTOCOL, ...PROTOCOL_TYPES] },
  {
    files: /^src\/sqlite\/[^/]+\.ts$/,
    may: ['src/sqlite/', 'drizzle-orm', 'src/errors.ts', ...types('src/core/', 'src/ports.ts')],
  },
  {
    // The core's face towards administrators, on the command line and in src/manage.
    files: /^src\/admin\.ts$/,
    may: ['src/core/', 'src/errors.ts', ...types('src/ports.ts', 'src/config.ts')],
  },
  {
    files: /^src\/app\.ts$/,
    may: [
      'hono',
      'zod',
      ...['core', 'http', 'library', 'oci', 'hkp', 'shub', 'manage', 'web'].map(
        (folder) => `src/${folder}/`,
      ),
      ...['admin', 'errors', 'ports', 'config'].map((file) => `src/${file}.ts`),
    ],
  },
  {
    files: /^adapters\//,
    may: [
      'adapters/',
      'src/app.ts',
      'src/admin.ts',
      'src/config.ts',
      'src/errors.ts',
      'src/sqlite/',
      ...types('src/ports.ts', 'src/core/model.ts'),
      // The transfer on Node fulfils an interface that speaks of requests.
      ...types('src/http/transfer.ts', 'src/http/context.ts'),
      'node:',
      'bun:',
      'cloudflare:',
      ...types('@cloudflare/workers-types'),
      // its version, for the Worker's bundle
      'package.json',
      // Own libraries.
      'hono',
      '@hono/node-server',
      '@aws-sdk/client-s3',
      '@aws-sdk/s3-request-presigner',
      'better-sqlite3',
      'drizzle-orm',
      'commander',
      'jose',
      'yaml',
    ],
  },
]

/** Words that import rules cannot catch: `pattern` may stand in `in` only. */
const WORDS: { rule: string; pattern: RegExp; in: RegExp | null }[] = [
  {
    rule: '1 transactions stay in adapters/databases',
    pattern: /\.transaction\(/,
    in: /^adapters\/databases\//,
  },
  {
    rule: '2 the environment is read in adapters',
    pattern: /\bprocess\.|\bBun\.|\bDeno\.|\bnavigator\b/,
    in: /^adapters\//,
  },
  {
    rule: '3 the time comes from the clock',
    pattern: /\bDate\.now\(|\bnew Date\(\s*\)|\bnew Date\b(?!\()/,
    in: /^adapters\/system\.ts$/,
  },
  { rule: '3 ids come from the Ids port', pattern: /\bMath\.random\b/, in: null },
  {
    rule: '4 words go through the Log port',
    pattern: /\bconsole\./,
    in: /^adapters\/system\.ts$/,
  },
  { rule: '5 bodies are bounded by http/body.ts', pattern: /\bbodyLimit\b/, in: null },
  {
    rule: '6 SQL stays where the database is',
    pattern: /\.run\(\s*['"`]|\.(?:prepare|exec|pragma)\(\s*['"`]|\bsql`/,
    in: /^(?:src\/sqlite\/|adapters\/databases\/)/,
  },
]

type Found = { specifier: string; typeOnly: boolean }

/** Static, type, side-effect, re-export, multi-line and dynamic imports of one source. */
function findImports(source: string): Found[] {
  const pattern =
    /(?:^|[;\n])\s*(?:import|export)\s+(type\s+)?(?:[\w*\s{},$]*?\sfrom\s*|[*{][^'"`;]*?\sfrom\s*)?['"]([^'"]+)['"]|\bimport\s*\(\s*['"`]([^'"`]+)['"`]/g
  return Array.from(source.matchAll(pattern), (match) => ({
    specifier: match[2] ?? match[3] ?? '',
    typeOnly: match[1] !== undefined,
  }))
}

/** A specifier as the rules name it: a path from the root, or the package or built-in as written. */
function target(file: string, specifier: string): string {
  return specifier.startsWith('.') ? posix.join(dirname(file), specifier) : specifier
}

function covers(entry: string, name: string): boolean {
  if (entry.endsWith('/') || entry.endsWith(':')) return name.startsWith(entry)
  return name === entry || (!entry.endsWith('.ts') && name.startsWith(`${entry}/`))
}

/** Comments may name what code may not. Strings stay, also '/v1/*', which opens no comment. */
function withoutComments(source: string): string {
  return source.replace(
    /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (match) => (match.startsWith('/') ? '' : match),
  )
}

/** Every breach of the rules in one file, as `file → what`. */
function breaches(file: string, source: string): string[] {
  const rule = RULES.find((rule) => rule.files.test(file))
  if (rule === undefined) return [`${file} → no rule covers this file`]
  const code = withoutComments(source)
  const imports = findImports(code)
    .filter(({ specifier, typeOnly }) => {
      const name = target(file, specifier)
      return !rule.may.some((entry) =>
        entry.startsWith('type ')
          ? typeOnly && covers(entry.slice('type '.length), name)
          : covers(entry, name),
      )
    })
    .map(({ specifier, typeOnly }) => `${file} → ${typeOnly ? 'type ' : ''}${specifier}`)
  const words = WORDS.filter(
    (word) => word.pattern.test(code) && !(word.in !== null && word.in.test(file)),
  ).map((word) => `${file} → rule ${word.rule}`)
  return [...imports, ...words]
}

function sources(): string[] {
  return ['src', 'adapters'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /\.[cm]?[jt]sx?$/.test(entry.name))
      .map((entry) => relative(root, join(entry.parentPath, entry.name)).replaceAll('\\', '/')),
  )
}

describe('the dependency rule', () => {
  test('holds for every file of src and adapters', () => {
    const files = sources()
    expect(files.length).toBeGreaterThan(3)
    // The launcher has its own rule: no static import at all (test/packaging.test.ts).
    const found = files
      .filter((file) => file !== 'adapters/host/launcher.mjs')
      .flatMap((file) => breaches(file, readFileSync(join(root, file), 'utf8')))
    expect(found).toEqual([])
  })

  test.each<[why: string, file: string, source: string, breach: string]>([
    [
      'a protocol imports a protocol',
      'src/library/a.ts',
      `import { x } from '../oci/b.ts'`,
      '../oci/b.ts',
    ],
    ['node: in core', 'src/core/catalog.ts', `import { readFile } from 'node:fs'`, 'node:fs'],
    ['node:fs even in digest', 'src/core/digest.ts', `import fs from 'node:fs'`, 'node:fs'],
    ['hono in core', 'src/core/a.ts', `import { Hono } from 'hono'`, 'hono'],
    ['a subpath of hono in core', 'src/core/a.ts', `import { html } from 'hono/html'`, 'hono/html'],
    [
      'jose outside tokens.ts and issuers.ts',
      'src/core/access.ts',
      `import * as jose from 'jose'`,
      'jose',
    ],
    ['a value from ports', 'src/core/a.ts', `import { x } from '../ports.ts'`, '../ports.ts'],
    [
      'a core value in sqlite',
      'src/sqlite/a.ts',
      `import { x } from '../core/names.ts'`,
      '../core/names.ts',
    ],
    ['a driver in sqlite', 'src/sqlite/a.ts', `import D from 'better-sqlite3'`, 'better-sqlite3'],
    ['sqlite in app', 'src/app.ts', `import { x } from './sqlite/index.ts'`, './sqlite/index.ts'],
    [
      'a core value in an adapter',
      'adapters/blobs/disk.ts',
      `import { x } from '../../src/core/sweep.ts'`,
      '../../src/core/sweep.ts',
    ],
    [
      'errors imports anything',
      'src/errors.ts',
      `import type { X } from './ports.ts'`,
      'type ./ports.ts',
    ],
    ['a multi-line import', 'src/core/a.ts', `import {\n  a,\n  b,\n} from 'zod'`, 'zod'],
    ['a side-effect import', 'src/core/a.ts', `import 'zod'`, 'zod'],
    ['a re-export', 'src/core/a.ts', `export * from 'zod'\nexport { y } from './names.ts'`, 'zod'],
    ['a dynamic import', 'src/core/a.ts', `const z = await import('zod')`, 'zod'],
    ['after another statement', 'src/core/a.ts', `const x = 1; import z from 'zod'`, 'zod'],
    ['a file no rule covers', 'src/plugins/a.ts', ``, 'no rule covers this file'],
    ['a deeper folder of core', 'src/core/x/a.ts', ``, 'no rule covers this file'],
    [
      '1',
      'src/sqlite/a.ts',
      `db.transaction(() => {})`,
      'rule 1 transactions stay in adapters/databases',
    ],
    ['2', 'src/config.ts', `const e = process.env`, 'rule 2 the environment is read in adapters'],
    ['3 now', 'adapters/node/a.ts', `const t = Date.now()`, 'rule 3 the time comes from the clock'],
    ['3 new', 'src/core/a.ts', `const t = new Date()`, 'rule 3 the time comes from the clock'],
    ['3 random', 'adapters/system.ts', `Math.random()`, 'rule 3 ids come from the Ids port'],
    ['4', 'src/http/log.ts', `console.log(1)`, 'rule 4 words go through the Log port'],
    [
      'after a route with a star',
      'src/library/a.ts',
      `app.get('/v1/*', f)\nconsole.log(1)\n/** A comment. */`,
      'rule 4 words go through the Log port',
    ],
    ['5', 'src/library/a.ts', `bodyLimit({})`, 'rule 5 bodies are bounded by http/body.ts'],
    [
      '6',
      'adapters/node/a.ts',
      `db.exec('delete from x')`,
      'rule 6 SQL stays where the database is',
    ],
  ])('finds a planted violation: %s', (_why, file, source, breach) => {
    expect(breaches(file, source)).toEqual([`${file} → ${breach}`])
  })

  test.each<[why: string, file: string, source: string]>([
    ['types from ports', 'src/core/a.ts', `import type { Clock } from '../ports.ts'`],
    ['node:crypto in digest.ts', 'src/core/digest.ts', `import { createHash } from 'node:crypto'`],
    ['a word in a comment', 'src/core/a.ts', `// never Date.now() here\n/* nor console.log */`],
    ['a date from a number', 'src/core/a.ts', `const t = new Date(row.at)`],
    ['a subpath of drizzle', 'src/sqlite/a.ts', `import { text } from 'drizzle-orm/sqlite-core'`],
  ])('lets stand: %s', (_why, file, source) => {
    expect(breaches(file, source)).toEqual([])
  })
})

test('the thread of aside.ts listens before it awaits anything: Deno drops what arrives meanwhile', () => {
  const source = readFileSync(join(root, 'adapters/databases/aside-thread.ts'), 'utf8')
  expect(source).toContain("parentPort?.on('message'")
  // in a line that is not indented it stands outside of all functions
  expect(source).not.toMatch(/^(?:\S.*)?\bawait\b/m)
})

test('every rule that code names has its line in docs/rules.md', () => {
  const rules = readFileSync(join(root, 'docs/rules.md'), 'utf8')
  const listed = [...rules.matchAll(/^- \*\*(R\d+)\*\* \S/gm)].map(([, rule]) => rule)
  expect(listed).toEqual(Array.from({ length: 62 }, (_, at) => `R${at + 1}`))
  const named = sources().flatMap((file) =>
    [...readFileSync(join(root, file), 'utf8').matchAll(/\bR\d+\b/g)].map(([rule]) => rule),
  )
  expect(named.filter((rule) => !listed.includes(rule))).toEqual([])
  expect(named.length).toBeGreaterThan(100)
})
