/**
 * The README's tables, made from what they describe: settings, errors, metrics, routes. `npm run readme` writes them
 * between their markers, and a test of the repository fails where one has fallen behind.
 */
import { buildServer } from '../api/server.ts'
import type { ApiDeps } from '../api/server.ts'
import { defaultOf, settingNames, settings } from '../config.ts'
import { errorKinds } from '../errors.ts'
import { createTelemetry, metricTable } from '../telemetry.ts'

type Row = readonly string[]

/** The README's text with every table as it should be. @throws Error where a table's markers are missing. */
export const withSections = async (readme: string): Promise<string> => {
  const tables = { settings: settingsTable(), errors: errorsTable(), metrics: metricsTable(), routes: await routesTable() }
  let text = readme
  for (const [name, table] of Object.entries(tables)) {
    const [begin, end] = [`<!-- ${name}: npm run readme -->`, `<!-- /${name} -->`]
    const [from, to] = [text.indexOf(begin), text.indexOf(end)]
    if (from < 0 || to < from) throw new Error(`README.md has no ${begin} … ${end}`)
    text = `${text.slice(0, from + begin.length)}\n${table}\n${text.slice(to)}`
  }
  return text
}

const tableOf = (head: Row, rows: readonly Row[]): string =>
  [head, head.map(() => '---'), ...rows].map((row) => `| ${row.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`).join('\n')

const settingsTable = (): string =>
  tableOf(['setting', 'default', 'meaning'], settingNames.map((name) => [`\`${name}\``, defaultText(name), settings[name].says]))

const defaultText = (name: (typeof settingNames)[number]): string => {
  const byDefault = defaultOf(name)
  if (byDefault === 'required') return '**required**'
  return byDefault.text === null || byDefault.text === '' ? '–' : `\`${byDefault.text}\``
}

const errorsTable = (): string =>
  tableOf(['HTTP', 'code', 'id', 'message'], Object.values(errorKinds).map(({ status, code, id, says }) =>
    [String(status), String(code), id === null ? '–' : `\`${id}\``, says],
  ))

const metricsTable = (): string =>
  tableOf(['metric', 'kind', 'labels', 'meaning'], Object.entries(metricTable).map(([name, { kind, labels, help }]) =>
    [`\`${name}\``, kind, labels.map((label) => `\`${label}\``).join(', ') || '–', help],
  ))

/** Read from the OpenAPI document, in its order. */
const routesTable = async (): Promise<string> => {
  // No handler runs, so none is given what it works with.
  const app = buildServer({
    telemetry: createTelemetry({ level: 'silent' }),
    http: { publicUrl: null, trustProxy: [] },
    sessionRoutes: {},
    receivers: {},
  } as unknown as ApiDeps)
  const answer = await app.inject('/openapi.json')
  await app.close()
  const { paths } = answer.json<{ paths: Record<string, Record<string, { summary?: string }>> }>()
  const rows = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { summary = '' }]): Row => [`\`${method.toUpperCase()} ${path}\``, summary]),
  )
  return tableOf(['route', 'what it does'], rows)
}
