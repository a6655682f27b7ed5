/**
 * A report in each of its formats, as text that is written while it is made. The last piece is the signature, over the
 * hash of all before it; so a report that broke off carries none. `client/report.ts` says what is hashed.
 */
import { createHash } from 'node:crypto'
import { canonical } from '../client/report.ts'
import type { ReportFormat, ReportReceiver, ReportSession } from '../client/report.ts'
import { csvLine } from './csv.ts'
import type { ReportEnd, ReportFacts, ReportPart } from './report-parts.ts'

/** A compact JWS over the hash, in lower-case hexadecimal, and what the report says in short. */
export type Seal = (sealed: { format: ReportFormat; sha256: string; facts: ReportFacts }) => Promise<string>

type Parts = AsyncGenerator<ReportPart>

export const reportTexts: Readonly<Record<ReportFormat, (parts: Parts, seal: Seal) => AsyncGenerator<string>>> = {
  json: (parts, seal) => jsonText(parts, seal),
  ndjson: (parts, seal) => hashed(parts, seal, { format: 'ndjson', lines: ndjsonLines, last: (signature) => `${JSON.stringify({ signature })}\n` }),
  csv: (parts, seal) => hashed(parts, seal, { format: 'csv', lines: csvLines, last: (signature) => csvLine(['signature', '', signature]) }),
}

/** Without the sessions: the other formats list them. */
async function* jsonText(parts: Parts, seal: Seal): AsyncGenerator<string> {
  let facts: ReportFacts | null = null
  const receivers: ReportReceiver[] = []
  let end: ReportEnd | null = null
  yield '{"report":'
  for await (const part of parts) {
    if (part.kind === 'facts') facts = part.facts
    else if (part.kind === 'receivers') receivers.push(...part.receivers)
    else if (part.kind === 'end') end = part.end
    // Seeing every session may take longer than a silent connection is kept open.
    else yield ' '
  }
  if (facts === null || end === null) throw new Error('The report has no facts')
  const report = { ...facts, receivers, untold: end.untold, attempts: end.attempts }
  yield JSON.stringify(report)
  const sha256 = createHash('sha256').update(canonical(report)).digest('hex')
  yield `,"signature":${JSON.stringify(await seal({ format: 'json', sha256, facts }))}}\n`
}

interface Lines {
  readonly format: ReportFormat
  readonly lines: (part: ReportPart) => string
  readonly last: (signature: string) => string
}

async function* hashed(parts: Parts, seal: Seal, { format, lines, last }: Lines): AsyncGenerator<string> {
  const hash = createHash('sha256')
  let facts: ReportFacts | null = null
  for await (const part of parts) {
    if (part.kind === 'facts') facts = part.facts
    const text = lines(part)
    hash.update(text)
    yield text
  }
  if (facts === null) throw new Error('The report has no facts')
  yield last(await seal({ format, sha256: hash.digest('hex'), facts }))
}

/** One object a line, named by its only member. */
const ndjsonLines = (part: ReportPart): string => {
  switch (part.kind) {
    case 'facts':
      return `${JSON.stringify({ revocation: part.facts })}\n`
    case 'receivers':
      return part.receivers.map((receiver) => `${JSON.stringify({ receiver })}\n`).join('')
    case 'sessions':
      return part.sessions.map((session) => `${JSON.stringify({ session })}\n`).join('')
    case 'end':
      return `${JSON.stringify({ end: part.end })}\n`
    default:
      return part satisfies never
  }
}

const HEAD = ['record', 'name', 'value', 'issuer', 'organization', 'user', 'born', 'terminated', 'acknowledged', 'pending', 'failed', 'moot', 'untold', 'attempts', 'detail']

/** One table for all: `record` says what a row is. Facts have a name and a value; lists within them are JSON. */
const csvLines = (part: ReportPart): string => {
  switch (part.kind) {
    case 'facts':
      return csvLine(HEAD) + flat(part.facts).map(([name, value]) => csvLine(['fact', name, value])).join('')
    case 'receivers':
      return part.receivers.map((receiver) => csvLine(receiverCells(receiver))).join('')
    case 'sessions':
      return part.sessions.map((session) => csvLine(sessionCells(session))).join('')
    case 'end':
      return part.end.untold
        .map(({ clientId, why, participants }) => csvLine(['untold', clientId, why, ...Array<string>(9).fill(''), String(participants)]))
        .concat(flat({ attempts: part.end.attempts }).map(([name, value]) => csvLine(['fact', name, value])))
        .join('')
    default:
      return part satisfies never
  }
}

const flat = (facts: object, before = ''): [string, string][] =>
  Object.entries(facts).flatMap(([name, value]: [string, unknown]): [string, string][] => {
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) return flat(value, `${before}${name}.`)
    return [[`${before}${name}`, value === null ? '' : typeof value === 'string' ? value : JSON.stringify(value)]]
  })

const receiverCells = (receiver: ReportReceiver): string[] => [
  'receiver', receiver.id ?? '', receiver.type ?? '', '', '', '', '', '',
  receiver.acknowledged, receiver.pending, receiver.failed, receiver.moot, '', '',
  Object.entries(receiver.failures).map(([outcome, number]) => `${outcome}: ${number}`).join('; '),
]

const sessionCells = (session: ReportSession): string[] => {
  const number = (state: string): string => String(session.told.filter((told) => told.state === state).length)
  return [
    'session', session.id, '', session.issuer ?? '', session.resourceOwner ?? '', session.userId ?? '', session.born ?? '', session.terminated,
    number('acknowledged'), number('pending'), number('failed'), number('moot'), String(session.untold.length), session.attempts ?? '0',
    session.untold.map(({ clientId, why }) => `${clientId}: ${why}`).join('; '),
  ]
}
