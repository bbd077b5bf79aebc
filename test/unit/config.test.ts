/** The configuration: every problem at once, secrets never shown, README's table true. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { describeConfig, parseConfig, SETTINGS } from '../../src/config.ts'

const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')

describe('parseConfig', () => {
  test('needs nothing, and is frozen', () => {
    const config = parseConfig({})
    expect(config).toMatchObject({ host: '127.0.0.1', port: 8080, data: './sreg-data' })
    expect(Object.isFrozen(config)).toBe(true)
  })

  test.each([
    ['SREG_PUBLIC_URL', 'https://registry.example.org:99999'],
    ['SREG_PUBLIC_URL', 'https://:8080'],
    ['SREG_PUBLIC_URL', 'https://[::1'],
    ['SREG_TRUSTED_PROXIES', '10.0.0.0/33'],
    ['SREG_TRUSTED_PROXIES', '10.0.0.256'],
    ['SREG_TRUSTED_PROXIES', '10.0.1'],
    ['SREG_TRUSTED_PROXIES', 'fd00::/129'],
    ['SREG_TRUSTED_PROXIES', 'fd00:::1'],
    ['SREG_PORT', ' '],
    ['SREG_PORT', '0x50'],
    ['SREG_PORT', '8e3'],
  ])('refuses %s=%j', (name, value) => {
    expect(() => parseConfig({ [name]: value })).toThrow(name)
  })

  test('takes addresses and networks of both kinds', () => {
    const trustedProxies = ['10.0.0.1', '10.0.0.0/8', '::1', 'fd00::/8', '::ffff:10.0.0.1']
    const config = parseConfig({ SREG_TRUSTED_PROXIES: trustedProxies.join(', ') })
    expect(config).toMatchObject({ trustedProxies })
  })

  test('lists every problem with its variable, in one error', () => {
    const wrong = {
      SREG_PORT: '70000',
      SREG_PUBLIC_URL: 'registry.example.org/',
      SREG_SECRET: 'short',
      SREG_SHORT_REFS: 'both',
      SREG_TLS_CERT: 'cert.pem',
      SREG_TRUSTED_PROXIES: '10.0.0.0/8, proxy.example.org',
      SREG_PROT: '80',
    }
    let message = ''
    try {
      parseConfig(wrong)
    } catch (error) {
      message = (error as Error).message
    }
    for (const variable of Object.keys(wrong)) expect(message).toContain(variable)
    expect(message).toContain('SREG_TLS_KEY')
    expect(message).not.toContain('short')
  })

  test('a value that is given empty is the default', () => {
    expect(parseConfig({ SREG_PORT: '' }).port).toBe(8080)
  })

  test('secrets print as redacted wherever the configuration is printed (R34)', () => {
    const secret = 'x'.repeat(40)
    const config = parseConfig({ SREG_SECRET: secret })
    expect(config.secret?.reveal()).toBe(secret)
    const printed = `${JSON.stringify(describeConfig(config))} ${String(config.secret)}`
    expect(printed).not.toContain(secret)
    expect(printed).toContain('redacted')
  })
})

describe('parseConfig on Workers', () => {
  const needed = { SREG_SECRET: 'x'.repeat(40), SREG_SIGNING_KEYS: '{"current":{}}' }
  const problems = (env: Record<string, string>, surroundings: 'host' | 'workers') => {
    try {
      parseConfig(env, surroundings)
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }

  test('needs what a host keeps in its data folder', () => {
    const message = problems({}, 'workers')
    expect(message).toMatch(/SREG_SECRET: is required/)
    expect(message).toMatch(/SREG_SIGNING_KEYS: is required/)
    expect(problems(needed, 'workers')).toBe('')
    expect(problems({ ...needed, SREG_SIGNING_KEYS: 'not json' }, 'workers')).toMatch(
      /SREG_SIGNING_KEYS: must be JSON/,
    )
  })

  test('refuses what means something elsewhere only, and shows no key', () => {
    const settings = { ...needed, SREG_PORT: '80', SREG_TRUSTED_PROXIES: '10.0.0.1' }
    const message = problems(settings, 'workers')
    expect(message).toMatch(/SREG_PORT: means something on a host/)
    expect(message).toMatch(/SREG_TRUSTED_PROXIES: means something on a host/)
    const here = problems({ SREG_SIGNING_KEYS: '{"d":"hidden"' }, 'host')
    expect(here).toMatch(/SREG_SIGNING_KEYS: means something on Cloudflare Workers only/)
    expect(here).not.toContain('hidden')
    const config = parseConfig(needed, 'workers')
    expect(JSON.stringify(describeConfig(config))).not.toContain('current')
  })
})

test("README's table is the schema's, line by line", () => {
  const rows = Object.entries(SETTINGS).map(([name, setting]) => {
    const shown = setting.default === '' ? '' : `\`${setting.default}\``
    return `| \`${name}\` | ${shown} | ${setting.help} |`
  })
  const written = readme.split('\n').filter((line) => line.startsWith('| `SREG_'))
  expect(written).toEqual(rows)
})
