/**
 * What the command line asks for. `full` is the run whose figures may be quoted; `--quick` ends within two minutes and
 * shows that everything works; `--soak` holds one load for ten minutes; `--profile` says where the processor's time goes.
 */
import { parseArgs } from 'node:util'
import { isVariant, variantNames } from './variants.mjs'

/**
 * @typedef {import('./variants.mjs').VariantName} VariantName
 * @typedef {ReturnType<typeof readOptions>} Options
 */

const usage = `npm run bench -- [options]
  --quick                 everything once and briefly, within two minutes
  --soak                  ten minutes of one load; are memory and handles flat at the end?
  --guard                 commit → refused by guards in other processes, and a guard's checks per second
  --profile               CPU profiles of the product's processes at each number of connections
  --deliveries            handing on to receivers: beside a bare loop, beside hanging ones, and a large backlog
  --bulk                  revocations of a million sessions: beside a hand-written statement, beside log-outs
  --routing               deliveries planned per second by one worker
  --backend <which>       redis, postgres or both (default both): where the product's queue is
  --variants <list>       only these: ${variantNames.join(', ')}
  --connections <list>    default 1,64,512
  --repetitions <n>       default 5 (quick 1, soak 20, deliveries and bulk 3)
  --seconds <n>           of each measurement, default 5 (quick 2, soak 30)
  --sessions <n>          live sessions at the start, default 1500000 (quick 300000); of one revocation, default 1000000 (quick 100000)
  --no-faults             leave out freezing and killing Redis
  --save                  keep the result as results/summary.*
`

/** The command line was wrong; the message says how it should be. */
export class UsageError extends Error {}

const wholeNumber = (/** @type {string} */ name, /** @type {string} */ text) => {
  const number = Number(text)
  if (!Number.isInteger(number) || number < 1) throw new UsageError(`--${name} takes a whole number from 1\n\n${usage}`)
  return number
}

const listOf = (/** @type {string} */ text) => text.split(',').map((part) => part.trim()).filter((part) => part !== '')

const parse = (/** @type {string[]} */ parameters) => {
  try {
    return parseArgs({
      args: parameters,
      allowNegative: true,
      options: {
        quick: { type: 'boolean', default: false },
        soak: { type: 'boolean', default: false },
        guard: { type: 'boolean', default: false },
        profile: { type: 'boolean', default: false },
        deliveries: { type: 'boolean', default: false },
        bulk: { type: 'boolean', default: false },
        routing: { type: 'boolean', default: false },
        backend: { type: 'string', default: 'both' },
        variants: { type: 'string' },
        connections: { type: 'string' },
        repetitions: { type: 'string' },
        seconds: { type: 'string' },
        sessions: { type: 'string' },
        faults: { type: 'boolean', default: true },
        save: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    throw new UsageError(`${error instanceof Error ? error.message : error}\n\n${usage}`)
  }
}

/** @returns {'measure' | 'guard' | 'soak' | 'profile' | 'deliveries' | 'bulk' | 'routing'} */
const modeOf = (/** @type {{ guard: boolean, soak: boolean, profile: boolean, deliveries: boolean, bulk: boolean, routing: boolean }} */ { guard, soak, profile, deliveries, bulk, routing }) => {
  if (bulk) return 'bulk'
  if (guard) return 'guard'
  if (soak) return 'soak'
  if (profile) return 'profile'
  if (routing) return 'routing'
  return deliveries ? 'deliveries' : 'measure'
}

/** @param {string[]} parameters */
export const readOptions = (parameters) => {
  const given = parse(parameters)
  if (given.help) throw new UsageError(usage)
  const { backend, quick } = given
  if (backend !== 'redis' && backend !== 'postgres' && backend !== 'both') throw new UsageError(`--backend is wrong\n\n${usage}`)
  const names = given.variants === undefined ? variantNames : listOf(given.variants)
  const chosen = names.filter(isVariant)
  if (chosen.length !== names.length || chosen.length === 0) throw new UsageError(`--variants is wrong\n\n${usage}`)
  /** @type {Readonly<Record<typeof backend, readonly string[]>>} */
  const leftOut = { redis: ['curfew-postgres'], postgres: ['curfew', 'curfew-queued'], both: [] }
  return {
    mode: modeOf(given),
    quick,
    backend,
    variants: chosen.filter((name) => !leftOut[backend].includes(name)),
    connections: listOf(given.connections ?? (given.guard ? '1,64' : '1,64,512')).map((text) => wholeNumber('connections', text)),
    repetitions: wholeNumber('repetitions', given.repetitions ?? (given.soak ? '20' : quick ? '1' : given.deliveries || given.bulk || given.routing ? '3' : '5')),
    seconds: wholeNumber('seconds', given.seconds ?? (given.soak ? '30' : quick ? '2' : '5')),
    sessions: wholeNumber('sessions', given.sessions ?? (given.bulk ? (quick ? '100000' : '1000000') : given.routing ? '100000' : quick ? '300000' : '1500000')),
    faults: given.faults && backend !== 'postgres',
    save: given.save,
  }
}
