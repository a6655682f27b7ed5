/** The plot: requests per second by variant, one panel for each number of connections, as a small SVG. */

/** @typedef {import('./report.mjs').MedianCell} MedianCell */

const PANEL = { width: 300, bar: 22, gap: 8, label: 118, top: 44 }
const INK = '#1f2933'
const OURS = '#2563a8'
const THEIRS = '#a9b4c0'

const escape = (/** @type {string} */ text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

const panel = (/** @type {readonly MedianCell[]} */ cells, /** @type {number} */ x) => {
  const most = Math.max(...cells.map(({ perSecond }) => perSecond))
  const room = PANEL.width - PANEL.label - 70
  const [{ connections } = { connections: 0 }] = cells
  return [
    `<text x="${x}" y="32" font-weight="bold">${connections} ${connections === 1 ? 'connection' : 'connections'}</text>`,
    ...cells.flatMap(({ variant, perSecond }, at) => {
      const y = PANEL.top + at * (PANEL.bar + PANEL.gap)
      const width = Math.max(1, (perSecond / most) * room)
      const colour = variant.startsWith('curfew') ? OURS : THEIRS
      return [
        `<text x="${x}" y="${y + 15}">${escape(variant)}</text>`,
        `<rect x="${x + PANEL.label}" y="${y}" width="${width.toFixed(1)}" height="${PANEL.bar}" fill="${colour}"/>`,
        `<text x="${(x + PANEL.label + width + 6).toFixed(1)}" y="${y + 15}">${Math.round(perSecond).toLocaleString('en')}</text>`,
      ]
    }),
  ]
}

/**
 * @param {readonly MedianCell[]} cells
 * @param {string} title
 */
export const plot = (cells, title) => {
  const counts = [...new Set(cells.map(({ connections }) => connections))]
  const panels = counts.map((connections) => cells.filter((cell) => cell.connections === connections))
  const height = PANEL.top + Math.max(...panels.map(({ length }) => length)) * (PANEL.bar + PANEL.gap) + 8
  const width = panels.length * PANEL.width + 16
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12" fill="${INK}">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="12" y="14">${escape(title)}</text>`,
    ...panels.flatMap((some, at) => panel(some, 12 + at * PANEL.width)),
    '</svg>',
    '',
  ].join('\n')
}
