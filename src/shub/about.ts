/** What shub:// says of its routes in GET /openapi.json. */
import * as z from 'zod/mini'
import { bare, said, type Described } from '../http/about.ts'

const text = z.string()
const manifest = bare(
  z.object({
    image: said(text, 'Where the bytes are: a plain GET, without a token.'),
    name: text,
    tag: said(text, 'The tag that was asked for, or sha256.HEX.'),
    version: said(text, 'sha256.HEX of the whole file'),
    commit: said(text, 'The same, digits only.'),
  }),
)
const name = 'The container, and :tag or @ and the SHA-256 after it.'
const query = z.object({ arch: said(z.optional(text), 'An architecture; amd64 without.') })
const errors: Described['routes'][string]['errors'] = ['not_found']

export const described: Described = {
  name: 'shub',
  about: 'What `apptainer pull shub://` speaks: public images, without a token.',
  routes: {
    'GET /api/container/:collection/:name': {
      summary: 'Says where a public image of the entity library is',
      params: { collection: 'Its name.', name },
      query,
      answer: manifest,
      errors,
    },
    'GET /:entity/api/container/:collection/:name': {
      summary: 'Says where a public image of an entity is',
      params: { entity: 'Its name.', collection: 'Its name.', name },
      query,
      answer: manifest,
      errors,
    },
  },
}
