/**
 * What a command says and asks: lines anywhere, and on a terminal also a line that is drawn again and a question.
 * Whatever came from outside is made harmless before it is shown: no control character reaches the terminal.
 */
import { createInterface } from 'node:readline/promises'

export interface Streams {
  readonly input: NodeJS.ReadableStream & { readonly isTTY?: boolean | undefined }
  readonly output: NodeJS.WritableStream & { readonly isTTY?: boolean | undefined; readonly columns?: number | undefined }
}

export interface Terminal {
  /** Writes one line, below whatever is drawn. */
  readonly say: (line: string) => void
  /** True where somebody reads and can answer. */
  readonly isInteractive: boolean
  /** False once a write has shown that the reader has left. */
  readonly isHeard: () => boolean
  /** True where a line can be drawn again. */
  readonly draws: boolean
  /** Draws the last line anew, cut to the terminal's width. */
  readonly draw: (line: string) => void
  /** Asks, and resolves with the answer without its spaces; empty where the input ended, as by Ctrl-C or Ctrl-D. */
  readonly ask: (question: string) => Promise<string>
}

const CLEAR_LINE = '\r\u001b[2K'
/** Where a terminal does not tell its width, or says 0. */
const COLUMNS = 80

/** A text of somebody else's, fit to be shown: what a terminal would obey is shown as a question mark. */
export const shown = (text: string): string => text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?')

export const createTerminal = ({ input, output }: Streams): Terminal => {
  let drawn = false
  let heard = true
  output.on('error', () => {
    heard = false
  })
  const clear = (): void => {
    if (drawn) output.write(CLEAR_LINE)
    drawn = false
  }
  return {
    isInteractive: input.isTTY === true && output.isTTY === true,
    isHeard: () => heard,
    draws: output.isTTY === true,
    say: (line) => {
      clear()
      output.write(`${line}\n`)
    },
    draw: (line) => {
      // One column is left free: a full line would wrap, and could not be taken back.
      output.write(`${CLEAR_LINE}${[...line].slice(0, (output.columns || COLUMNS) - 1).join('')}`)
      drawn = true
    },
    ask: async (question) => {
      clear()
      const lines = createInterface({ input, output })
      try {
        const ended = new Promise<null>((resolve) => {
          lines.once('close', () => resolve(null))
        })
        const answer = await Promise.race([lines.question(question), ended])
        // Nobody has ended the question's line.
        if (answer === null) output.write('\n')
        return answer?.trim() ?? ''
      } finally {
        lines.close()
      }
    },
  }
}
