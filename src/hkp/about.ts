/** What the keystore says of its routes in GET /openapi.json. */
import * as z from 'zod/mini'
import { form, plain, said, type Described } from '../http/about.ts'

const text = z.string()
const onOff = z.optional(z.enum(['on', 'off']))

export const described: Described = {
  name: 'Keystore',
  about: 'Public OpenPGP keys, as every keyserver of the HKP protocol serves them.',
  routes: {
    'GET /pks/lookup': {
      summary: 'Finds public keys',
      more: '`get` answers with an armor, `index` and `vindex` with a page, or lines for programs.',
      query: z.object({
        op: z.enum(['get', 'index', 'vindex']),
        search: said(text, 'A name, an e-mail address, or 0x and a fingerprint or key id.'),
        options: said(z.optional(text), '`mr`: lines for programs.'),
        exact: said(onOff, 'Whole user ids only.'),
        fingerprint: said(onOff, 'Fingerprints in full.'),
        'x-pagesize': said(z.optional(text), 'Keys on a page, from 1 to 1000.'),
        'x-pagetoken': said(z.optional(text), 'From X-HKP-Next-Page-Token of the page before.'),
      }),
      answer: ['application/pgp-keys', 'text/plain', 'text/html'].map(plain),
      errors: ['not_found', 'unimplemented'],
    },
    'POST /pks/add': {
      summary: 'Adds a public key, or what is new of it',
      body: form(z.object({ keytext: said(text, 'One armor with one or more public keys.') })),
      answer: plain('text/plain'),
      errors: ['conflict'],
    },
  },
}
