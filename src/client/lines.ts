/** Text that arrives in pieces, line by line. A line that does not end is bounded. */

/** The longest line that the server sends is an entry of some thousand sessions; this is far above it. */
const MAX_LINE = 4_194_304

/** The lines of a body, without their ends; the last one also where the body ends without a line's end. */
export async function* linesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const bytes of body as unknown as AsyncIterable<Uint8Array>) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split('\n')
    rest = lines.pop() ?? ''
    if (rest.length > MAX_LINE) throw new Error('A line of the stream is too long')
    for (const line of lines) yield line.endsWith('\r') ? line.slice(0, -1) : line
  }
  if (rest !== '') yield rest
}

export interface ServerSentEvent {
  readonly event: string
  readonly id: string | null
  readonly data: string
}

/** Server-sent events (HTML Living Standard §9.2.6), as far as the stream uses them. An unfinished event is dropped. */
export async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerSentEvent> {
  let event = 'message'
  let id: string | null = null
  let data: string[] = []
  for await (const line of linesOf(body)) {
    if (line === '') {
      if (data.length > 0) yield { event, id, data: data.join('\n') }
      event = 'message'
      id = null
      data = []
      continue
    }
    const colon = line.indexOf(':')
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (field === 'event') event = value
    else if (field === 'id') id = value
    else if (field === 'data') data.push(value)
  }
}
