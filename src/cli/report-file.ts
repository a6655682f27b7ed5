/**
 * A report's file taken apart: its format, its signature, and the hash of what is signed. Read piece by piece, so it may be
 * as long as it likes; only the JSON format is held whole.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { canonical } from '../client/report.ts'
import type { ReportFormat } from '../client/report.ts'

/** It is no report, or not a whole one. The message is the sentence for whoever asked. */
export class ReportBroken extends Error {}

export interface ReportFile {
  readonly format: ReportFormat
  readonly signature: string
  /** Lower-case hexadecimal. */
  readonly sha256: string
}

/** A signature's line is some kilobytes; this is far above it. */
const LAST_BYTES = 65_536
/** Without sessions, a report is small: a hundred thousand receivers take less. */
const MAX_JSON_BYTES = 268_435_456

const BROKE_OFF = 'It ends without a signature: it was cut off, or is no report.'

/** @throws ReportBroken; whatever the file system says. */
export const readReportFile = async (path: string): Promise<ReportFile> => {
  const { size } = await stat(path)
  const ends = await endsOf(path, size)
  const format = formatOf(ends)
  if (format === 'json') return readJson(path, size)
  const last = ends.tail.slice(ends.tail.lastIndexOf('\n', ends.tail.length - 2) + 1)
  const signature = format === 'ndjson' ? /^\{"signature":"([\w.-]+)"\}\r?\n?$/.exec(last)?.[1] : /^signature,,([\w.-]+)\r?\n?$/.exec(last)?.[1]
  if (signature === undefined) throw new ReportBroken(BROKE_OFF)
  return { format, signature, sha256: await hashOf(path, size - Buffer.byteLength(last)) }
}

const endsOf = async (path: string, size: number): Promise<{ head: string; tail: string }> => {
  const file = await open(path)
  try {
    const read = async (position: number): Promise<string> => {
      const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(LAST_BYTES), position })
      return buffer.subarray(0, bytesRead).toString('utf8')
    }
    return { head: await read(0), tail: await read(Math.max(0, size - LAST_BYTES)) }
  } finally {
    await file.close()
  }
}

const formatOf = ({ head }: { head: string }): ReportFormat => {
  if (head.startsWith('record,name,value')) return 'csv'
  if (head.startsWith('{"revocation":')) return 'ndjson'
  if (/^\s*\{\s*"(report|signature)"\s*:/.test(head)) return 'json'
  throw new ReportBroken('It is no report of a revocation.')
}

const readJson = async (path: string, size: number): Promise<ReportFile> => {
  if (size > MAX_JSON_BYTES) throw new ReportBroken('It is too long for this format.')
  const chunks: Buffer[] = []
  for await (const chunk of createReadStream(path)) chunks.push(chunk as Buffer)
  const text = Buffer.concat(chunks).toString('utf8')
  let whole: { report?: unknown; signature?: unknown }
  try {
    whole = JSON.parse(text) as typeof whole
  } catch {
    throw new ReportBroken(BROKE_OFF)
  }
  const { report, signature, ...more } = whole
  if (typeof signature !== 'string' || report === undefined) throw new ReportBroken(BROKE_OFF)
  if (Object.keys(more).length > 0) throw new ReportBroken('It holds more than a report and its signature; nobody has signed that.')
  // Of two members of one name only the last was looked at; whoever reads it may see the first.
  if (membersWritten(text) !== membersOf(whole)) throw new ReportBroken('It says a thing twice, so readers may see another report than the one that was signed.')
  return { format: 'json', signature, sha256: createHash('sha256').update(canonical(report)).digest('hex') }
}

/** Names of members in a text that is JSON: strings with a colon behind them. */
const membersWritten = (text: string): number => {
  let written = 0
  for (const [, colon] of text.matchAll(/"(?:[^"\\]|\\.)*"\s*(:?)/g)) written += colon === ':' ? 1 : 0
  return written
}

const membersOf = (value: unknown): number => {
  if (typeof value !== 'object' || value === null) return 0
  const inner: unknown[] = Object.values(value)
  return inner.reduce<number>((sum, one) => sum + membersOf(one), Array.isArray(value) ? 0 : inner.length)
}

const hashOf = async (path: string, bytes: number): Promise<string> => {
  const hash = createHash('sha256')
  if (bytes > 0) for await (const chunk of createReadStream(path, { end: bytes - 1 })) hash.update(chunk as Buffer)
  return hash.digest('hex')
}
