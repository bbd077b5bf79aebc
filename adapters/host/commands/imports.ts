/** `imports`: what an import that broke off has left behind, listed and dropped (GET, DELETE /v1/imports). */
import type { Command } from 'commander'
import { RegistryError } from '../../../src/errors.ts'
import type { Api } from '../api.ts'
import type { Services } from '../cli.ts'
import { day, json, table, withApi, withTarget } from '../target.ts'

/** As GET /v1/imports has it: times as ISO 8601, bytes of the images that have arrived. */
type Listed = {
  id: string
  exportId: string
  createdAt: string
  expiresAt: string
  rows: number
  bytes: number
}

export function addImportsCommands(program: Command, services: Services): void {
  const imports = program
    .command('imports')
    .description('imports that have not ended: they hold bytes until they are swept')

  withTarget(imports.command('list'), services)
    .description('list them; the same file again goes on where one broke off')
    .option('--json', 'as JSON')
    .action(
      withApi(services, async (api: Api, options: { json?: boolean }) => {
        const found = await api.call<Listed[]>('GET', '/v1/imports')
        if (options.json === true) return services.print(json(found))
        const rows = found.map((open) => [
          open.id,
          day(new Date(open.createdAt)),
          day(new Date(open.expiresAt)),
          String(open.rows),
          String(open.bytes),
        ])
        services.print(table(['ID', 'BEGUN', 'SWEPT', 'ROWS', 'BYTES'], rows))
      }),
    )

  withTarget(imports.command('abort'), services)
    .description('drop what an import has brought so far')
    .argument('<id>', 'as `imports list` shows it')
    .action(
      withApi(services, async (api: Api, _options: object, id: string) => {
        const path = `/v1/imports/${encodeURIComponent(id)}`
        const { aborted } = await api.call<{ aborted: boolean }>('DELETE', path)
        if (!aborted)
          throw new RegistryError('not_found', `There is no open import ${id}; see imports list.`)
        services.say(`Aborted import ${id}. Nothing of it was visible; its bytes are deleted.`)
      }),
    )
}
