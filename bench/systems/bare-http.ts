/**
 * What an answer costs Node and the machine before anybody has done anything for it: node:http, and the
 * same bytes each time. A program: node bench/systems/bare-http.ts PORT BYTES
 */
import { createServer } from 'node:http'

const [port = '', bytes = ''] = process.argv.slice(2)
const body = JSON.stringify({ data: 'x'.repeat(Math.max(0, Number(bytes) - '{"data":""}'.length)) })
const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }
createServer((_, response) => {
  response.writeHead(200, headers).end(body)
}).listen(Number(port), '127.0.0.1')
