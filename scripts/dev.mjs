/** `npm run dev`: the program from its TypeScript, unbuilt, on a Node that strips types. */
import { run } from '../adapters/node/main.ts'

process.exitCode = await run(process.argv.slice(2))
