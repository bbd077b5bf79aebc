/** A registry with something of everything in it, pushed by the library client; and what it shows. */
import { createHash } from 'node:crypto'
import { buildSif, deffile, inspectMetadata, partition, signature } from '../fixtures/sif.ts'
import { clearSign, makeKey } from '../fixtures/make-key.ts'
import { libraryClient } from '../protocol/client.ts'
import type { Target } from '../runtimes/target.ts'

export const PEOPLE = ['ada', 'bob', 'cleo', 'dora', 'emil'] as const
const ARCHES = ['amd64', 'arm64', 'ppc64le'] as const

/** Every image has its own bytes but each fifth, which equals its predecessor's. */
function imageOf(n: number) {
  const content = n % 5 === 4 ? n - 1 : n
  const arch = ARCHES[content % 3] ?? 'amd64'
  const bytes = buildSif({
    arch,
    objects: [
      deffile(`bootstrap: scratch\n# ${content}\n`),
      inspectMetadata({ number: String(content), word: `needle${content}` }),
      partition({ arch, data: `hsqs ${content} ${'x'.repeat(content * 997)}` }),
      ...(content % 7 === 0 ? [signature('A'.repeat(40))] : []),
    ],
  })
  return { bytes, arch }
}

/** Pushes `count` images of five people, some places private, some tokens revoked. */
export async function fill(target: Target, count: number) {
  const tokens: { user: string; id: string; jwt: string; revoked: boolean }[] = []
  for (const user of PEOPLE) {
    const kept = await target.mint(user)
    const gone = await target.mint(user)
    await target.revoke(gone.id)
    tokens.push({ user, ...kept, revoked: false }, { user, ...gone, revoked: true })
  }
  const refs = new Set<string>()
  for (let n = 0; n < count; n += 1) {
    const user = PEOPLE[n % PEOPLE.length] ?? 'ada'
    const jwt = tokens.find((token) => token.user === user && !token.revoked)?.jwt ?? ''
    const { bytes, arch } = imageOf(n)
    const ref = `${user}/c${n % 2}/n${n % 4}`
    refs.add(ref)
    await libraryClient(target.url, jwt).push(ref, bytes, {
      arch,
      tags: n % 3 === 0 ? [`v${n}`, 'latest'] : [`v${n}`],
      privateCollection: n % 2 === 1,
    })
  }
  await target.setPrivate('ada/c0/n0', true)
  await fillKeystore(target, tokens[0]?.jwt ?? '')
  return { tokens, refs: [...refs].toSorted() }
}

/** Three keys: one that the user owns, one that they removed, and one that is nobody's. */
async function fillKeystore({ url }: Target, jwt: string): Promise<void> {
  const client = libraryClient(url, jwt)
  for (const name of ['Owned', 'Removed', 'Free']) {
    const key = await makeKey(`${name} in the world`)
    const path = `/v1/keys/${key.fingerprint}`
    await client.call('POST', '/pks/add', new URLSearchParams({ keytext: key.armor }).toString())
    if (name === 'Free') continue
    const { json } = await client.call('POST', `${path}/challenge`)
    const signed = await clearSign(json.data.challenge, key)
    const { status } = await client.call('POST', `${path}/claim`, { signed })
    if (status !== 200) throw new Error(`no claim of ${name}: ${status}`)
    if (name === 'Removed') await client.call('DELETE', path)
  }
}

/**
 * What a token sees of the keystore and of these refs: every tag of every arch, its image's digest, its bytes' digest,
 * and whether it is private; with ids, so that what holds ids keeps holding (R38).
 */
export async function seen(url: string, jwt: string | null, refs: readonly string[]) {
  const client = libraryClient(url, jwt)
  const lines: unknown[] = []
  for (const ref of refs) {
    const container = await client.call('GET', `/v1/containers/${ref}`)
    if (container.status !== 200) {
      lines.push([ref, container.status])
      continue
    }
    const { id, size, images, archTags, private: hidden } = container.json.data
    lines.push([ref, id, size, [...images].toSorted(), archTags, hidden])
    for (const [arch, tags] of Object.entries(archTags as Record<string, object>))
      for (const tag of Object.keys(tags).toSorted()) {
        const { json } = await client.call('GET', `/v1/images/${ref}:${tag}?arch=${arch}`)
        const got = await fetch(`${url}/v1/imagefile/${ref}:${tag}?arch=${arch}`, {
          headers: jwt === null ? {} : { authorization: `Bearer ${jwt}` },
        })
        const bytes = createHash('sha256').update(new Uint8Array(await got.arrayBuffer()))
        const { hash, signed, fingerprints, labels } = json.data
        lines.push([ref, arch, tag, hash, signed, fingerprints, labels, bytes.digest('hex')])
      }
  }
  const index = await client.call('GET', '/pks/lookup?op=index&options=mr&search=in+the+world')
  const armor = await client.call('GET', '/pks/lookup?op=get&search=in+the+world')
  const keys = await client.call('GET', '/v1/keys')
  lines.push(keySet(index.text), armor.status, keys.status, listed(keys.json.data?.keys ?? []))
  const found = await client.call('GET', '/v1/search?value=needle')
  lines.push(found.json.data.image.map((image: { hash: string }) => image.hash).toSorted())
  return lines
}

/** The lines of an index without regard to the order in which the keys came. */
const keySet = (index: string) => index.split('\n').toSorted()

const listed = (keys: { fingerprint: string }[]) =>
  keys.toSorted((a, b) => (a.fingerprint < b.fingerprint ? -1 : 1))
