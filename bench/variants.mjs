/**
 * What is measured side by side. The order puts those that are compared with the product next to it; every second
 * repetition runs it backwards, so that a machine that speeds up or slows down favours nobody.
 */
import { fileURLToPath } from 'node:url'

/**
 * @typedef {'api' | 'worker'} Role
 * @typedef {object} Variant
 * @property {string} says
 * @property {boolean} redis  It is given Redis.
 * @property {boolean} ends   It ends sessions, so its answers can be checked.
 * @property {readonly Role[]} roles  One process each.
 * @property {readonly string[]} command  What Node runs.
 * @property {Readonly<Record<string, string>>} [settings]  Beside those of all.
 */

const pathOf = (/** @type {string} */ path) => fileURLToPath(new URL(path, import.meta.url))

const baseline = (/** @type {string} */ name) => ({
  command: [pathOf(`variants/${name}.mjs`)],
  roles: /** @type {const} */ (['api']),
  ends: true,
})
const product = { command: [pathOf('../dist/cli.js'), 'serve'], roles: /** @type {const} */ (['api', 'worker']), ends: true }

/** @typedef {'constant' | 'direct' | 'curfew' | 'curfew-queued' | 'pg' | 'prisma' | 'curfew-postgres' | 'job'} VariantName */

/** @type {Readonly<Record<VariantName, Variant>>} */
export const variants = {
  constant: { ...baseline('constant'), says: 'Fastify, the same token check, a constant answer', redis: false, ends: false },
  direct: { ...baseline('direct'), says: 'the same coalesced commit in the API’s own process, no queue', redis: true },
  curfew: { ...product, says: 'Curfew: one API and one worker process, queue on Redis', redis: true },
  'curfew-queued': { ...product, says: 'the same with QUEUE_FROM=1: every DELETE goes through the queue', redis: true, settings: { QUEUE_FROM: '1' } },
  pg: { ...baseline('pg'), says: 'one pg transaction per request', redis: false },
  prisma: { ...baseline('prisma'), says: 'one Prisma transaction per request', redis: false },
  'curfew-postgres': { ...product, says: 'Curfew: one API and one worker process, queue on Postgres, no Redis', redis: false },
  job: { ...baseline('job'), says: 'one BullMQ job per request, one API and one worker process', redis: true, roles: ['api', 'worker'] },
}

export const variantNames = /** @type {readonly VariantName[]} */ (Object.keys(variants))

/**
 * @param {string} name
 * @returns {name is VariantName}
 */
export const isVariant = (name) => Object.hasOwn(variants, name)
