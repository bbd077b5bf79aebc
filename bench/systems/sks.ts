/** Debian's sks, the keyserver: builds its database of a dump and answers from it. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort, pinned, run, serve, SERVER_CORE, type Server } from '../measure.ts'

/** Starts it on the core of servers; the keys of all `*.pgp` in folder `dump` are copied. */
export async function startSks(sks: string, folder: string, dump: string): Promise<Server> {
  // below -basedir it looks for the folders that Debian gave it below /
  for (const place of ['etc/sks', 'var/lib/sks/www', 'var/log/sks', 'var/spool/sks', 'var/run/sks'])
    mkdirSync(join(folder, place), { recursive: true })
  const port = await freePort()
  const base = `http://127.0.0.1:${port}`
  writeFileSync(
    join(folder, 'etc/sks/sksconf'),
    `hostname: localhost\nhkp_address: 127.0.0.1\nhkp_port: ${port}\ndebuglevel: 0\n`,
  )
  const script = 'cd "$1" && exec "$2" build "$3"/*.pgp -basedir "$1" -n 10 -cache 100'
  await run('sh', ['-c', script, 'sh', folder, sks, dump])
  const [program = sks, ...args] = pinned(SERVER_CORE, [sks, 'db', '-basedir', folder])
  return {
    name: 'sks',
    base,
    ...(await serve(folder, program, args, `${base}/pks/lookup?op=stats`)),
  }
}
