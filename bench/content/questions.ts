/** What is asked of a registry that was made (registry-of.ts), and what its answers must hold. */
import { REDIRECT_FROM } from '../../src/core/downloads.ts'
import type { Answer } from '../measure.ts'
import type { Made, Sample } from './registry-of.ts'

/** A registry that registry-of.ts has filled, and a token of a user's. */
export type Filled = { token: string; made: Made }

/** One GET. */
export type Asked = {
  path: string
  headers?: Record<string, string>
  /** Throws when it is not what was asked for. */
  check(answer: Answer): void
}

export type Question = {
  name: string
  /** Requests of a round; the default where it is missing. */
  requests?: number
  ask(registry: Filled, random: () => number): Asked
}

const visible = (registry: Filled) => registry.made.samples.filter((one) => !one.private)
const chosen = <T>(list: readonly T[], random: () => number): T => {
  const one = list[Math.floor(random() * list.length)]
  if (one === undefined) throw new Error('the registry has nothing to ask for')
  return one
}
const place = ({ entity, collection, container }: Sample) => `${entity}/${collection}/${container}`
/** `data` of an answer of the library API. */
export const dataOf = (answer: Answer) =>
  (JSON.parse(answer.body) as { data: Record<string, unknown> }).data

/** Throws with the answer unless it `holds`. */
export function expectThat(holds: boolean, what: string, answer: Answer): void {
  if (!holds) throw new Error(`${what}: ${answer.status} ${answer.body.slice(0, 400)}`)
}

export const bearer = (registry: Filled) => ({ Authorization: `Bearer ${registry.token}` })

/** A request for a sample that `fits`, and what its answer must hold. */
const forSample =
  (
    path: (one: Sample) => string,
    holds: (answer: Answer, one: Sample) => boolean,
    more: { fits?: (one: Sample, at: number) => boolean; token?: boolean; status?: number } = {},
  ): Question['ask'] =>
  (registry, random) => {
    const { fits = () => true, token = false, status = 200 } = more
    const one = chosen(visible(registry).filter(fits), random)
    return {
      path: path(one),
      ...(token ? { headers: bearer(registry) } : {}),
      check: (answer) =>
        expectThat(answer.status === status && holds(answer, one), path(one), answer),
    }
  }

const isImage = (answer: Answer, one: Sample) => {
  const data = dataOf(answer)
  return data.hash === `sha256.${one.digest}` && data.size === one.size && data.arch === one.arch
}
const byTag = (one: Sample) => `/v1/images/${place(one)}:${one.tag}?arch=${one.arch}`
const pushedByOci = (one: Sample) => one.manifest !== null
/** The first 50 of those that are chosen at random. */
const popular = (_: Sample, at: number) => at < 50

const searchFor =
  (
    words: (made: Made) => string[],
    holds: (images: { hash?: string }[]) => boolean,
  ): Question['ask'] =>
  (registry, random) => {
    const word = chosen(words(registry.made), random)
    return {
      path: `/v1/search?value=${encodeURIComponent(word)}&arch=amd64`,
      check(answer) {
        const images = (dataOf(answer) as { image: object[] }).image
        expectThat(answer.status === 200 && holds(images), `search for ${word}`, answer)
      },
    }
  }

/** What an empty registry can be asked, too. */
export const TOKEN_CHECK: Question = {
  name: 'token check',
  ask: (registry) => ({
    path: '/v1/token-status',
    headers: bearer(registry),
    check: (answer) => expectThat(answer.status === 200, 'token', answer),
  }),
}

/** Every kind of lookup, with what the answer must hold; drawn at random. */
export const QUESTIONS: Question[] = [
  { name: 'image by tag', ask: forSample(byTag, isImage) },
  {
    name: 'image by tag, one of 50 popular ones',
    ask: forSample(byTag, isImage, { fits: popular }),
  },
  { name: 'image by tag, with a token', ask: forSample(byTag, isImage, { token: true }) },
  {
    name: 'image by tag, another arch',
    ask: forSample(byTag, isImage, { fits: (one) => one.arch !== 'amd64' }),
  },
  {
    name: 'image by hash',
    ask: forSample((one) => `/v1/images/${place(one)}:sha256.${one.digest}`, isImage),
  },
  {
    name: 'ticket for a pull',
    ask: forSample(
      (one) => `/v1/imagefile/${place(one)}:${one.tag}?arch=${one.arch}`,
      (answer) => String(answer.headers.location).includes('/v1/blob'),
      { status: 303, fits: (one) => one.size >= REDIRECT_FROM },
    ),
  },
  {
    name: 'container',
    ask: forSample(
      (one) => `/v1/containers/${place(one)}`,
      (answer, one) => dataOf(answer).id === one.containerId,
    ),
  },
  {
    name: 'tags of a container',
    ask: forSample(
      (one) => `/v2/tags/${one.containerId}`,
      (answer, one) =>
        (dataOf(answer) as Record<string, Record<string, string>>)[one.arch]?.[one.tag] === one.id,
    ),
  },
  {
    name: 'collection',
    ask: forSample(
      (one) => `/v1/collections/${one.entity}/${one.collection}`,
      (answer, one) => dataOf(answer).name === one.collection,
      { fits: (one) => one.entity !== 'library' },
    ),
  },
  {
    name: 'entity',
    ask: forSample(
      (one) => `/v1/entities/${one.entity}`,
      (answer, one) => dataOf(answer).name === one.entity,
      { fits: (one) => one.entity !== 'library' },
    ),
  },
  {
    name: 'collection with 1 % of all images',
    requests: 20,
    ask: () => ({
      path: '/v1/collections/library/default',
      check: (answer) => expectThat(dataOf(answer).name === 'default', 'library/default', answer),
    }),
  },
  {
    name: 'own entities, with a token',
    ask: (registry) => ({
      path: '/v1/entities',
      headers: bearer(registry),
      check: (answer) => expectThat(answer.status === 200, 'own entities', answer),
    }),
  },
  TOKEN_CHECK,
  {
    name: 'search: a common word',
    requests: 40,
    ask: searchFor(
      ({ words }) => words.common,
      (images) => images.length > 0,
    ),
  },
  {
    name: 'search: a rare word',
    requests: 40,
    ask: searchFor(
      ({ words }) => words.rare,
      () => true,
    ),
  },
  {
    name: 'search: several words',
    requests: 40,
    ask: searchFor(
      ({ words }) => words.several,
      () => true,
    ),
  },
  {
    name: 'search: nothing to be found',
    requests: 40,
    ask: searchFor(
      ({ words }) => words.nothing,
      (images) => images.length === 0,
    ),
  },
  {
    name: '/v2 manifest by tag, of a library image',
    ask: forSample(
      (one) => `/v2/${place(one)}/manifests/${one.tag}`,
      (answer) => answer.body.includes('"schemaVersion":2'),
      { fits: (one) => one.manifest === null },
    ),
  },
  {
    name: '/v2 manifest by digest',
    ask: forSample(
      (one) => `/v2/${place(one)}/manifests/${one.manifest}`,
      (answer, one) => answer.body.includes(`sha256:${one.digest}`),
      { fits: pushedByOci },
    ),
  },
  {
    name: '/v2 tags/list',
    ask: forSample(
      (one) => `/v2/${place(one)}/tags/list`,
      (answer, one) => answer.body.includes(`"${one.tag}"`),
    ),
  },
  {
    name: '/v2 referrers',
    ask: forSample(
      (one) => `/v2/${place(one)}/referrers/${one.manifest}`,
      (answer) => answer.body.includes('"manifests":['),
      { fits: pushedByOci },
    ),
  },
  {
    name: '/v2/_catalog, 100 names',
    requests: 10,
    ask: (registry, random) => {
      const last = place(chosen(visible(registry), random))
      return {
        path: `/v2/_catalog?n=100&last=${last}`,
        check(answer) {
          const names = (JSON.parse(answer.body) as { repositories: string[] }).repositories
          expectThat(
            names.every((name) => name > last),
            `catalog after ${last}`,
            answer,
          )
        },
      }
    },
  },
]
