/** Entities, collections, containers, images, tags and search (protocol.md §3.4, §3.5). */
import { parsePath, parseRef } from '../core/ref.ts'
import type { Ctx } from '../http/context.ts'
import { readJson } from '../http/body.ts'
import { data, written } from '../http/json-resp.ts'
import {
  archesOf,
  archOf,
  newCollection,
  newContainer,
  newEntity,
  newImage,
  newTag,
  pathAfter,
} from './requests.ts'
import type { LibraryDeps } from './routes.ts'
import {
  archTags,
  collectionJson,
  containerJson,
  entityJson,
  imageJson,
  imageText,
  tagsOfArch,
} from './wire.ts'

export function catalogHandlers({ catalog, transfer, config }: LibraryDeps) {
  const claims = (c: Ctx) => c.get('claims')
  const refOf = (c: Ctx) => parseRef(pathAfter(c, '/v1/images/'), config)

  return {
    async ownEntities(c: Ctx) {
      const entities = await catalog.ownEntities(claims(c))
      return data(entities.map((entity) => entityJson(entity)))
    },

    async entity(c: Ctx) {
      const [name = ''] = parsePath(pathAfter(c, '/v1/entities/'), 1)
      const { entity, below } = await catalog.entity(name, claims(c))
      return data(entityJson(entity, below))
    },

    async createEntity(c: Ctx) {
      const body = await readJson(c, transfer, newEntity)
      return data(entityJson(await catalog.createEntity(body, claims(c))))
    },

    async collection(c: Ctx) {
      const [entity = '', name = ''] = parsePath(pathAfter(c, '/v1/collections/'), 2)
      const { collection, below } = await catalog.collection(entity, name, claims(c))
      return data(collectionJson(collection, below))
    },

    async createCollection(c: Ctx) {
      const body = await readJson(c, transfer, newCollection)
      return data(collectionJson(await catalog.createCollection(body, claims(c))))
    },

    async deleteCollection(c: Ctx) {
      const [entity = '', name = ''] = parsePath(pathAfter(c, '/v1/collections/'), 2)
      await catalog.deleteCollection(entity, name, claims(c))
      return data({})
    },

    async container(c: Ctx) {
      const [entity = '', collection = '', container = ''] = parsePath(
        pathAfter(c, '/v1/containers/'),
        3,
      )
      const found = await catalog.container({ entity, collection, container }, claims(c))
      return data(containerJson(found.container, found.below, found.tags))
    },

    async deleteContainer(c: Ctx) {
      const [entity = '', collection = '', container = ''] = parsePath(
        pathAfter(c, '/v1/containers/'),
        3,
      )
      await catalog.deleteContainer({ entity, collection, container }, claims(c))
      return data({})
    },

    async createContainer(c: Ctx) {
      const body = await readJson(c, transfer, newContainer)
      return data(containerJson(await catalog.createContainer(body, claims(c))))
    },

    async image(c: Ctx) {
      return written(imageText(await catalog.image(refOf(c), archOf(c), claims(c))))
    },

    async createImage(c: Ctx) {
      const body = await readJson(c, transfer, newImage)
      return data(imageJson(await catalog.createImage(body, claims(c))))
    },

    async deleteImage(c: Ctx) {
      await catalog.deleteImage(refOf(c), archOf(c), claims(c))
      return data({})
    },

    /** v1: one arch, `?arch=` or amd64. */
    async tags(c: Ctx) {
      const tags = await catalog.tags(c.req.param('id') ?? '', claims(c))
      return data(tagsOfArch(tags, archOf(c) ?? 'amd64'))
    },

    async archTags(c: Ctx) {
      return data(archTags(await catalog.tags(c.req.param('id') ?? '', claims(c))))
    },

    /** v1 and v2: 200 exactly, 201 is a failed push (transcript push-tag201). */
    async setTag(c: Ctx) {
      const body = await readJson(c, transfer, newTag)
      const who = claims(c)
      // R24: an ended token tags what it has pushed, and nothing else in that container
      const asking = who && {
        ...who,
        grace: { of: 'tag' as const, id: body.imageId, until: who.expiresAt },
      }
      await catalog.setTag(c.req.param('id') ?? '', body, asking)
      return data({})
    },

    /** All four lists are there for clients before 3.7, which print the first three. */
    async search(c: Ctx) {
      const { images, terms, cut } = await catalog.search(
        {
          value: c.req.query('value') ?? '',
          arch: archesOf(c),
          signed: c.req.query('signed') === 'true',
        },
        claims(c),
      )
      const named = terms.map((term) => term.toLowerCase())
      const names = (pick: (image: (typeof images)[number]) => Record<'id' | 'name', string>) => {
        const found = new Map(images.map(pick).map((one) => [one.id, one]))
        return [...found.values()].filter(({ name }) =>
          named.every((term) => name.toLowerCase().includes(term)),
        )
      }
      return data({
        entity: names((i) => ({ id: i.entityId, name: i.entityName })),
        collection: names((i) => ({
          id: i.collectionId,
          name: i.collectionName,
          entityName: i.entityName,
        })),
        container: names((i) => ({
          id: i.containerId,
          name: i.containerName,
          collectionName: i.collectionName,
          entityName: i.entityName,
        })),
        image: images.map(imageJson),
        cut,
      })
    },
  }
}
