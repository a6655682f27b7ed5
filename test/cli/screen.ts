/** A terminal of two streams, with somebody who reads the questions and types. */
import { PassThrough } from 'node:stream'
import { createTerminal } from '../../src/cli/terminal.ts'
import type { Terminal } from '../../src/cli/terminal.ts'

export interface Screen extends Terminal {
  /** Everything that was written, as it was written. */
  readonly written: () => string
}

const CTRL_C_OR_D = /[\u0003\u0004]$/

/** @param typed what is answered to a question, Enter follows unless it ends by Ctrl-C or Ctrl-D; null: nobody is there, the output goes into a file. */
export const createScreen = (typed: ((question: string) => string) | null, columns = 120): Screen => {
  const input = Object.assign(new PassThrough(), { isTTY: typed !== null })
  const output = Object.assign(new PassThrough(), { isTTY: typed !== null, columns })
  let written = ''
  output.on('data', (chunk: Buffer) => {
    written += chunk.toString('utf8')
    if (typed !== null && chunk.toString('utf8').endsWith(': ')) setImmediate(() => {
      const keys = typed(written)
      input.write(CTRL_C_OR_D.test(keys) ? keys : `${keys}\n`)
    })
  })
  return { ...createTerminal({ input, output }), written: () => written }
}
