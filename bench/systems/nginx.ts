/** nginx as a server of files: what can be had from sendfile. */
import { linkSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findProgram, freePort, pinned, serve, SERVER_CORE } from '../measure.ts'
import type { Candidate, Source } from './registry.ts'

/** nginx with one worker, without a log; its lookup is a file of 1 KiB. */
export function nginx({ pin = false } = {}): Candidate<Source> {
  const program = findProgram('nginx')
  return {
    name: 'nginx',
    start: program === null ? null : (folder) => start(program, folder, pin),
    hint: 'apt-get install nginx-light',
  }
}

async function start(nginx: string, folder: string, pin: boolean): Promise<Source> {
  const port = await freePort()
  const base = `http://127.0.0.1:${port}`
  mkdirSync(join(folder, 'www'))
  writeFileSync(join(folder, 'www/lookup'), 'x'.repeat(1024))
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  writeFileSync(
    join(folder, 'nginx.conf'),
    // As root the worker would become somebody who may not read this folder.
    `${process.getuid?.() === 0 ? 'user root;' : ''}
    daemon off; worker_processes 1; pid ${folder}/pid; error_log stderr;
    worker_rlimit_nofile 8192;
    events { worker_connections 4096; }
    http {
      ${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join(' ')}
      access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;
      server { listen 127.0.0.1:${port}; root ${folder}/www; }
    }\n`,
  )
  const command = [nginx, '-p', folder, '-c', join(folder, 'nginx.conf')]
  const [program = nginx, ...args] = pin ? pinned(SERVER_CORE, command) : command
  return {
    name: 'nginx',
    base,
    ...(await serve(folder, program, args, `${base}/lookup`)),
    publish(payload) {
      linkSync(payload.path, join(folder, 'www/payload'))
      const whole = `${base}/payload`
      return Promise.resolve({ whole, ranges: whole, lookup: { url: `${base}/lookup` } })
    },
  }
}
