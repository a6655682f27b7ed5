/**
 * `/healthz`: the process lives. `/readyz`: it can do its work. Redis away does not make it unready, because commits
 * go on without it; the answer says so. Both are public, so probes are shared and bounded.
 */
import type { FastifyInstance } from 'fastify'
import { z } from 'zod'

export interface Readiness {
  /** A query that needs a server which takes writes was answered. */
  readonly postgres: 'ok' | 'away'
  /** Away: this process commits by itself, and what must be told waits in Postgres. */
  readonly queue: 'ok' | 'away'
  /** The process is stopping and takes no new work. */
  readonly draining: boolean
}

export interface HealthDeps {
  readonly ready: () => Promise<Readiness>
}

/** Longer than a healthy Postgres ever needs, shorter than any prober's patience. */
const PROBE_TIMEOUT_MS = 2_000

/** Anybody may ask; Postgres is asked four times a second at most. */
const PROBE_FOR_MS = 250

const readinessShape = z.object({
  ready: z.boolean(),
  postgres: z.enum(['ok', 'away']),
  queue: z.enum(['ok', 'away']),
  draining: z.boolean(),
})

export const healthRoutes = async (app: FastifyInstance, { ready }: HealthDeps): Promise<void> => {
  const probe = createProbe(ready)

  app.get('/healthz', {
    schema: {
      tags: ['operations'],
      summary: 'The process lives',
      security: [],
      response: { 200: z.object({ alive: z.boolean() }).meta({ description: 'It does', examples: [{ alive: true }] }) },
    },
    handler: (_request, reply) => sendJson(reply, 200, { alive: true }),
  })

  app.get('/readyz', {
    schema: {
      tags: ['operations'],
      summary: 'The process can do its work',
      description: 'With the queue away it still can: sessions end and are answered, receivers are told later.',
      security: [],
      response: {
        200: readinessShape.meta({
          description: 'Ready',
          examples: [{ ready: true, postgres: 'ok', queue: 'away', draining: false }],
        }),
        503: readinessShape.meta({
          description: 'Not ready',
          examples: [{ ready: false, postgres: 'away', queue: 'ok', draining: false }],
        }),
      },
    },
    handler: async (_request, reply) => {
      const state = await probe()
      const isReady = state.postgres === 'ok' && !state.draining
      return sendJson(reply, isReady ? 200 : 503, { ready: isReady, ...state })
    },
  })
}

/** One probe at a time, shared by all who ask and remembered for a moment. Never throws: no answer is `away`. */
const createProbe = (ready: HealthDeps['ready']): (() => Promise<Readiness>) => {
  let running: Promise<Readiness> | null = null
  let untilMs = 0
  return () => {
    if (running !== null && Date.now() < untilMs) return running
    untilMs = Date.now() + PROBE_TIMEOUT_MS
    running = bounded(ready).then((state) => {
      untilMs = Date.now() + PROBE_FOR_MS
      return state
    })
    return running
  }
}

const bounded = async (ready: HealthDeps['ready']): Promise<Readiness> => {
  const away: Readiness = { postgres: 'away', queue: 'away', draining: false }
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<Readiness>((resolve) => {
    timer = setTimeout(() => resolve(away), PROBE_TIMEOUT_MS)
  })
  try {
    return await Promise.race([ready(), late])
  } catch {
    // The probe could not even be made: to a load balancer that is the same as no answer.
    return away
  } finally {
    clearTimeout(timer)
  }
}

interface Sendable {
  status(code: number): Sendable
  header(name: string, value: string): Sendable
  send(text: string): Sendable
}

const sendJson = <T extends Sendable>(reply: T, status: number, value: object): T => {
  reply.status(status).header('content-type', 'application/json; charset=utf-8').send(JSON.stringify(value))
  return reply
}
