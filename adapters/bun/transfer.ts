/** Transfer on Bun: downloads are written to its own kind of stream, which copies nothing twice. */
import { streamTransfer, type Poured, type Rate, type Transfer } from '../../src/app.ts'

/** What is used of a stream that Bun calls direct: a write settles when the next one is welcome. */
type Direct = {
  type: 'direct'
  pull(controller: { write(chunk: Uint8Array): unknown; end(): void }): Promise<void>
  cancel(): void
}

/** Transfer for requests that come through `listen`; slow peers are cut off as `streamTransfer` says. */
export function bunTransfer(options: { minimumRate?: Rate } = {}): Transfer {
  return streamTransfer({ ...options, poured: direct })
}

function direct({ pour, cancel }: Poured): ReadableStream<Uint8Array> {
  const source: Direct = {
    type: 'direct',
    async pull(controller) {
      await pour((chunk) => controller.write(chunk))
      controller.end()
    },
    cancel,
  }
  return new ReadableStream(source as unknown as UnderlyingDefaultSource<Uint8Array>)
}
