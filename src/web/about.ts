/** What the pages say of themselves in GET /openapi.json. */
import * as z from 'zod/mini'
import { bare, plain, type Described } from '../http/about.ts'

const html = plain('text/html')
const checks = z.object({
  status: z.enum(['ok', 'failing']),
  checks: z.object({ database: z.string(), blobs: z.string(), registry: z.string() }),
})

export const described: Described = {
  name: 'Pages',
  about: 'Pages for people, this document, and signs of life.',
  routes: {
    'GET /': {
      summary: 'The home page',
      more: 'With a token (Bearer, or Basic with the token as password): 401 when it is not valid.',
      answer: html,
      errors: ['unauthenticated', 'invalid'],
    },
    'GET /auth/tokens': { summary: 'How to get a token', answer: html, errors: ['invalid'] },
    'GET /library/:entity/:collection/:container': {
      summary: 'The page that a push names',
      answer: html,
    },
    'GET /healthz': {
      summary: 'The server answers',
      answer: bare(z.object({ status: z.literal('ok') })),
    },
    'GET /readyz': {
      summary: 'Database and blob store answer',
      answer: bare(checks),
      others: { 503: { about: 'One of them does not.', ...bare(checks) } },
    },
    'GET /openapi.json': {
      summary: 'This document',
      answer: bare(z.looseObject({ openapi: z.string() })),
      others: { 304: 'It is what If-None-Match names.' },
    },
    'GET /docs': { summary: 'This document, to browse', answer: html, errors: ['not_found'] },
    'GET /docs/:file': {
      summary: 'What the page needs to show it',
      params: { file: 'Name of a file.' },
      answer: [plain('text/javascript'), plain('text/css')],
      others: { 304: 'It is what If-None-Match names.' },
    },
  },
}
