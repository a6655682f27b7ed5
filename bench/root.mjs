import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The project's folder, also where a copy of it runs (`start.mjs`). */
export const root = resolve(process.env['BENCH_ROOT'] ?? fileURLToPath(new URL('..', import.meta.url)))
