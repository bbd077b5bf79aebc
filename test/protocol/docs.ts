/** The API's description, and the viewer for it: constant, complete, and from this server alone. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectRefusal } from './answers.ts'
import { libraryClient, type LibraryClient } from './client.ts'

export function describeDocs(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`the API's description: ${name}`, () => {
    let target: Target
    let nobody: LibraryClient
    beforeAll(async () => {
      target = await makeTarget()
      nobody = libraryClient(target.url)
    })
    afterAll(() => target.stop())

    test('GET /openapi.json is the same for everybody, whatever their Host (R33)', async () => {
      const answer = await nobody.call('GET', '/openapi.json')
      expect(answer.status).toBe(200)
      expect(answer.headers.get('content-type')).toBe('application/json')
      expect(answer.json.openapi).toMatch(/^3\.1\./)
      expect(answer.json.servers).toEqual([{ url: '/' }])
      expect(answer.json.paths['/v1/images/{ref}'].delete.security).toEqual([{ token: [] }])

      const etag = answer.headers.get('etag') ?? ''
      expect(etag).toMatch(/^"[0-9a-f]{32}"$/)
      const { jwt } = await target.mint('alice')
      const again = await libraryClient(target.url, jwt).call('GET', '/openapi.json', undefined, {
        'x-forwarded-host': 'elsewhere.example',
      })
      expect(again.text).toBe(answer.text)
      const known = { 'if-none-match': etag }
      const unchanged = await nobody.call('GET', '/openapi.json', undefined, known)
      expect([unchanged.status, unchanged.text]).toEqual([304, ''])
    })

    test('/docs runs scripts of this server only, and each of its files is there', async () => {
      const page = await nobody.call('GET', '/docs')
      expect(page.status).toBe(200)
      expect(page.headers.get('content-type')).toBe('text/html; charset=utf-8')
      const policy = page.headers.get('content-security-policy') ?? ''
      expect(policy).toContain("default-src 'none'")
      expect(policy).toContain("script-src 'self';")
      expect(policy).not.toMatch(/https?:|unsafe-|\*/)
      expect(page.text).not.toMatch(/<script(?![^>]* src="\/docs\/)|https?:\/\//)

      const files = Array.from(
        page.text.matchAll(/(?:src|href)="(\/docs\/[^"]+)"/g),
        ([, at]) => at,
      )
      expect(files).toHaveLength(3)
      for (const file of files) {
        const answer = await nobody.call('GET', file ?? '')
        expect(answer.status, file).toBe(200)
        expect(answer.headers.get('content-type')).toMatch(
          file?.endsWith('.css') ? /^text\/css/ : /^text\/javascript/,
        )
        const etag = answer.headers.get('etag') ?? ''
        const unchanged = await nobody.call('GET', file ?? '', undefined, { 'if-none-match': etag })
        expect(unchanged.status).toBe(304)
      }
    })

    test('nothing else can be had from the folder of the viewer', async () => {
      for (const file of ['package.json', 'LICENSE', '..%2f..%2fpackage.json', 'constructor'])
        expectRefusal(await nobody.call('GET', `/docs/${file}`), 404)
      expect((await nobody.call('GET', '/swagger-ui.css')).status).toBe(404)
    })
  })
}
