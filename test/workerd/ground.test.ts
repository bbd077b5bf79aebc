/** The ground that tests inside workerd stand on: the runtime, and what is bound. */
import { env } from 'cloudflare:workers'
import { expect, it } from 'vitest'

it('runs inside workerd, with a database and a bucket of its own', async () => {
  expect(navigator.userAgent).toBe('Cloudflare-Workers')
  expect(await env.DB.prepare('SELECT ? AS word').bind('here').first('word')).toBe('here')
  expect(await env.BLOBS.head('absent')).toBeNull()
  expect(env.MIGRATIONS.length).toBeGreaterThan(0)
})
