/** Manifests of library images: their bytes are the same for ever, or pins by digest break. */
import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import {
  DERIVED_LENGTH,
  derivedHex,
  derivedIndex,
  derivedManifest,
  EMPTY_DIGEST,
  EMPTY_JSON,
  sifOf,
} from '../../src/core/derived.ts'

const IMAGE = { digest: 'a'.repeat(64), size: 1234 }
const sha256 = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`

describe('derived manifests', () => {
  it('have these very bytes', () => {
    const { text, ...facts } = derivedManifest('n', IMAGE)
    expect(text).toBe(
      `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.sylabs.sif.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[{"mediaType":"application/vnd.sylabs.sif.layer.v1.sif","digest":"sha256:${'a'.repeat(64)}","size":1234,"annotations":{"org.opencontainers.image.title":"n.sif"}}]}`,
    )
    expect(facts).toEqual({
      digest: 'sha256:643cc8794d60a81a1bfd4b66407bda19e056d1c00ddffbe828fe79df46ae203e',
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      size: text.length,
      subject: null,
      artifactType: 'application/vnd.sylabs.sif.config.v1+json',
    })
    expect(facts.digest).toBe(sha256(text))
    expect(derivedHex('n', IMAGE)).toBe(facts.digest.slice(7))
    expect(EMPTY_DIGEST).toBe(sha256(EMPTY_JSON))
  })

  it('depend on the last component of the name, the digest and the size only', () => {
    expect(derivedManifest('x/y/n', IMAGE)).toEqual(derivedManifest('n', IMAGE))
    const others = [
      derivedHex('m', IMAGE),
      derivedHex('n', { ...IMAGE, size: 1 }),
      derivedHex('n', { ...IMAGE, digest: 'b'.repeat(64) }),
      derivedHex('n', IMAGE),
    ]
    expect(new Set(others).size).toBe(4)
    for (const [name, size] of [
      ['n', 1],
      ['a-longer.name', 98_765_432_100],
    ] as const)
      expect(derivedManifest(name, { ...IMAGE, size }).size).toBe(
        DERIVED_LENGTH + name.length + String(size).length,
      )
  })

  it('of several archs are an index in their order, with these very bytes', () => {
    const arm = { ...IMAGE, arch: 'arm64' }
    const amd = { digest: 'b'.repeat(64), size: 99, arch: 'amd64' }
    const { text, digest, mediaType, size } = derivedIndex('n', [arm, amd])
    const entry = (image: typeof arm) => {
      const manifest = derivedManifest('n', image)
      return `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"${manifest.digest}","size":${manifest.size},"platform":{"architecture":"${image.arch}","os":"linux"}}`
    }
    expect(text).toBe(
      `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[${entry(amd)},${entry(arm)}]}`,
    )
    expect({ digest, mediaType, size }).toEqual({
      digest: 'sha256:44cb0abd9f7a01bde39d7c1bd3f1de170124439bf2c05e8fa5a06b174f09a95e',
      mediaType: 'application/vnd.oci.image.index.v1+json',
      size: text.length,
    })
    expect(digest).toBe(sha256(text))
    expect(derivedIndex('n', [amd, arm]).digest).toBe(digest)
    const unknown = derivedIndex('n', [amd, { ...arm, arch: 'unknown' }])
    expect(JSON.parse(unknown.text).manifests[1]).not.toHaveProperty('platform')
  })
})

describe('the SIF that a manifest holds', () => {
  const layer = (mediaType: string, digest = `sha256:${'a'.repeat(64)}`) => ({ mediaType, digest })
  const SIF = 'application/vnd.sylabs.sif.layer.v1.sif'

  it('is its only layer, of either type', () => {
    for (const type of [SIF, 'appliciation/vnd.sylabs.sif.layer.tar'])
      expect(sifOf([layer(type)])).toBe('a'.repeat(64))
  })

  it('is none among several layers, of another type, or by another digest', () => {
    expect(sifOf([])).toBeNull()
    expect(sifOf([layer(SIF), layer(SIF)])).toBeNull()
    expect(sifOf([layer('application/vnd.oci.image.layer.v1.tar')])).toBeNull()
    expect(sifOf([layer(SIF, `sha512:${'a'.repeat(128)}`)])).toBeNull()
  })
})
