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
 * @property {boolean} product
 */

const baseline = (/** @type {string} */ name) => [fileURLToPath(new URL(`variants/${name}.mjs`, import.meta.url))]
const product = [fileURLToPath(new URL('../dist/cli.js', import.meta.url)), 'serve']

/** @typedef {'constant' | 'direct' | 'curfew' | 'pg' | 'prisma' | 'curfew-postgres' | 'job'} VariantName */

/** @type {Readonly<Record<VariantName, Variant>>} */
export const variants = {
  constant: { says: 'Fastify, the same token check, a constant answer', redis: false, ends: false, roles: ['api'], command: baseline('constant'), product: false },
  direct: { says: 'the same coalesced commit in the API’s own process, no queue', redis: true, ends: true, roles: ['api'], command: baseline('direct'), product: false },
  curfew: { says: 'Curfew: one API and one worker process, queue on Redis', redis: true, ends: true, roles: ['api', 'worker'], command: product, product: true },
  pg: { says: 'one pg transaction per request', redis: false, ends: true, roles: ['api'], command: baseline('pg'), product: false },
  prisma: { says: 'one Prisma transaction per request', redis: false, ends: true, roles: ['api'], command: baseline('prisma'), product: false },
  'curfew-postgres': { says: 'Curfew: one API and one worker process, queue on Postgres, no Redis', redis: false, ends: true, roles: ['api', 'worker'], command: product, product: true },
  job: { says: 'one BullMQ job per request', redis: true, ends: true, roles: ['api', 'worker'], command: baseline('job'), product: false },
}

export const variantNames = /** @type {readonly VariantName[]} */ (Object.keys(variants))

/**
 * @param {string} name
 * @returns {name is VariantName}
 */
export const isVariant = (name) => Object.hasOwn(variants, name)
