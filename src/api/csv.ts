/**
 * Comma-separated values (RFC 4180). A cell that a spreadsheet would take for a formula gets an apostrophe before it,
 * because ids and reasons are other people's texts.
 */

const isFormula = (cell: string): boolean => /^[=+\-@\t\r]/.test(cell)

const quoted = (cell: string): string => {
  const text = isFormula(cell) ? `'${cell}` : cell
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

/** One record with its line's end. */
export const csvLine = (cells: readonly string[]): string => `${cells.map(quoted).join(',')}\r\n`
