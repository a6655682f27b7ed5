/**
 * `curfew verify-report`: is this report as it was signed, and by whom? It says what it has checked, what the report says
 * in short, and what no signature can say. Trusts the keys that it is given, and nothing within the report.
 */
import { createLocalJWKSet, decodeJwt, errors, jwtVerify } from 'jose'
import type { JSONWebKeySet } from 'jose'
import { z } from 'zod'
import { REPORT_TYPE, reportFormats } from '../client/report.ts'
import { ConfigError } from '../config.ts'
import { cannotBe, readText } from './files.ts'
import { ReportBroken, readReportFile } from './report-file.ts'
import { shown } from './terminal.ts'

export interface VerifyOptions {
  /** A file or a URL; else the JWKS of the Curfew at `curfewUrl`. */
  readonly jwks?: string
  /** In whose name it must be signed. */
  readonly issuer?: string
}

/** The report is not what it should be. The message is the sentence. */
export class NotVerified extends Error {}

const MAX_JWKS_BYTES = 1_048_576
const FETCH_MS = 10_000

const claims = z.object({
  iss: z.string(),
  sub: z.string().startsWith('revocations/'),
  iat: z.number(),
  report: z.object({
    format: z.enum(reportFormats), sha256: z.string(), state: z.string(), final: z.boolean(),
    terminated: z.string(), remaining: z.string(), remainingExact: z.boolean(),
  }),
})

/** What a good signature says, and what it cannot, a line each. @throws NotVerified, ReportBroken, ConfigError. */
export const verifyReport = async (path: string, { jwks, issuer, curfewUrl }: VerifyOptions & { curfewUrl: string | null }): Promise<string[]> => {
  const file = await readReportFile(path).catch(cannotBe('read', path))
  const keys = await readKeys(jwks ?? publishedAt(curfewUrl, issuerOf(file.signature)))
  const { payload, protectedHeader } = await checkSignature(file.signature, keys)
  const parsed = claims.safeParse(payload)
  if (!parsed.success) throw new NotVerified('Its signature is good, but stands for no report.')
  const { iss, sub, iat, report } = parsed.data
  if (issuer !== undefined && iss !== issuer) throw new NotVerified(`It is signed in the name of ${shown(iss)}, not of ${issuer}.`)
  if (report.format !== file.format || report.sha256 !== file.sha256) {
    throw new NotVerified('It was changed after it was signed. (A spreadsheet that saves a CSV file changes it, too.)')
  }
  const time = new Date(iat * 1_000).toISOString()
  return [
    `Verified: ${path} is as Curfew signed it.`,
    `  ${sub}, as it was at ${time}`,
    `  in the name of ${shown(iss)}, key ${shown(protectedHeader.kid ?? '(unnamed)')} (${protectedHeader.alg}), SHA-256 ${report.sha256}`,
    `  ${report.state}${report.final ? ', final' : ', not final'}: ${report.terminated} sessions ended, ${report.remaining} remaining${report.remainingExact ? '' : ' of those that were counted'}`,
    'Not verified, because no signature can:',
    '  that receivers did what they acknowledged, and what happened later',
    ...(report.final ? [] : ['  what became of what was not finished then; take another report']),
    ...(jwks === undefined ? [] : ['  that the keys you gave are those of the issuer']),
  ]
}

/** Not yet checked: it says only where to look, within the Curfew that the reader trusts. */
const issuerOf = (signature: string): string => {
  try {
    return decodeJwt(signature).iss ?? ''
  } catch {
    throw new ReportBroken('Its signature cannot be read.')
  }
}

const publishedAt = (curfewUrl: string | null, issuer: string): string => {
  if (curfewUrl === null) throw new ConfigError(['Say whose keys to trust: --jwks <file or URL>, or CURFEW_URL for the keys that this Curfew publishes'])
  return `${curfewUrl}/v1/issuers/${encodeURIComponent(issuer)}/jwks.json`
}

const readKeys = async (from: string): Promise<JSONWebKeySet> => {
  const text = /^https?:\/\//.test(from) ? await fetchText(from) : readText(from)
  try {
    const keys = JSON.parse(text) as JSONWebKeySet
    createLocalJWKSet(keys)
    return keys
  } catch (error) {
    throw new NotVerified(`${from} is no JWKS.`, { cause: error })
  }
}

const fetchText = async (url: string): Promise<string> => {
  let response: Response
  try {
    // Not 'error': with it Node 20 loses hold of the signal at the next garbage collection.
    response = await fetch(url, { redirect: 'manual', signal: AbortSignal.timeout(FETCH_MS) })
  } catch (error) {
    throw new NotVerified(`${url} cannot be fetched.`, { cause: error })
  }
  if (!response.ok || response.body === null) throw new NotVerified(`${url} answered ${response.status}; no key can be found there.`)
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    bytes += chunk.length
    if (bytes > MAX_JWKS_BYTES) throw new NotVerified(`${url} is too long for a JWKS.`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

const checkSignature = async (signature: string, keys: JSONWebKeySet) => {
  try {
    return await jwtVerify(signature, createLocalJWKSet(keys), { typ: REPORT_TYPE, algorithms: ['RS256', 'ES256'] })
  } catch (error) {
    if (error instanceof errors.JWKSNoMatchingKey) {
      throw new NotVerified('No key that you trust has signed it. Keys leave the JWKS some time after they retire: was one kept beside the report?', { cause: error })
    }
    throw new NotVerified('Its signature is not good.', { cause: error })
  }
}
