/** What fetching JSON of other servers must do on every host runtime (R55). */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { hostFetchJson, isPublic } from '../../adapters/host/fetch-json.ts'

const PRIVATE =
  '127.0.0.1 127.255.255.254 0.0.0.0 10.0.0.1 100.64.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.168.1.1 198.18.0.1 224.0.0.1 255.255.255.255 192.0.2.1 ::1 :: fe80::1 fc00::1 fd12::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:7f00:1 64:ff9b::7f00:1 2002:7f00:1:: 2001:0:7f00::1 2001:db8::1 fe80::1%eth0 localhost'.split(
    ' ',
  )
const PUBLIC = '8.8.8.8 1.1.1.1 172.32.0.1 172.15.0.1 100.128.0.1 2606:4700::1 2a00:1450::1'.split(
  ' ',
)

/** A certificate for `names` (subjectAltName) that signs itself, as PEM. */
export function selfSigned(names: string): { cert: string; key: string } {
  const folder = mkdtempSync(join(tmpdir(), 'sreg-cert-'))
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
  const asked = `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=issuer.test -addext subjectAltName=${names} -out ${cert} -keyout ${key}`
  try {
    execFileSync('openssl', asked.split(' '), { stdio: 'pipe' })
    return { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

export function describeFetchJson(name: string): void {
  describe(`JSON of other servers on ${name}`, () => {
    let server: Server
    let port: number
    let ca: string
    let connections = 0
    let seen: IncomingMessage[] = []
    let answer: (request: IncomingMessage, response: ServerResponse) => void

    const json = (_: IncomingMessage, response: ServerResponse) => response.end('{"keys":[]}')

    beforeAll(async () => {
      const { cert, key } = selfSigned('DNS:issuer.test')
      ca = cert
      server = createServer({ cert, key }, (request, response) => {
        seen.push(request)
        answer(request, response)
      })
      server.on('connection', () => (connections += 1))
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      port = (server.address() as AddressInfo).port
    })
    afterAll(() => server.close())
    beforeEach(() => {
      connections = 0
      seen = []
      answer = json
    })

    /** Every name is at these addresses. */
    const resolver =
      (...addresses: string[]) =>
      async () =>
        addresses
    const at = (path = '/jwks', host = 'issuer.test') => `https://${host}:${port}${path}`
    const local = (options: Parameters<typeof hostFetchJson>[0] = {}) =>
      hostFetchJson({ resolve: resolver('127.0.0.1'), ca, withinMs: 2000, ...options })
    const open = { allowPrivate: true }
    const closed = { allowPrivate: false }

    test('comes by the name, with the certificate of the name', async () => {
      expect(await local()(at('/jwks?a=b'), open)).toEqual({ keys: [] })
      expect(seen).toHaveLength(1)
      expect([seen[0]?.url, seen[0]?.headers.host]).toEqual(['/jwks?a=b', `issuer.test:${port}`])
    })

    test('the address that was looked at is the one that is connected to', async () => {
      // a name that means something else whenever it is asked for
      const rebound = (...meanings: string[]) => {
        let asked = 0
        return async () => [meanings[asked++] ?? '']
      }
      await local({ resolve: rebound('127.0.0.1', '127.0.0.2') })(at(), open)
      expect(connections).toBe(1)
      const late = local({ resolve: rebound('127.0.0.2', '127.0.0.1') })
      await expect(late(at(), open)).rejects.toThrow()
      expect(connections).toBe(1)
    })

    test('an address that only we can reach is not connected to', async () => {
      for (const addresses of [['127.0.0.1'], ['10.0.0.1', '127.0.0.1', '::1'], []])
        await expect(local({ resolve: resolver(...addresses) })(at(), closed)).rejects.toThrow(
          /no public address/,
        )
      for (const host of ['127.0.0.1', '[::1]', '[::ffff:127.0.0.1]', '2130706433', '0x7f.1'])
        await expect(local()(at('/', host), closed)).rejects.toThrow(/no public address/)
      await expect(hostFetchJson({ ca })(at('/', 'localhost'), closed)).rejects.toThrow(
        /no public address/,
      )
      expect(connections).toBe(0)
    })

    test('a certificate of another name, or of nobody we know, is refused', async () => {
      await expect(local()(at('/', 'other.test'), open)).rejects.toThrow()
      await expect(local()(at('/', '127.0.0.1'), open)).rejects.toThrow()
      await expect(hostFetchJson({ resolve: resolver('127.0.0.1') })(at(), open)).rejects.toThrow()
      expect(seen).toEqual([])
    })

    test('an address that does not answer is followed by the next', async () => {
      const resolve = resolver('127.0.0.3', '127.0.0.1')
      expect(await local({ resolve })(at(), open)).toEqual({ keys: [] })
    })

    test('no redirect is followed', async () => {
      for (const status of [301, 302, 303, 307, 308]) {
        seen = []
        answer = (_, response) => response.writeHead(status, { Location: at('/other') }).end('{}')
        await expect(local()(at(), open)).rejects.toThrow(`answered ${status}`)
        expect(seen).toHaveLength(1)
      }
    })

    test('anything but 200 is refused', async () => {
      for (const status of [201, 204, 400, 404, 500, 503]) {
        answer = (_, response) => response.writeHead(status).end()
        await expect(local()(at(), open)).rejects.toThrow(`answered ${status}`)
      }
    })

    test('64 KiB are the most, announced or not', async () => {
      const fits = JSON.stringify('a'.repeat(65_534))
      answer = (_, response) => response.end(fits)
      expect(await local()(at(), open)).toHaveLength(65_534)
      answer = (_, response) => response.end(`${fits} `)
      await expect(local()(at(), open)).rejects.toThrow(/65536 bytes/)
      answer = (_, response) => {
        const more = () => response.write(' '.repeat(10_000)) && setImmediate(more)
        response.on('drain', more).on('error', () => undefined)
        more()
      }
      await expect(local()(at(), open)).rejects.toThrow(/65536 bytes/)
    })

    test('what is slow, breaks off or is no JSON is refused', async () => {
      const hurried = local({ withinMs: 300 })
      answer = () => undefined
      await expect(hurried(at(), open)).rejects.toThrow()
      answer = (_, response) => void response.write('{"keys"')
      await expect(hurried(at(), open)).rejects.toThrow()
      answer = (_, response) => {
        response.writeHead(200, { 'Content-Length': 100 })
        response.write('{}')
        setTimeout(() => response.destroy(), 20)
      }
      await expect(local()(at(), open)).rejects.toThrow()
      answer = (_, response) => response.end('{')
      await expect(local()(at(), open)).rejects.toThrow()
      const never = () => new Promise<string[]>(() => undefined)
      await expect(local({ withinMs: 100, resolve: never })(at(), open)).rejects.toThrow()
    })

    test('nothing but https', async () => {
      for (const url of [`http://issuer.test:${port}/`, 'file:///etc/passwd', 'data:,{}'])
        await expect(local()(url, open)).rejects.toThrow(/not https/)
      expect(connections).toBe(0)
    })

    test.each(PRIVATE)('%s is not public', (address) => expect(isPublic(address)).toBe(false))
    test.each(PUBLIC)('%s is public', (address) => expect(isPublic(address)).toBe(true))
  })
}
