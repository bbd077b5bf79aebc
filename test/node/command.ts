/** Runs commands in this process, as the program does, with nothing of the person at the keyboard. */
import { openAdmin, moving } from '../../adapters/node/main.ts'
import { runCommand } from '../../adapters/host/cli.ts'
import { systemClock } from '../../adapters/system.ts'

export type Ended = { code: number; out: string; err: string }

/** One command with `home` as its home folder; `stdin` is what it reads. */
export async function command(home: string, args: string[], stdin = ''): Promise<Ended> {
  const ended = { code: 0, out: '', err: '' }
  ended.code = await runCommand(args, {
    version: '0.0.0',
    env: { PATH: '' },
    home,
    osUser: 'someone',
    hostname: 'here',
    clock: systemClock,
    openAdmin,
    moving,
    serve: () => Promise.reject(new Error('not in this process')),
    readStandardInput: () => Promise.resolve(stdin),
    print: (text) => (ended.out += text),
    say: (line) => (ended.err += `${line}\n`),
  })
  return ended
}
