/** Keys as keyservers write them: lines for programs, one armor of many, a page for people. */
import { html, raw } from 'hono/html'
import type { KeyFacts } from '../core/model.ts'
import { readArmor } from '../core/packets.ts'

/** What could end a line, turn its text around or steer a terminal. */
const UNPRINTABLE = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu

/** A text of somebody else's as it may stand in front of people. */
const shown = (text: string) => text.replace(UNPRINTABLE, '\ufffd')

const seconds = (time: Date | null) =>
  time === null ? '' : String(Math.floor(time.getTime() / 1000))

const flags = ({ revoked, expiresAt }: { revoked: boolean; expiresAt: Date | null }, now: Date) =>
  (revoked ? 'r' : '') + (expiresAt !== null && expiresAt <= now ? 'e' : '')

/**
 * The machine-readable index (protocol.md §7.2): `info:1:N`, and for each key a `pub` line with
 * algorithm, bits, times in Unix seconds and flags (r revoked, e expired), followed by its `uid`
 * lines. Clients decode user ids like form fields, so that all but letters and digits of ASCII and
 * `-_.!~*'()` is written in percents.
 */
export function indexLines(keys: readonly KeyFacts[], now: Date): string {
  const lines = [`info:1:${keys.length}`]
  for (const key of keys) {
    const { fingerprint, algorithm, bits, createdAt, expiresAt } = key
    lines.push(
      ['pub', fingerprint, algorithm, bits ?? '', seconds(createdAt), seconds(expiresAt)].join(
        ':',
      ) + `:${flags(key, now)}`,
    )
    for (const id of key.userIds)
      lines.push(
        [
          'uid',
          encodeURIComponent(shown(id.text)),
          seconds(id.createdAt),
          seconds(id.expiresAt),
        ].join(':') + `:${flags(id, now)}`,
      )
  }
  return lines.map((line) => `${line}\n`).join('')
}

/** One armor that holds what all of them hold: clients read no more than one. */
export function joinArmors(armors: readonly string[]): string {
  const [only] = armors
  if (armors.length === 1 && only !== undefined) return only
  let binary = ''
  for (const armor of armors)
    for (const byte of readArmor(armor, { label: 'PUBLIC KEY BLOCK', start: 0 }).bytes)
      binary += String.fromCharCode(byte)
  const lines = btoa(binary).match(/.{1,64}/g) ?? []
  // without a checksum, which RFC 9580 has made optional
  return `-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n${lines.join('\n')}\n-----END PGP PUBLIC KEY BLOCK-----\n`
}

const STYLE = `
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
  body { max-width: 48rem; margin: 3rem auto; padding: 0 1rem }
  code { overflow-wrap: anywhere }
`

type Html = ReturnType<typeof html>

const day = (time: Date) => time.toISOString().slice(0, 10)

const state = (of: { revoked: boolean; expiresAt: Date | null }, now: Date): string => {
  if (of.revoked) return ', revoked'
  if (of.expiresAt === null) return ''
  return `, ${of.expiresAt <= now ? 'expired' : 'expires'} ${day(of.expiresAt)}`
}

/** The index for people; `subkeys` shows those too, `fingerprints` all digits. */
export function indexPage(
  keys: readonly KeyFacts[],
  options: { typed: string; fingerprints: boolean; subkeys: boolean; more: boolean; now: Date },
): Html {
  const { now } = options
  const digits = (of: { fingerprint: string; keyId: string }) =>
    options.fingerprints ? of.fingerprint : of.keyId
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width" />
        <title>Public keys</title>
        <style>
          ${raw(STYLE)}
        </style>
      </head>
      <body>
        <h1>Public keys for “${shown(options.typed)}”</h1>
        ${keys.map(
          (key) =>
            html`<h2>
                <a href="/pks/lookup?op=get&amp;search=0x${key.fingerprint}"
                  ><code>${digits(key)}</code></a
                >
              </h2>
              <p>Created ${day(key.createdAt)}${state(key, now)}.</p>
              <ul>
                ${key.userIds.map((id) => html`<li>${shown(id.text)}${state(id, now)}</li>`)}
              </ul>
              ${
                options.subkeys && key.subkeys.length > 0
                  ? html`<p>Subkeys:</p>
                      <ul>
                        ${key.subkeys.map(
                          (subkey) =>
                            html`<li>
                              <code>${digits(subkey)}</code
                              >${subkey.canSign ? ', signs' : ''}${state(subkey, now)}
                            </li>`,
                        )}
                      </ul>`
                  : ''
              }`,
        )}
        ${options.more ? html`<p>There are more: say more of what you look for.</p>` : ''}
      </body>
    </html>`
}
