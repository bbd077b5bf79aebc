/**
 * What people do with the clients of OCI registries: apptainer by oras:// and docker://, skopeo, crane
 * and oras, each with a home of its own. Also one image by all its names. A function of a factory, as
 * suite.ts.
 */
import { createHash } from 'node:crypto'
import { copyFile, mkdir, mkdtemp, readFile, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test, type TestContext } from 'vitest'
import { libraryClient, sha256, type LibraryClient } from '../protocol/client.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import {
  clientEnv,
  findProgram,
  makeClient,
  makeSifs,
  removeFolder,
  runProgram,
  sha256File,
  type Client,
  type Outcome,
} from './apptainer.ts'
import { forwardPort80 } from './proxy.ts'
import { describeWithClient, expectRefusal, expectSuccess } from './suite.ts'

const PROGRAMS = ['apptainer', 'skopeo', 'crane', 'oras', 'busybox'] as const
type Program = (typeof PROGRAMS)[number]

const OCI = 'application/vnd.oci.image'
const ARCHES = ['amd64', 'arm64']
const MARK = Buffer.from('bytes after the last object')

/** Somebody with all the clients, logged in with none of them. */
type Person = {
  apptainer: Client
  run(program: Program, args: string[], input?: string): Promise<Outcome>
}

async function makePerson(folder: string): Promise<Person> {
  const apptainer = await makeClient(folder)
  const env = {
    ...clientEnv(folder),
    DOCKER_CONFIG: join(folder, '.docker'),
    REGISTRY_AUTH_FILE: join(folder, 'skopeo.json'),
    XDG_RUNTIME_DIR: folder,
    XDG_DATA_HOME: folder,
    // skopeo of root would remember blobs of other tests, below /var/lib
    _CONTAINERS_ROOTLESS_UID: '1000',
  }
  return {
    apptainer,
    run: (program, args, input) =>
      runProgram(findProgram(program) ?? program, args, { env, input }),
  }
}

/** An OCI layout in `folder`, whose tag `multi` is an index: a layer with busybox for each arch. */
async function makeLayout(folder: string): Promise<{ index: string; images: string[] }> {
  const blobs = join(folder, 'blobs/sha256')
  await mkdir(blobs, { recursive: true })
  const put = async (mediaType: string, content: Buffer | object) => {
    const bytes = content instanceof Buffer ? content : Buffer.from(JSON.stringify(content))
    const hex = createHash('sha256').update(bytes).digest('hex')
    await writeFile(join(blobs, hex), bytes)
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length }
  }
  const busybox = findProgram('busybox') ?? 'busybox'
  const manifests: { digest: string }[] = []
  for (const architecture of ARCHES) {
    const files = join(folder, `../files-${architecture}`)
    await mkdir(join(files, 'bin'), { recursive: true })
    await copyFile(busybox, join(files, 'bin/busybox'))
    await writeFile(join(files, 'arch'), architecture)
    expectSuccess(await runProgram(busybox, ['tar', '-C', files, '-cf', `${files}.tar`, '.']))
    const tar = await readFile(`${files}.tar`)
    const layer = await put(`${OCI}.layer.v1.tar+gzip`, gzipSync(tar))
    const config = await put(`${OCI}.config.v1+json`, {
      architecture,
      os: 'linux',
      config: { Cmd: ['/bin/busybox', 'echo', 'hello'] },
      rootfs: { type: 'layers', diff_ids: [`sha256:${sha256(tar)}`] },
    })
    const type = `${OCI}.manifest.v1+json`
    const manifest = { schemaVersion: 2, mediaType: type, config, layers: [layer] }
    const platform = { architecture, os: 'linux' }
    manifests.push({ ...(await put(type, manifest)), platform } as { digest: string })
  }
  const type = `${OCI}.index.v1+json`
  const index = await put(type, { schemaVersion: 2, mediaType: type, manifests })
  const annotations = { 'org.opencontainers.image.ref.name': 'multi' }
  const list = { schemaVersion: 2, manifests: [{ ...index, annotations }] }
  await writeFile(join(folder, 'index.json'), JSON.stringify(list))
  await writeFile(join(folder, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  return { index: index.digest, images: manifests.map(({ digest }) => digest) }
}

const jsonOf = (outcome: Outcome) => {
  expectSuccess(outcome)
  // warnings come before it
  return JSON.parse(outcome.terminal.slice(outcome.terminal.search(/^[[{]/m)))
}
const linesOf = (outcome: Outcome) => {
  expectSuccess(outcome)
  return outcome.terminal.trim().split('\n')
}

/** The suite. `makeTarget` makes one fresh registry per call, which the suite stops. */
export function describeOciClients(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describeWithClient(
    `${name}: the clients of OCI registries`,
    () => {
      let folder = ''
      let target: Target
      /** `127.0.0.1:PORT`, as all these clients name a registry. */
      let host = ''
      let token = ''
      /** Alice's own API, for what clients cannot do or see. */
      let api: LibraryClient
      let alice: Person
      let bob: Person
      let nobody: Person
      let layout: { at: string; index: string; images: string[] }
      let sifs = ''
      const sif = (file: string) => join(sifs, file)
      const at = (path: string) => join(folder, path)
      let people = 0
      const person = () => makePerson(at(`person-${++people}`))
      const wrong = () => token.replace(/.{8}$/, 'AAAAAAAA')

      /** Logs in with the password; each client has a command of its own. */
      const login = {
        apptainer: (who: Person, password: string, user = 'alice') =>
          who.run(
            'apptainer',
            ['registry', 'login', '-u', user, '--password-stdin', `oras://${host}`],
            password,
          ),
        skopeo: (who: Person, password: string, user = 'alice') =>
          who.run(
            'skopeo',
            ['login', '--tls-verify=false', '-u', user, '--password-stdin', host],
            password,
          ),
        crane: (who: Person, password: string, user = 'alice') =>
          who.run('crane', ['auth', 'login', '-u', user, '--password-stdin', host], password),
        oras: (who: Person, password: string, user = 'alice') =>
          who.run(
            'oras',
            ['login', '--plain-http', '-u', user, '--password-stdin', host],
            password,
          ),
      }
      const skopeo = (who: Person, command: string, ...args: string[]) => {
        const both = ['--src-tls-verify=false', '--dest-tls-verify=false']
        const flags = command === 'copy' ? both : ['--tls-verify=false']
        return who.run('skopeo', ['--insecure-policy', command, ...flags, ...args])
      }
      const crane = (who: Person, ...args: string[]) => who.run('crane', args)
      const oras = (who: Person, command: string, ...args: string[]) => {
        const both = ['--from-plain-http', '--to-plain-http']
        const [sub = ''] = command.split(' ')
        return who.run('oras', [
          ...command.split(' '),
          ...(sub === 'cp' ? both : ['--plain-http']),
          ...args,
        ])
      }
      const docker = (ref: string) => `docker://${host}/${ref}`
      const pushSif = (who: Person, file: string, ref: string) =>
        who.apptainer.run(['push', '-U', sif(file), `oras://${host}/${ref}`])
      const pullSif = (who: Person, ref: string) => who.apptainer.pull([`oras://${host}/${ref}`])
      const expectSif = async (who: Person, file: string, args: string[]) => {
        const pulled = await who.apptainer.pull(args)
        expectSuccess(pulled)
        expect(pulled.sha256).toBe(await sha256File(sif(file)))
      }
      /** R26: what is hidden reads on the terminal like what does not exist. */
      const expectHidden = async (work: (ref: string) => Promise<Outcome>, hidden: string) => {
        const absent = hidden.replace(/[a-z]/g, 'z')
        const [one, other] = [await work(hidden), await work(absent)]
        expect(one.code, one.terminal).not.toBe(0)
        // some clients say when
        const plain = ({ terminal }: Outcome) =>
          terminal.replaceAll(absent, hidden).replaceAll(/time="[^"]*"|^[\d/]+ [\d:]+ /gm, '')
        expect(plain(one)).toBe(plain(other))
      }
      const storedOfSize = async (size: number) => {
        const sizes = await Promise.all((await target.store.names()).map(target.store.size))
        return sizes.filter((each) => each === size).length
      }

      beforeAll(async () => {
        folder = await mkdtemp(join(tmpdir(), 'sreg-e2e-'))
        sifs = await makeSifs(at('sifs'))
        layout = { at: at('layout'), ...(await makeLayout(at('layout'))) }
        target = await makeTarget()
        host = new URL(target.url).host
        token = (await target.mint('alice')).jwt
        api = libraryClient(target.url, token)
        ;[alice, bob, nobody] = await Promise.all([person(), person(), person()])
        const bobs = (await target.mint('bob')).jwt
        for (const log of Object.values(login)) {
          expectSuccess(await log(alice, token))
          expectSuccess(await log(bob, bobs, 'bob'))
        }
        await api.ensure('alice', 'closed', 'app', { privateCollection: true })
      }, 120_000)

      afterAll(async () => {
        await target?.stop()
        await removeFolder(folder)
      })

      describe('logins', () => {
        // crane does not ask the registry: it only keeps what it was given
        test.each(['apptainer', 'skopeo', 'oras'] as const)(
          '%s: a wrong password is refused, the right one is kept (R13)',
          async (program) => {
            const who = await person()
            expectRefusal(await login[program](who, wrong()), '')
            expectSuccess(await login[program](who, token))
          },
        )

        test('a wrong password that crane kept opens nothing', async () => {
          const who = await person()
          expectSuccess(await login.crane(who, wrong()))
          const ref = `${host}/alice/lab/of-crane:v1`
          expectRefusal(await crane(who, 'push', layout.at, ref), 'UNAUTHORIZED')
          expectSuccess(await login.crane(who, token))
          expectSuccess(await crane(who, 'push', layout.at, ref))
        })

        test('apptainer registry logout ends it', async () => {
          const who = await person()
          expectSuccess(await login.apptainer(who, token))
          expectSuccess(await pushSif(who, 'small.sif', 'alice/lab/logout:v1'))
          expectSuccess(await who.apptainer.run(['registry', 'logout', `oras://${host}`]))
          expectRefusal(await pushSif(who, 'small2.sif', 'alice/lab/logout:v1'), 'UNAUTHORIZED')
          await expectSif(nobody, 'small.sif', [`oras://${host}/alice/lab/logout:v1`])
        })

        test('what get-login-password prints is a password here', async () => {
          const who = await person()
          expectSuccess(await who.apptainer.connect(target.url, token))
          const { terminal } = await who.apptainer.run(['remote', 'get-login-password'])
          expectSuccess(await login.apptainer(who, terminal.trim()))
          expectSuccess(await pushSif(who, 'small.sif', 'alice/lab/printed:v1'))
        })
      })

      describe('apptainer', () => {
        test('oras: pushed with a login, pulled by anybody, byte for byte', async () => {
          expectSuccess(await pushSif(alice, 'small.sif', 'alice/lab/sif:v1'))
          for (const who of [alice, bob, nobody])
            await expectSif(who, 'small.sif', [`oras://${host}/alice/lab/sif:v1`])
          // a tag moves
          expectSuccess(await pushSif(alice, 'small2.sif', 'alice/lab/sif:v1'))
          await expectSif(nobody, 'small2.sif', [`oras://${host}/alice/lab/sif:v1`])
          // more than one part of the store's
          expectSuccess(await pushSif(alice, 'big.sif', 'alice/lab/big'))
          await expectSif(nobody, 'big.sif', [`oras://${host}/alice/lab/big:latest`])
        }, 120_000)

        test('oras: nobody pushes to what is not theirs', async () => {
          for (const who of [bob, nobody])
            expectRefusal(await pushSif(who, 'small.sif', 'alice/lab/theirs:v1'), '')
          expectRefusal(await pullSif(alice, 'alice/lab/theirs:v1'), 'UNKNOWN')
        })

        test('oras: private is absent without a login, and pulled with it (R26)', async () => {
          expectSuccess(await pushSif(alice, 'small.sif', 'alice/closed/app:v1'))
          await expectSif(alice, 'small.sif', [`oras://${host}/alice/closed/app:v1`])
          for (const who of [bob, nobody]) {
            await expectHidden((repository) => pullSif(who, `alice/${repository}:v1`), 'closed/app')
            expect((await pullSif(who, 'alice/closed/app:v1')).sha256).toBeNull()
          }
        })

        test('docker: what skopeo pushed is pulled as an image, and runs', async () => {
          const ref = 'alice/lab/runs:v1'
          expectSuccess(await skopeo(alice, 'copy', '--all', `oci:${layout.at}:multi`, docker(ref)))
          const pulled = await nobody.apptainer.pull(['--no-https', docker(ref)])
          expectSuccess(pulled)
          // root of a container may lack what apptainer would give it
          const exec = ['exec', '--no-privs', pulled.file, '/bin/busybox', 'echo', 'hello']
          const ran = await nobody.apptainer.run(exec)
          expectSuccess(ran)
          expect(ran.terminal).toMatch(/^hello$/m)
        })

        test('one image by library, oras and shub: the same bytes, stored once', async (context) => {
          expectSuccess(await alice.apptainer.connect(target.url, token))
          const byLibrary = ['push', '-U', sif('signed.sif'), 'library://alice/names/library:v1']
          expectSuccess(await alice.apptainer.run(byLibrary))
          // of a size that nothing else has
          await writeFile(sif('named.sif'), Buffer.concat([await readFile(sif('small.sif')), MARK]))
          expectSuccess(await pushSif(alice, 'named.sif', 'alice/names/oras:v1'))
          const images = [
            ['signed.sif', 'alice/names/library:v1'],
            ['named.sif', 'alice/names/oras:v1'],
          ] as const
          for (const [file, ref] of images) {
            await expectSif(alice, file, [`library://${ref}`])
            await expectSif(nobody, file, [`oras://${host}/${ref}`])
            expect(await storedOfSize((await stat(sif(file))).size)).toBe(1)
          }
          await byShub(context, async () => {
            for (const [file, ref] of images)
              await expectSif(nobody, file, ['--no-https', `shub://localhost/${ref}`])
          })
          // whoever takes it away takes it from all its names
          const [, [, ref]] = images
          expectSuccess(await alice.apptainer.run(['delete', '--force', `library://${ref}`]))
          for (const name of [`library://${ref}`, `oras://${host}/${ref}`])
            expect((await alice.apptainer.pull([name])).sha256).toBeNull()
        }, 180_000)

        test('shub: from the cache, and not what is private', async (context) => {
          await api.push('alice/shub/app', await readFile(sif('small.sif')))
          await api.push('alice/hidden/app', await readFile(sif('small2.sif')), {
            privateCollection: true,
          })
          await byShub(context, async () => {
            const pull = (args: string[]) =>
              nobody.apptainer.pull(['--no-https', ...args], { cache: true })
            for (let i = 0; i < 2; i++)
              expect((await pull(['shub://localhost/alice/shub/app'])).sha256).toBe(
                await sha256File(sif('small.sif')),
              )
            await api.push('alice/shub/app', await readFile(sif('small2.sif')))
            expect((await pull(['shub://localhost/alice/shub/app:latest'])).sha256).toBe(
              await sha256File(sif('small2.sif')),
            )
            for (const name of ['alice/hidden/app', 'alice/shub/none'])
              expectRefusal(
                await pull([`shub://localhost/${name}`]),
                'the requested manifest was not found',
              )
          })
        }, 180_000)
      })

      /** A ref of shub has no port: port 80 stands before the registry meanwhile. */
      async function byShub({ skip }: TestContext, work: () => Promise<void>): Promise<void> {
        if (process.getuid?.() !== 0) {
          const reason = 'only root listens on port 80, and shub:// knows no other'
          if (process.env.CI) throw new Error(reason)
          skip(reason)
        }
        const port80 = await forwardPort80(target.url)
        try {
          await work()
        } finally {
          await port80.stop()
        }
      }

      describe('skopeo', () => {
        test('copies an image of several platforms there and back, as it was', async () => {
          const ref = 'alice/skopeo/multi:v1'
          expectSuccess(await skopeo(alice, 'copy', '--all', `oci:${layout.at}:multi`, docker(ref)))
          const shown = jsonOf(await skopeo(nobody, 'inspect', docker(ref)))
          expect(shown).toMatchObject({ Digest: layout.index, Os: 'linux', RepoTags: ['v1'] })
          const raw = jsonOf(await skopeo(nobody, 'inspect', '--raw', docker(ref)))
          expect(raw.manifests.map(({ digest }: { digest: string }) => digest)).toEqual(
            layout.images,
          )
          const back = at('skopeo-back')
          expectSuccess(await skopeo(nobody, 'copy', '--all', docker(ref), `oci:${back}:multi`))
          for (const digest of [layout.index, ...layout.images])
            expect(await sha256File(join(back, 'blobs', digest.replace(':', '/')))).toBe(
              digest.slice(7),
            )
        })

        test('copies one platform from a folder, between repositories, and to a folder', async () => {
          const [from, to] = [at('skopeo-dir'), at('skopeo-dir-back')]
          expectSuccess(await skopeo(alice, 'copy', `oci:${layout.at}:multi`, `dir:${from}`))
          expectSuccess(await skopeo(alice, 'copy', `dir:${from}`, docker('alice/skopeo/one:v1')))
          const between = await alice.run('skopeo', [
            '--debug',
            '--insecure-policy',
            'copy',
            '--src-tls-verify=false',
            '--dest-tls-verify=false',
            docker('alice/skopeo/one:v1'),
            docker('alice/skopeo/two:v2'),
          ])
          expectSuccess(between)
          expect(between.terminal).toContain('mount OK')
          // the configuration: skopeo mounts layers only
          expect(between.terminal.match(/PATCH http:/g)).toHaveLength(1)
          expectSuccess(await skopeo(nobody, 'copy', docker('alice/skopeo/two:v2'), `dir:${to}`))
          expect(await sha256File(join(to, 'manifest.json'))).toBe(
            await sha256File(join(from, 'manifest.json')),
          )
        })

        test('lists tags and deletes', async () => {
          const repository = 'alice/skopeo/tags'
          for (const tag of ['a', 'b', 'c'])
            expectSuccess(
              await skopeo(alice, 'copy', `oci:${layout.at}:multi`, docker(`${repository}:${tag}`)),
            )
          const tags = async () =>
            jsonOf(await skopeo(nobody, 'list-tags', docker(repository))).Tags
          expect(await tags()).toEqual(['a', 'b', 'c'])
          for (const who of [bob, nobody])
            expectRefusal(await skopeo(who, 'delete', docker(`${repository}:a`)), '')
          expect(await tags()).toEqual(['a', 'b', 'c'])
          // skopeo asks for the digest and deletes that, and so all its tags
          expectSuccess(await skopeo(alice, 'delete', docker(`${repository}:a`)))
          expect(await tags()).toEqual([])
        })

        test('what is private is absent to others (R26)', async () => {
          const ref = docker('alice/closed/image:v1')
          expectSuccess(await skopeo(alice, 'copy', `oci:${layout.at}:multi`, ref))
          expect(jsonOf(await skopeo(alice, 'inspect', ref)).RepoTags).toEqual(['v1'])
          for (const who of [bob, nobody])
            for (const command of ['inspect', 'list-tags']) {
              const tag = command === 'inspect' ? ':v1' : ''
              await expectHidden(
                (repository) => skopeo(who, command, docker(`alice/${repository}${tag}`)),
                'closed/image',
              )
            }
        })
      })

      describe('crane', () => {
        const ref = (path: string) => `${host}/alice/crane/${path}`

        test('pushes a layout with all its platforms, and pulls it', async () => {
          expectSuccess(await crane(alice, 'push', layout.at, ref('multi:v1')))
          expect(linesOf(await crane(nobody, 'digest', ref('multi:v1')))).toEqual([layout.index])
          for (const [i, arch] of ARCHES.entries())
            expect(
              linesOf(
                await crane(nobody, 'digest', '--platform', `linux/${arch}`, ref('multi:v1')),
              ),
            ).toEqual([layout.images[i]])
          const back = at('crane-back')
          expectSuccess(await crane(nobody, 'pull', '--format=oci', ref('multi:v1'), back))
          expect(await sha256File(join(back, 'blobs', layout.index.replace(':', '/')))).toBe(
            layout.index.slice(7),
          )
          expectSuccess(await crane(nobody, 'validate', '--remote', ref('multi:v1')))
        })

        test('copies between repositories by mounting, and lists and deletes', async () => {
          expectSuccess(await crane(alice, 'push', layout.at, ref('source:v1')))
          const stored = await target.store.names()
          const copied = await crane(alice, '-v', 'copy', ref('source:v1'), ref('copy:v2'))
          expectSuccess(copied)
          expect(copied.terminal.match(/ mounted blob: /g)).toHaveLength(2 * ARCHES.length)
          expect(copied.terminal).not.toContain('--> PATCH')
          expect(await target.store.names()).toEqual(stored)
          expectSuccess(await crane(alice, 'tag', ref('copy:v2'), 'v3'))
          expect(linesOf(await crane(nobody, 'ls', ref('copy')))).toEqual(['v2', 'v3'])

          for (const who of [bob, nobody])
            expectRefusal(await crane(who, 'delete', ref('copy:v2')), '')
          expectSuccess(await crane(alice, 'delete', ref('copy:v2')))
          expect(linesOf(await crane(nobody, 'ls', ref('copy')))).toEqual(['v3'])
          expectSuccess(await crane(alice, 'delete', `${ref('copy')}@${layout.index}`))
          expectRefusal(await crane(nobody, 'digest', ref('copy:v3')), '404')
          expect(linesOf(await crane(nobody, 'digest', ref('source:v1')))).toEqual([layout.index])
        })

        test('does not mount from what is private to another (R31)', async () => {
          const private_ = `${host}/alice/closed/source:v1`
          expectSuccess(await crane(alice, 'push', layout.at, private_))
          expectRefusal(await crane(bob, 'copy', private_, `${host}/bob/lab/taken:v1`), '')
          // the same layers, pushed by who has them, take no look at alice's
          const pushed = await crane(bob, '-v', 'push', layout.at, `${host}/bob/lab/own:v1`)
          expectSuccess(pushed)
          expect(pushed.terminal.match(/ pushed blob: /g)).toHaveLength(2 * ARCHES.length)
        })

        test('makes an index of manifests, and filters it', async () => {
          expectSuccess(await crane(alice, 'push', layout.at, ref('parts:v1')))
          const [amd64 = '', arm64 = ''] = layout.images
          const part = (digest: string) => ['-m', `${ref('parts')}@${digest}`]
          expectSuccess(
            await crane(
              alice,
              'index',
              'append',
              ...part(amd64),
              ...part(arm64),
              '-t',
              ref('made:v1'),
            ),
          )
          const made = jsonOf(await crane(nobody, 'manifest', ref('made:v1')))
          expect(made.manifests.map(({ digest }: { digest: string }) => digest)).toEqual([
            amd64,
            arm64,
          ])
          expectSuccess(
            await crane(
              alice,
              'index',
              'filter',
              ref('made:v1'),
              '--platform',
              'linux/arm64',
              '-t',
              ref('made:arm64'),
            ),
          )
          const left = jsonOf(await crane(nobody, 'manifest', ref('made:arm64')))
          expect(left.manifests.map(({ digest }: { digest: string }) => digest)).toEqual([arm64])
        })
      })

      describe('oras', () => {
        const ref = (path: string) => `${host}/alice/oras/${path}`
        const SIGNATURE = 'application/vnd.example.signature'
        const attached = async (who: Person, subject: string, type?: string) => {
          const filter = type === undefined ? [] : ['--artifact-type', type]
          const found = await oras(who, 'discover', '--format', 'json', ...filter, subject)
          return jsonOf(found).manifests.map((one: { digest: string }) => one.digest) as string[]
        }
        /** Pushes an artifact and signs it; the signature's digest. */
        const pushSigned = async (tag: string) => {
          await writeFile(at('report.txt'), `report ${tag}`)
          await writeFile(at('report.sig'), `signature of ${tag}`)
          const files = ['--disable-path-validation', '--artifact-type', 'application/vnd.example']
          expectSuccess(await oras(alice, 'push', ...files, ref(tag), at('report.txt')))
          const made = await oras(
            alice,
            'attach',
            '--disable-path-validation',
            '--artifact-type',
            SIGNATURE,
            ref(tag),
            at('report.sig'),
          )
          expectSuccess(made)
          return /^Digest: (\S+)$/m.exec(made.terminal)?.[1] ?? ''
        }

        test('pushes, attaches a signature, and others discover it', async () => {
          const signature = await pushSigned('signed:v1')
          expect(await attached(nobody, ref('signed:v1'))).toEqual([signature])
          expect(await attached(nobody, ref('signed:v1'), SIGNATURE)).toEqual([signature])
          expect(await attached(nobody, ref('signed:v1'), 'application/vnd.other')).toEqual([])
          const back = at('oras-back')
          expectSuccess(
            await oras(
              nobody,
              'pull',
              '--allow-path-traversal',
              '-o',
              back,
              `${ref('signed')}@${signature}`,
            ),
          )
          expect(await readFile(at('report.sig'), 'utf8')).toBe('signature of signed:v1')
        })

        test('copies with what refers to it, by mounting', async () => {
          const signature = await pushSigned('from:v1')
          const stored = await target.store.names()
          const copied = await oras(alice, 'cp', '-r', ref('from:v1'), ref('to:v2'))
          expectSuccess(copied)
          expect(copied.terminal).toContain('Mounted')
          expect(await target.store.names()).toEqual(stored)
          expect(await attached(nobody, ref('to:v2'))).toEqual([signature])
        })

        test('deletes a signature, and what was signed', async () => {
          const signature = await pushSigned('deleted:v1')
          const gone = `${ref('deleted')}@${signature}`
          for (const who of [bob, nobody])
            expectRefusal(await oras(who, 'manifest delete', '-f', gone), '')
          expect(await attached(nobody, ref('deleted:v1'))).toEqual([signature])
          expectSuccess(await oras(alice, 'manifest delete', '-f', gone))
          expect(await attached(nobody, ref('deleted:v1'))).toEqual([])
          expectSuccess(await oras(alice, 'manifest delete', '-f', ref('deleted:v1')))
          expectRefusal(await oras(nobody, 'manifest fetch', ref('deleted:v1')), 'not found')
        })

        test('lists tags and repositories, and shows what is private to who may read it', async () => {
          await pushSigned('listed:v1')
          expectSuccess(await oras(alice, 'tag', ref('listed:v1'), 'v2'))
          expect(linesOf(await oras(nobody, 'repo tags', ref('listed')))).toEqual(['v1', 'v2'])
          expectSuccess(await crane(alice, 'push', layout.at, `${host}/alice/closed/listed:v1`))
          expect(linesOf(await oras(nobody, 'repo ls', host))).toContain('alice/oras/listed')
          // oras logs in when it is asked to, and nobody asks here; crane does so always
          const repositories = async (who: Person) => linesOf(await crane(who, 'catalog', host))
          for (const [who, sees] of [
            [alice, true],
            [bob, false],
            [nobody, false],
          ] as const) {
            const listed = await repositories(who)
            expect(listed).toContain('alice/oras/listed')
            expect(listed.includes('alice/closed/listed')).toBe(sees)
          }
        })
      })
    },
    PROGRAMS,
  )
}
