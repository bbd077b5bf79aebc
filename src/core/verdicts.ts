/**
 * What the signatures of an image are worth, by the keys of this registry (R18), and whether that is
 * enough for a collection (R17). The rule in words: docs/signatures.md.
 */
import { isRegistryError, RegistryError } from '../errors.ts'
import type { Clock, Database, Log, SigningKey } from '../ports.ts'
import type {
  Image,
  Judged,
  Judgement,
  PolicyStanding,
  SignatureFact,
  SignatureFacts,
} from './model.ts'
import { verifyClearsigned } from './openpgp.ts'
import { letOthersRun } from './turns.ts'

/** Digests judged between two trips: their signatures stay in memory meanwhile. */
const BATCH = 8
/** Batches of one call, three trips each: D1 takes 50 in a request. */
const BATCHES = 10
/** Images of that many digests are looked at for verdicts that keys have overtaken. */
const WINDOW = 500
/** A verdict that keys overtake while it is being stored is judged anew so often. */
const ATTEMPTS = 3

type Outcome = { fact: SignatureFact } & (
  | { is: 'good'; key: SigningKey }
  | { is: 'refused'; why: string }
  | { is: 'unknown key' }
  | { is: 'unchecked' }
)

export type Verdicts = ReturnType<typeof createVerdicts>

export function createVerdicts({ database, clock }: { database: Database; clock: Clock }) {
  const { signatures } = database

  const issuersOf = (facts: SignatureFacts) => [
    ...new Set(facts.signatures.flatMap(({ issuers }) => issuers)),
  ]

  /** Judges by the keys as they are now; two trips less where no signature names a key. */
  async function judge(facts: SignatureFacts): Promise<Judged> {
    const issuers = issuersOf(facts)
    const keys = issuers.length === 0 ? [] : await signatures.keysOf(issuers)
    return judgeBy(facts, keys, clock.now())
  }

  /** Judges the stored signatures of images that these verdicts are out of date for. */
  async function settle(stale: { digest: string; facts: SignatureFacts }[]): Promise<void> {
    if (stale.length === 0) return
    const keys = await signatures.keysOf([...new Set(stale.flatMap((s) => issuersOf(s.facts)))])
    const judged = []
    for (const { digest, facts } of stale)
      judged.push({ digest, judged: await judgeBy(facts, keys, clock.now()) })
    await signatures.settle(judged)
  }

  /** Judges one image's signatures anew, where keys have overtaken its verdict; false where not. */
  async function refresh(digest: string): Promise<boolean> {
    const stale = await signatures.stale({ digests: [digest], limit: 1 })
    await settle(stale)
    return stale.length > 0
  }

  /**
   * Judges anew what changes of these keys (primary fingerprints) have overtaken, in at most
   * `batches` small batches of three trips each; false when some were left to the sweep.
   */
  async function reverify(fingerprints: string[], batches = BATCHES): Promise<boolean> {
    for (let batch = 0; batch < batches; batch++) {
      const stale = await signatures.stale({ keys: fingerprints, limit: BATCH })
      if (stale.length === 0) return true
      await settle(stale)
    }
    return false
  }

  /**
   * The safety net: looks through all verdicts for outdated ones, from `after` on, and forgets those
   * of images that have gone. At most `batches` batches of four trips; returns where to go on, null
   * after the last one.
   */
  async function sweep(after: string, batches: number): Promise<string | null> {
    let at: string | null = after
    for (let batch = 0; batch < batches && at !== null; batch++) {
      const window: { last: string | null; outdated: string[] } = await signatures.window(
        at,
        WINDOW,
      )
      const now = window.outdated.slice(0, BATCH)
      if (now.length > 0) await settle(await signatures.stale({ digests: now, limit: BATCH }))
      at = window.outdated.length > now.length ? (now.at(-1) ?? at) : window.last
      if (at !== null) await letOthersRun()
    }
    return at
  }

  /**
   * Runs a step that a policy may refuse. One that was refused for a verdict that keys have
   * overtaken is tried again with a new one; then the refusal gets its reasons (R17).
   */
  async function admitted<T>(
    imageId: string,
    step: (judged: Judged | null) => Promise<T>,
    facts: SignatureFacts | null = null,
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const judged = facts === null ? null : await judge(facts)
      try {
        return await step(judged)
      } catch (error) {
        if (!isRegistryError(error, 'denied') || error.subject !== 'policy') throw error
        const found = await signatures.standing(imageId, judged)
        if (found === null) throw error
        const again =
          found.accepted || (facts === null && found.signed && (await refresh(found.digest)))
        if (again && attempt < ATTEMPTS) continue
        throw refusal(found, error)
      }
    }
  }

  /** The same of several images that their policy lets in together or not at all. */
  async function admittedAll<T>(imageIds: readonly string[], step: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await step()
      } catch (error) {
        if (!isRegistryError(error, 'denied') || error.subject !== 'policy') throw error
        const refused: PolicyStanding[] = []
        for (const id of imageIds.slice(0, BATCH)) {
          const found = await signatures.standing(id, null)
          if (found !== null && !found.accepted) refused.push(found)
        }
        let again = false
        for (const { signed, digest } of refused)
          if (signed && attempt < ATTEMPTS && (await refresh(digest))) again = true
        const [first] = refused
        if (!again) throw first === undefined ? error : refusal(first, error)
      }
    }
  }

  /** Throws what the policy of the image's collection has against it, before anything is stored. */
  async function admit(imageId: string, judged: Judged): Promise<void> {
    const found = await signatures.standing(imageId, judged)
    if (found !== null && !found.accepted) throw refusal(found)
  }

  return { judge, refresh, reverify, sweep, admitted, admittedAll, admit }
}

/** Logs that an image is stored which its collection's policy only warns of. */
export function warnUnmet(log: Log | undefined, image: Image, container: string): void {
  if (image.policy !== 'warn' || image.judgement.verdict === 'verified') return
  const { verdict, why } = image.judgement
  log?.event('warn', 'policy.unmet', { image: image.id, container, verdict, why })
}

/** Nothing was found out about the signatures of an image that has some. */
export const PENDING: Judged = {
  verdict: 'pending',
  why: 'its signatures have not been checked yet',
  signers: [],
  marks: [],
  seen: [],
}
export const UNSIGNED: Judged = {
  verdict: 'unsigned',
  why: null,
  signers: [],
  marks: [],
  seen: [],
}

/** The rule of docs/signatures.md. `keys` are all that the keystore has for the issuers. */
export async function judgeBy(
  facts: SignatureFacts,
  keys: SigningKey[],
  now: Date,
): Promise<Judged> {
  const outcomes: Outcome[] = []
  for (const fact of facts.signatures) outcomes.push(await check(fact, keys, now))
  const issuers = [...new Set(facts.signatures.flatMap((fact) => fact.issuers))]
  const seen = issuers.map((issuer) => ({
    issuer,
    keys: keys
      .filter((key) => key.issuer === issuer)
      .map(({ mark }) => mark)
      .join(' '),
  }))
  const good = outcomes.filter((outcome) => outcome.is === 'good')
  const signers = [...new Map(good.map(({ key }) => [key.fingerprint, key])).values()].filter(
    ({ fingerprint }) =>
      coversAll(
        facts,
        good.filter(({ key }) => key.fingerprint === fingerprint),
      ),
  )
  const judgement = ruling(facts, outcomes, signers)
  const counts = judgement.verdict === 'verified'
  return { ...judgement, marks: counts ? signers.map(({ mark }) => mark) : [], seen }
}

function ruling(facts: SignatureFacts, outcomes: Outcome[], signers: SigningKey[]): Judgement {
  const is = (verdict: Judgement['verdict'], why: string | null) => ({ verdict, why, signers: [] })
  const problem = outcomes.find(
    ({ fact }) => fact.problem !== null && fact.form !== 'unchecked',
  )?.fact
  if (facts.flaw !== null) return is('bad', facts.flaw)
  if (problem !== undefined) return is('bad', problem.problem)
  if (signers.length > 0)
    return {
      verdict: 'verified',
      why: null,
      signers: signers.map(({ fingerprint }) => fingerprint),
    }
  const refused = outcomes.find((outcome) => outcome.is === 'refused')
  if (refused !== undefined) return is('bad', refused.why)
  const hopeful = outcomes.filter(({ is }) => is === 'good' || is === 'unknown key')
  if (outcomes.some((outcome) => outcome.is === 'unknown key') && coversAll(facts, hopeful)) {
    const dsse = hopeful.every(({ fact }) => fact.form === 'dsse')
    const names = hopeful.flatMap(({ fact }) => fact.issuers)
    return is(
      'unknown key',
      dsse
        ? 'it is signed with an X.509 or raw key, which is not checked here'
        : `no key ${[...new Set(names)].slice(0, 4).join(', ')} is in the keystore of this registry`,
    )
  }
  const unchecked = outcomes.find(({ fact }) => fact.form === 'unchecked')?.fact.problem
  if (unchecked != null) return is('unsigned', unchecked)
  if (outcomes.length > 0 && outcomes.every(({ fact }) => fact.form === 'legacy'))
    return is(
      'unsigned',
      'its signatures are of the legacy form, which covers neither header nor descriptors',
    )
  if (outcomes.length === 0) return is('unsigned', null)
  const covered = new Set(hopeful.flatMap(({ fact }) => fact.covers))
  const open = facts.objects.find((id) => !covered.has(id))
  return is(
    'unsigned',
    open === undefined ? 'nobody has signed all of it' : `object ${open} is signed by nobody`,
  )
}

/** R18: every used object but the signatures, header and descriptors with it; legacy has neither. */
function coversAll(facts: SignatureFacts, by: { fact: SignatureFact }[]): boolean {
  const covered = new Set(by.flatMap(({ fact }) => (fact.form === 'legacy' ? [] : fact.covers)))
  return facts.objects.length > 0 && facts.objects.every((id) => covered.has(id))
}

async function check(fact: SignatureFact, keys: SigningKey[], now: Date): Promise<Outcome> {
  if (fact.form === 'dsse') return { fact, is: 'unknown key' }
  if (fact.text === '' || fact.problem !== null) return { fact, is: 'unchecked' }
  const fitting = keys.filter(({ issuer }) => fact.issuers.includes(issuer))
  if (fitting.length === 0) return { fact, is: 'unknown key' }
  const armors = [...new Set(fitting.map(({ armor }) => armor))]
  const { good, fingerprint, why } = await verifyClearsigned(fact.text, armors, now)
  const key = fitting.find((one) => one.fingerprint === fingerprint)
  if (!good || key === undefined) {
    const by = fingerprint === null ? '' : ` by ${fingerprint}`
    return { fact, is: 'refused', why: `signature ${fact.id}${by} does not count: ${clause(why)}` }
  }
  // clients refuse what a descriptor says of another key (R18)
  if (fact.claimed !== null && !key.fingerprint.startsWith(fact.claimed))
    return {
      fact,
      is: 'refused',
      why: `signature ${fact.id} is by ${key.fingerprint}, but said to be by ${fact.claimed}`,
    }
  return { fact, is: 'good', key }
}

/** A sentence as the end of another one. */
function clause(sentence: string | null): string {
  const text = (sentence ?? 'it could not be checked').replace(/\.$/, '')
  return text.slice(0, 1).toLowerCase() + text.slice(1)
}

function refusal(found: PolicyStanding, cause?: unknown): RegistryError {
  const { collection, policy, judgement } = found
  const { verdict, why, signers } = judgement
  const reason = why === null ? '' : `: ${why}`
  const asks = `${collection} takes only images with a good signature (policy "require"), and`
  const sentence = {
    unsigned: `${asks} this one is unsigned${reason}. Sign it (apptainer sign), then push it again.`,
    bad: `${asks} the signature of this one is bad${reason}.`,
    'unknown key': `${asks} this one is signed with a key that is unknown here${reason}. Push the key (apptainer key push), then the image again.`,
    pending: `${asks} the signatures of this one have not been checked here. Try again later, or ask the administrator of this registry.`,
    verified: `${asks} this one is signed by ${signers.slice(0, 4).join(', ')}, ${
      policy.fingerprints.length > 0
        ? 'which is none of the keys that it accepts'
        : 'a key that nobody who may write there has claimed (sreg-lite key claim)'
    }.`,
  }[verdict]
  return new RegistryError('denied', sentence, {
    subject: 'policy',
    detail: { verdict },
    cause,
  })
}

/** A policy has refused what nobody has looked at. */
export const isPending = (error: unknown): boolean =>
  isRegistryError(error, 'denied') &&
  error.subject === 'policy' &&
  error.detail?.verdict === 'pending'
