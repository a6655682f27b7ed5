/**
 * The migrations are written by hand and the client is generated from `schema.prisma`: here the migrated database is
 * held against the schema as Prisma itself parses it. What only SQL can say (checks, triggers, partial indexes,
 * collations) is the migrations' own.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'

interface Field {
  name: string
  dbName?: string
  kind: 'scalar' | 'enum' | 'object'
  type: string
  isList: boolean
  isRequired: boolean
  hasDefaultValue: boolean
  nativeType: [string, string[]] | null
  relationFromFields?: string[]
  relationToFields?: string[]
  relationOnDelete?: string
}
interface Model {
  name: string
  dbName: string
  fields: Field[]
}
interface DataModel {
  enums: { name: string; dbName: string; values: { name: string }[] }[]
  models: Model[]
  indexes: { model: string; type: 'id' | 'unique' | 'normal'; fields: { name: string }[] }[]
}

const project = fileURLToPath(new URL('../..', import.meta.url))

const parseSchema = (): DataModel => {
  const folder = mkdtempSync(join(tmpdir(), 'curfew-test-schema-'))
  const [schema, dump] = [join(folder, 'schema.prisma'), join(folder, 'datamodel.json')]
  const generator = `generator dump {\n  provider = "node ${join(project, 'test/harness/dump-datamodel.mjs')}"\n}\n`
  writeFileSync(schema, readFileSync(join(project, 'prisma/schema.prisma'), 'utf8').replace(/generator client \{[^}]*\}/, generator))
  try {
    execFileSync(process.execPath, [join(project, 'node_modules/prisma/build/index.js'), 'generate', '--schema', schema], {
      cwd: project,
      stdio: 'pipe',
      env: { ...process.env, DUMP_FILE: dump, PRISMA_SCHEMA_ENGINE_BINARY: process.execPath },
    })
    return JSON.parse(readFileSync(dump, 'utf8')) as DataModel
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const scalarTypes: Record<string, string> = {
  String: 'text', BigInt: 'bigint', Int: 'integer', Boolean: 'boolean', Bytes: 'bytea', Json: 'jsonb',
}
const nativeTypes: Record<string, string> = {
  'Timestamptz(3)': 'timestamp(3) with time zone', 'Uuid()': 'uuid', 'Inet()': 'inet',
}

let database: TestDatabase
let schema: DataModel
beforeAll(async () => {
  database = await createDatabase()
  schema = parseSchema()
})
afterAll(() => database.drop())

const columnName = (model: Model, field: string): string => {
  const { name, dbName } = model.fields.find((one) => one.name === field) ?? { name: `no such field: ${field}` }
  return dbName ?? name
}

const typeOf = ({ kind, type, nativeType, isList }: Field): string => {
  const [native, parameters] = nativeType ?? []
  const named = native === undefined ? scalarTypes[type] : nativeTypes[`${native}(${parameters?.join(',') ?? ''})`]
  const single = kind === 'enum' ? schema.enums.find(({ name }) => name === type)?.dbName : named
  return `${single ?? `unknown: ${type} ${native ?? ''}`}${isList ? '[]' : ''}`
}

const sortedLines = (rows: { line: string }[]): string[] => rows.map(({ line }) => line).sort()

it('has the tables and columns of the schema, with their types, nullability and defaults', async () => {
  const expected = schema.models.flatMap((model) =>
    model.fields.filter(({ kind }) => kind !== 'object').map((field) =>
      [model.dbName, columnName(model, field.name), typeOf(field), field.isRequired ? 'not null' : 'null', field.hasDefaultValue ? 'default' : ''].join(' '),
    ),
  )
  const { rows } = await database.sql.query<{ line: string }>(`
    SELECT concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
      CASE WHEN a.attnotnull THEN 'not null' ELSE 'null' END, CASE WHEN a.atthasdef THEN 'default' ELSE '' END) AS line
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> '_prisma_migrations'
      AND a.attnum > 0 AND NOT a.attisdropped`)
  expect(sortedLines(rows)).toEqual(expected.sort())
})

it('has the enums of the schema, in their order', async () => {
  const { rows } = await database.sql.query<{ line: string }>(`
    SELECT t.typname || ': ' || string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder) AS line
    FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid WHERE t.typnamespace = 'public'::regnamespace GROUP BY t.typname`)
  expect(sortedLines(rows)).toEqual(schema.enums.map(({ dbName, values }) => `${dbName}: ${values.map(({ name }) => name).join(', ')}`).sort())
})

it('has the keys and indexes of the schema', async () => {
  const expected = schema.indexes.map(({ model: name, type, fields }) => {
    const model = schema.models.find((one) => one.name === name)
    if (model === undefined) throw new Error(`No model ${name}`)
    return `${model.dbName} ${type} (${fields.map((field) => columnName(model, field.name)).join(', ')})`
  })
  const { rows } = await database.sql.query<{ line: string }>(`
    SELECT format('%s %s (%s)', c.relname, CASE WHEN i.indisprimary THEN 'id' WHEN i.indisunique THEN 'unique' ELSE 'normal' END,
      (SELECT string_agg(a.attname, ', ' ORDER BY k.at) FROM unnest(i.indkey) WITH ORDINALITY AS k (number, at)
       JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number)) AS line
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relname <> '_prisma_migrations' AND i.indpred IS NULL AND i.indexprs IS NULL`)
  expect(sortedLines(rows)).toEqual(expected.sort())
})

it('has the foreign keys of the schema', async () => {
  const expected = schema.models.flatMap((model) =>
    model.fields.filter(({ relationFromFields = [] }) => relationFromFields.length > 0).map((field) => {
      const target = schema.models.find(({ name }) => name === field.type)
      if (target === undefined) throw new Error(`No model ${field.type}`)
      const from = (field.relationFromFields ?? []).map((name) => columnName(model, name)).join(', ')
      const to = (field.relationToFields ?? []).map((name) => columnName(target, name)).join(', ')
      return `${model.dbName} FOREIGN KEY (${from}) REFERENCES ${target.dbName}(${to}) ON DELETE ${(field.relationOnDelete ?? '').toUpperCase()}`
    }),
  )
  const { rows } = await database.sql.query<{ line: string }>(`
    SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) AS line FROM pg_constraint
    WHERE contype = 'f' AND connamespace = 'public'::regnamespace`)
  expect(sortedLines(rows)).toEqual(expected.sort())
})
