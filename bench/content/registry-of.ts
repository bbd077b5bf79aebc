/**
 * Data folders of registries with as many images as one likes, for the case `growth`: the server makes
 * and migrates the folder, and the rows are written straight into its database.
 *
 * What is as after real pushes: every row that a push leaves (images, details, tags, blobs, holdings,
 * verdicts, manifests, memberships, audit log, counters), the sums that the schema's triggers keep, and
 * the full-text index, which the server's own statement writes. The benchmark compares it with real pushes
 * (registry-shape.ts). What is not: the bytes. The blobs of all images are hard links to a few
 * sparse files of the right sizes, so their content is not what their digest says; uploads are closed and
 * forgotten.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, ftruncateSync, linkSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import { connect } from '../../adapters/databases/better-sqlite3.ts'
import { randomIds } from '../../adapters/system.ts'
import { derivedManifest, EMPTY_DIGEST, EMPTY_JSON } from '../../src/core/derived.ts'
import { windowOf, WEEK_MS } from '../../src/core/tallies.ts'
import { indexImages } from '../../src/sqlite/fragments.ts'
import { builder } from '../../src/sqlite/index.ts'

/** An image that was made, as one would ask for it. */
export type Sample = {
  entity: string
  collection: string
  container: string
  containerId: string
  tag: string
  arch: string
  /** Hex. */
  digest: string
  size: number
  id: string
  private: boolean
  signed: boolean
  /** Digest of the manifest that was pushed by OCI, null for an image of the library. */
  manifest: string | null
  /** The only image under its tag. */
  alone: boolean
  /** The audit log still has its push. */
  logged: boolean
}

export type Made = {
  images: number
  containers: number
  users: number
  seconds: number
  /** Chosen at random among all images. */
  samples: Sample[]
  /** Words by how many images have them. */
  words: { common: string[]; rare: string[]; several: string[]; nothing: string[] }
}

/** Images that `Made` tells of at most. */
const SAMPLES = 5000
const PER_TRANSACTION = 20_000
/** Rows that the server keeps of the audit log (SREG_AUDIT_ROWS). */
const AUDIT_ROWS = 1_000_000
const DAY_MS = 86_400_000
const MIB = 1024 * 1024

const TOOLS =
  'samtools bwa gatk blast star salmon kallisto fastqc multiqc bowtie2 hisat2 bcftools bedtools picard trimmomatic snakemake nextflow rstudio seurat scanpy cellranger macs2 deseq2 qiime2 kraken2 spades megahit prokka augustus hmmer muscle mafft iqtree raxml beast mrbayes plink admixture gromacs namd lammps amber openmm quantum-espresso vasp cp2k nwchem siesta abinit openfoam paraview vtk ansys comsol fluent su2 dealii petsc trilinos hypre fftw openblas mkl openmpi mpich cuda cudnn nccl tensorflow pytorch jax keras mxnet horovod deepspeed megatron transformers vllm triton onnx rapids dask spark hadoop kafka flink airflow jupyter jupyterhub notebook anaconda miniconda mamba python julia octave matlab scilab rbase tidyverse bioconductor perl ruby golang rust gcc clang intel-oneapi cmake spack easybuild lmod freesurfer fsl afni ants spm fmriprep mriqc qsiprep nipype dcm2niix root geant4 pythia delphes madgraph sherpa herwig rucio xrootd cvmfs gdal qgis grass postgis wrf cesm mpas roms nemo esmf ncview cdo nco metpy xarray lofar casa astropy topcat ds9'.split(
    ' ',
  )
const KINDS =
  'gpu cpu dev prod base slim full mpi notebook server worker test nightly stable ml tools'.split(
    ' ',
  )
const GIVEN =
  'anna ben clara david emma felix greta hugo ida jonas karin leo mia noah olga paul quinn rosa simon tara umar vera wanda xenia yusuf zoe'.split(
    ' ',
  )
const FAMILY =
  'abel becker castro dubois ericson fischer garcia hansen ito jensen kumar larsen moreau novak okafor petrov quist rossi silva tanaka ueda varga weber xu young zhang'.split(
    ' ',
  )
const PLACES =
  'images projects paper lab pipelines course workshop cluster archive shared genomics imaging physics climate'.split(
    ' ',
  )
const BASES =
  'ubuntu:22.04 ubuntu:24.04 debian:bookworm rockylinux:9 centos:7 alpine:3.20 continuumio/miniconda3 nvidia/cuda:12.4.1-devel-ubuntu22.04 python:3.12-slim r-base:4.4.1 rocker/tidyverse fedora:40'.split(
    ' ',
  )
const VERSIONS = ['1.1.9-1.el8', '1.2.5', '1.3.4-jammy', '3.8.7', '3.11.4', '4.1.2']
const SENTENCES = [
  'Built nightly from the default branch',
  'Everything that the workshop needs',
  'As used for the figures of the paper',
  'Pinned versions, do not update',
  'With MPI for the cluster',
  'Tested on the GPU nodes',
]
const SYLLABLES =
  'ba be bo da do fa fi ga go ha ja ki ko la lu ma mo na ni pa po ra ri sa so ta tu va wo za'.split(
    ' ',
  )

/** Numbers that look like chance and are the same in every run (mulberry32). */
function chance(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** 32 random bytes as hex; fetched for many at once. */
function digests(): () => string {
  let pool = Buffer.alloc(0)
  let used = 0
  return () => {
    if (used === pool.length) [pool, used] = [randomBytes(32 * 4096), 0]
    used += 32
    return pool.toString('hex', used - 32, used)
  }
}

/** The same labels and definition that Apptainer writes into a SIF that it builds from an OCI image. */
function factsOf(random: () => number, arch: string, at: number, version: string, author: string) {
  const base = BASES[Math.floor(random() ** 2 * BASES.length)] ?? ''
  const client = VERSIONS[Math.floor(random() * VERSIONS.length)] ?? ''
  const labels = {
    'org.label-schema.build-arch': arch,
    'org.label-schema.build-date': new Date(at).toUTCString().replaceAll(/[ ,]+/g, '_'),
    'org.label-schema.schema-version': '1.0',
    'org.label-schema.usage.apptainer.version': client,
    'org.label-schema.usage.singularity.deffile.bootstrap': 'docker',
    'org.label-schema.usage.singularity.deffile.from': base,
    maintainer: author,
    version,
  }
  const definition = `bootstrap: docker\nfrom: ${base}\n\n%post\n    apt-get update && apt-get install -y --no-install-recommends ca-certificates\n\n%labels\n    maintainer ${author}\n    version ${version}\n`
  return { labels: JSON.stringify(labels), definition }
}

/** Facts of a signature by a key that nobody has added here, as the registry keeps them. */
const signatureFacts = (fingerprint: string, digest: string) =>
  JSON.stringify({
    flaw: null,
    objects: [1, 2, 3],
    signatures: [
      {
        id: 4,
        form: 'current',
        claimed: fingerprint,
        text: `-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{"version":1,"header":{"digest":"sha256:${digest}"},"objects":[{"relativeId":0,"descriptorDigest":"sha256:${digest}","objectDigest":"sha256:${digest}"}]}\n-----BEGIN PGP SIGNATURE-----\n\n${'wsBzBAEBCAAnBYJl'.repeat(40)}\n-----END PGP SIGNATURE-----\n`,
        issuers: [fingerprint],
        covers: [1, 2, 3],
        problem: null,
      },
    ],
    more: 0,
  })

const SIF_CONFIG = 'application/vnd.sylabs.sif.config.v1+json'
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'

/**
 * Fills the data folder of a registry that has been started once, and stands still, with `images` images.
 * Users have some 100 images each in a few collections, whatever the size of the registry; beside them
 * `library/default` has one image in a hundred. One collection in ten and one container in twenty are
 * private, one image in ten is signed, one container in seven is pushed by OCI, with referrers.
 */
export function fillRegistry(data: string, images: number, say: (line: string) => void): Made {
  const began = performance.now()
  const random = chance(images)
  const next = digests()
  const id = () => randomIds.next()
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T
  const syllables = (count: number) => Array.from({ length: count }, () => pick(SYLLABLES)).join('')

  const connection = connect(join(data, 'sreg.sqlite3'), { create: false })
  // what a crash would leave is thrown away anyway; the server's own settings are those of its connection
  for (const pragma of [
    'busy_timeout = 5000',
    'journal_mode = MEMORY',
    'synchronous = OFF',
    'locking_mode = EXCLUSIVE',
    'cache_size = -4000000',
    'foreign_keys = OFF',
  ])
    connection.exec(`PRAGMA ${pragma}`)
  const insert = (table: string, columns: string) => {
    const names = columns.split(' ')
    const values = names.map(() => '?').join(', ')
    return connection.prepare(
      `INSERT INTO ${table} (${names.join(', ')}) VALUES (${values}) ON CONFLICT DO NOTHING`,
    )
  }
  const put = {
    user: insert('users', 'id name role created_at'),
    token: insert('tokens', 'id user_id name scopes created_at expires_at last_used_at'),
    entity: insert('entities', 'id name description owner_id created_at updated_at'),
    collection: insert(
      'collections',
      'id entity_id name description private created_at updated_at',
    ),
    container: insert(
      'containers',
      'id collection_id name description full_description private size downloads created_at updated_at',
    ),
    filled: connection.prepare('UPDATE containers SET size = ?, updated_at = ? WHERE id = ?'),
    blob: insert('blobs', 'id key digest size state created_at dying_at'),
    image: insert(
      'images',
      'id container_id digest description blob_id size arch signed fingerprints created_by created_at updated_at manifest',
    ),
    details: insert('image_details', 'image_id definition labels partitions truncated'),
    tag: insert('tags', 'container_id name arch image_id updated_at'),
    verdict: insert('verdicts', 'digest verdict why signers marks facts'),
    issuer: insert('signature_issuers', 'issuer digest marks'),
    manifest: insert(
      'manifests',
      'container_id digest media_type size subject artifact_type annotations created_by created_at sif',
    ),
    piece: insert('manifest_pieces', 'container_id manifest number text'),
    ref: insert('manifest_refs', 'container_id manifest kind digest'),
    member: insert('repository_blobs', 'container_id digest blob_id created_at'),
    ociTag: insert('oci_tags', 'container_id name manifest updated_at'),
    audit: insert('audit', 'at actor_id actor token_id address action object name outcome detail'),
    counter: insert('counters', 'name period count'),
    team: insert('teams', 'id name description open created_at'),
    teamMember: insert('team_members', 'team_id user_id owner joined_at'),
    grant: insert('grants', 'id collection_id user_id team_id level created_at'),
    star: insert('stars', 'container_id user_id created_at'),
  }

  const files = makeFiles(join(data, 'blobs'))
  const now = Date.now()
  const made: Made = {
    images: 0,
    containers: 0,
    users: 0,
    seconds: 0,
    samples: [],
    words: {
      common: ['docker', 'ubuntu', 'python', 'amd64', 'cuda'],
      rare: [],
      several: ['docker samtools', 'ubuntu python gpu', 'pytorch cuda arm64', 'anna becker paper'],
      nothing: ['qxzvwjk', 'samtoolz', 'pythonista', 'ubuntoo', 'nonesuch docker'],
    },
  }
  /** Stands in the place of the one `audit` rows are written from on: the log keeps the newest only. */
  const silent = images - AUDIT_ROWS / 2
  const keep = (sample: Sample) => {
    // of all images so far each is kept with the same chance
    if (made.samples.length < SAMPLES) made.samples.push(sample)
    else {
      const place = Math.floor(random() * made.images)
      if (place < SAMPLES) made.samples[place] = sample
    }
  }
  const storeBlob = (digest: string, at: number, state = 'live') => {
    const [blobId, key] = [id(), id()]
    const file = pick(files)
    linkSync(file.path, join(data, 'blobs/blobs', key.slice(0, 2), key))
    put.blob([blobId, key, digest, file.size, state, at, state === 'dying' ? now - DAY_MS : null])
    return { blobId, size: file.size }
  }

  connection.exec('BEGIN')
  const emptyBlob = id()
  const emptyKey = id()
  writeFileSync(join(data, 'blobs/blobs', emptyKey.slice(0, 2), emptyKey), EMPTY_JSON)
  put.blob([emptyBlob, emptyKey, EMPTY_DIGEST.slice(7), EMPTY_JSON.length, 'live', now, null])

  type Person = { id: string; name: string; token: string }
  const people: Person[] = []
  const person = (name: string): Person => {
    const one = { id: id(), name, token: id() }
    const at = now - Math.floor(random() * 1000) * DAY_MS
    put.user([one.id, name, 'user', at])
    const year = 365 * DAY_MS
    put.token([one.token, one.id, 'laptop', 'pull push', at, now + year, now])
    people.push(one)
    made.users += 1
    return one
  }
  const place = (entity: string, by: Person, age: number) => {
    const entityId = id()
    put.entity([entityId, entity, '', by.id, now - age, now - age])
    return entityId
  }

  /** One container with its images; returns how many it got. */
  function fillContainer(
    at: { entity: string; collection: string; collectionId: string; private: boolean },
    name: string,
    by: Person,
    most: number,
  ): number {
    const containerId = id()
    const hidden = at.private || random() < 0.05
    const byOci = random() < 1 / 7
    const description = random() < 0.3 ? pick(SENTENCES) : ''
    const created = now - Math.floor(random() * 900 * DAY_MS)
    const full = `${at.entity}/${at.collection}/${name}`
    const visibility = hidden && !at.private ? 1 : 0
    const pulls = Math.floor(random() ** 8 * 10_000)
    // before its images: triggers look for it
    put.container([
      containerId,
      at.collectionId,
      name,
      description,
      '',
      visibility,
      0,
      pulls,
      created,
      created,
    ])
    let bytes = 0
    let count = 0
    let first: string | null = null
    const releases = 1 + Math.floor(random() * 12)
    for (let release = releases; release > 0 && count < most; release--) {
      const version = `${pick(['', '', 'v'])}${Math.ceil(release / 4)}.${release % 4}.${Math.floor(random() * 10)}`
      const when = created + (releases - release) * DAY_MS * 7
      const archs = random() < 0.25 ? ['amd64', 'arm64'] : [random() < 0.05 ? 'ppc64le' : 'amd64']
      for (const arch of archs) {
        const imageId = id()
        const digest = next()
        const { blobId, size } = storeBlob(digest, when)
        const signed = random() < 0.1
        const fingerprint = next().slice(0, 40).toUpperCase()
        const derived = derivedManifest(name, { digest, size })
        put.image([
          imageId,
          containerId,
          digest,
          '',
          blobId,
          size,
          arch,
          signed ? 1 : 0,
          signed ? JSON.stringify([fingerprint]) : '[]',
          by.id,
          when,
          when,
          derived.digest.slice('sha256:'.length),
        ])
        const author = by.name.replaceAll('.', ' ')
        const { definition, labels } = factsOf(random, arch, when, version, author)
        const partitions = JSON.stringify([
          { name: '', type: 'primary', filesystem: 'squashfs', arch, size: size - 32_768 },
        ])
        put.details([imageId, definition, labels, partitions, '[]'])
        put.tag([containerId, version, arch, imageId, when])
        if (release === releases) put.tag([containerId, 'latest', arch, imageId, when])
        if (signed) {
          const why = `no key here is ${fingerprint}`
          put.verdict([digest, 'unknown key', why, '[]', '[]', signatureFacts(fingerprint, digest)])
          put.issuer([fingerprint, digest, ''])
        }
        let manifest: string | null = null
        if (byOci) {
          manifest = derived.digest
          const { text, size: length } = derived
          put.manifest([
            containerId,
            manifest,
            OCI_MANIFEST,
            length,
            null,
            SIF_CONFIG,
            null,
            by.id,
            when,
            digest,
          ])
          put.piece([containerId, manifest, 0, text])
          put.ref([containerId, manifest, 'blob', EMPTY_DIGEST])
          put.ref([containerId, manifest, 'blob', `sha256:${digest}`])
          put.member([containerId, EMPTY_DIGEST, emptyBlob, when])
          put.member([containerId, `sha256:${digest}`, blobId, when])
          // of two archs under one tag the one pushed last is what OCI has there
          if (archs.length === 1) put.ociTag([containerId, version, manifest, when])
          first ??= manifest
        }
        made.images += 1
        const logged = made.images > silent
        if (logged) {
          const log = (action: string, object: string, what: string, detail: string) =>
            put.audit([
              when,
              by.id,
              by.name,
              by.token,
              '192.0.2.7',
              action,
              object,
              full + what,
              'done',
              detail,
            ])
          const stored = `sha256.${digest}, ${size} bytes, `
          if (manifest === null) {
            log('image.push', `image ${imageId}`, '', `${stored}uploaded`)
            const said = `${arch}, new, to image ${imageId}`
            log('tag.set', `image ${imageId}`, `:${version}`, said)
          } else {
            const object = `container ${containerId}`
            if (count === 0) log('blob.push', object, `@${EMPTY_DIGEST}`, '2 bytes, stored copy')
            log('blob.push', object, `@sha256:${digest}`, `${size} bytes, uploaded`)
            log('image.push', `image ${imageId}`, '', `${stored}by OCI`)
            const said = `${OCI_MANIFEST}, ${derived.size} bytes`
            log('manifest.put', object, `@${manifest}`, said)
            log('tag.set', object, `:${version}`, `to manifest ${manifest}`)
          }
        }
        keep({
          entity: at.entity,
          collection: at.collection,
          container: name,
          containerId,
          tag: version,
          arch,
          digest,
          size,
          id: imageId,
          private: hidden,
          signed,
          manifest,
          alone: archs.length === 1,
          logged,
        })
        bytes += size
        count += 1
      }
    }
    if (first !== null && random() < 0.5)
      for (let n = 0; n < 3; n++) putReferrer(containerId, first, by, created)
    put.filled([bytes, created + (releases - 1) * 7 * DAY_MS, containerId])
    if (random() < 0.1) {
      const week = windowOf(new Date(now), WEEK_MS).begin.getTime()
      for (let n = 0; n < 20; n++)
        put.counter([`pulls:${containerId}`, week - n * WEEK_MS, 1 + Math.floor(random() * 50)])
      put.star([containerId, pick(people).id, now])
    }
    if (count > 0 && made.words.rare.length < 200 && random() < 0.05 && !hidden)
      made.words.rare.push(name)
    made.containers += 1
    return count
  }

  /** What cosign pushes: an artifact that refers to an image's manifest. */
  function putReferrer(containerId: string, subject: string, by: Person, at: number): void {
    const digest = next()
    const { blobId, size } = storeBlob(digest, at)
    const type = 'application/vnd.dev.cosign.simplesigning.v1+json'
    const annotations = { 'dev.cosignproject.cosign/signature': 'MEUCIQ'.repeat(16) }
    const text = JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      artifactType: type,
      config: { mediaType: type, digest: EMPTY_DIGEST, size: EMPTY_JSON.length },
      layers: [{ mediaType: type, digest: `sha256:${digest}`, size }],
      subject: { mediaType: OCI_MANIFEST, digest: subject, size: 500 },
      annotations,
    })
    const manifest = `sha256:${next()}`
    const rest = [subject, type, JSON.stringify(annotations), by.id, at, null]
    put.manifest([containerId, manifest, OCI_MANIFEST, text.length, ...rest])
    put.piece([containerId, manifest, 0, text])
    put.ref([containerId, manifest, 'blob', EMPTY_DIGEST])
    put.ref([containerId, manifest, 'blob', `sha256:${digest}`])
    put.member([containerId, `sha256:${digest}`, blobId, at])
  }

  const containerName = (names: Set<string>) => {
    for (let tries = 0; ; tries++) {
      const tool = TOOLS[Math.floor(random() ** 1.5 * TOOLS.length)] ?? ''
      const drawn = random()
      // a quarter has a name of its own that nobody else has
      const name =
        drawn < 0.35 && tries < 3
          ? tool
          : drawn < 0.75 && tries < 6
            ? `${tool}-${pick(KINDS)}`
            : `${tool}-${syllables(4)}`
      if (names.has(name)) continue
      names.add(name)
      return name
    }
  }

  let begun = 0
  const committed = () => {
    if (made.images - begun < PER_TRANSACTION) return
    connection.exec('COMMIT')
    connection.exec('BEGIN')
    begun = made.images
    if (made.images % 100_000 < PER_TRANSACTION) say(`  ${made.images} images`)
  }
  /** A collection of at most `most` images. */
  const fillCollection = (
    entity: { id: string; name: string },
    name: string,
    by: Person,
    { containers, most }: { containers: number; most: number },
  ) => {
    const collectionId = id()
    const hidden = name !== 'default' && random() < 0.1
    const at = now - 900 * DAY_MS
    put.collection([collectionId, entity.id, name, '', hidden ? 1 : 0, at, at])
    if (random() < 0.1) put.grant([id(), collectionId, pick(people).id, null, 2, at])
    const names = new Set<string>()
    const where = { entity: entity.name, collection: name, collectionId, private: hidden }
    let left = most
    for (let n = 0; n < containers && left > 0; n++) {
      left -= fillContainer(where, containerName(names), by, left)
      committed()
    }
  }

  const keeper = person('librarian')
  const library = { id: place('library', keeper, 900 * DAY_MS), name: 'library' }
  const public_ = Math.ceil(images / 100)
  fillCollection(library, 'default', keeper, { containers: Infinity, most: public_ })
  while (made.images < images) {
    const by = person(`${pick(GIVEN)}.${pick(FAMILY)}${people.length}`)
    if (people.length % 50 === 0) {
      const team = id()
      put.team([team, `team-${syllables(2)}${people.length}`, '', 0, now])
      for (let n = 0; n < 6; n++) put.teamMember([team, pick(people).id, n === 0 ? 1 : 0, now])
    }
    const entity = { id: place(by.name, by, Math.floor(random() * 900) * DAY_MS), name: by.name }
    const places = new Set(Array.from({ length: 1 + Math.floor(random() * 4) }, () => pick(PLACES)))
    for (const name of places) {
      const containers = 1 + Math.floor(random() * 9)
      fillCollection(entity, name, by, { containers, most: images - made.images })
    }
  }
  // of what was deleted lately: the sweep has something to do
  for (let n = 0; n < Math.ceil(images / 1000); n++) storeBlob(next(), now - 9 * DAY_MS, 'dying')
  connection.exec('COMMIT')

  say('  full-text index')
  const window = sql`select seq from images where seq > ${sql.placeholder('from')} and seq <= ${sql.placeholder('to')}`
  const index = indexImages(builder(), window)
  let run: ((values: unknown[]) => unknown) | undefined
  for (let from = 0; from < made.images; from += PER_TRANSACTION) {
    const { query, values } = index({ from, to: from + PER_TRANSACTION })
    run ??= connection.prepare(query.sql)
    connection.exec('BEGIN')
    run(query.bind(values))
    connection.exec('COMMIT')
  }
  connection.exec('PRAGMA locking_mode = NORMAL')
  connection.exec('PRAGMA journal_mode = WAL')
  connection.close()
  made.seconds = (performance.now() - began) / 1000
  return made
}

/** Sparse files of 2 MiB to 12 GiB that blobs are links to; a file has at most 65,000 names. */
function makeFiles(store: string): { path: string; size: number }[] {
  for (let n = 0; n < 256; n++)
    mkdirSync(join(store, 'blobs', n.toString(16).padStart(2, '0')), { recursive: true })
  const folder = join(store, '..', 'sparse')
  mkdirSync(folder, { recursive: true })
  return Array.from({ length: 64 }, (_, n) => {
    const path = join(folder, String(n))
    const size = Math.floor(2 * MIB * 1.145 ** n)
    const file = openSync(path, 'w', 0o400)
    ftruncateSync(file, size)
    closeSync(file)
    return { path, size }
  })
}
