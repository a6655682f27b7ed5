/** A place on the stream over HTTP: `<epoch>-<position>-<version of the newest rule>`. Opaque to those who hold it. */

export interface StreamCursor {
  readonly epoch: string
  readonly position: number
  readonly rule: number
}

export const cursorText = ({ epoch, position, rule }: StreamCursor): string => `${epoch}-${position}-${rule}`

/** Null where it is none of ours. */
export const readCursor = (text: string): StreamCursor | null => {
  const parts = /^([0-9a-f]{1,16})-(\d{1,15})-(\d{1,15})$/.exec(text)
  return parts === null ? null : { epoch: parts[1] ?? '', position: Number(parts[2]), rule: Number(parts[3]) }
}
