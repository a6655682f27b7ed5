/** The real server with session routes of the test's own settings. */
import type { LightMyRequestResponse } from 'fastify'
import type { SessionStore } from '../../src/store/sessions.ts'
import { createSessionStore } from '../../src/store/sessions.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

export const MAX_LIFETIME_SECONDS = 2_592_000

export interface SessionApi extends TestApi {
  /** The receivers that were woken so far. */
  readonly woken: string[]
  /** One request with a JSON body. `as` is an `Authorization` header. */
  call(method: 'GET' | 'PUT' | 'PATCH' | 'POST' | 'DELETE', url: string, options?: { as?: string; body?: unknown }): Promise<LightMyRequestResponse>
}

/** Starts the API; cache keys must begin with `sess:`. */
export const startSessionApi = async (): Promise<SessionApi> => {
  const woken: string[] = []
  // The routes ask the store when they are called; its database exists only once the API does.
  const sessions = {} as SessionStore
  const api = await startApi({
    change: { sessionRoutes: { sessions, wakeReceivers: (ids) => woken.push(...ids), enforceLateSid: async () => {}, cacheKeyPrefixes: ['sess:', 'cart:'] } },
  })
  Object.assign(sessions, createSessionStore({ db: api.db, maxLifetimeSeconds: MAX_LIFETIME_SECONDS, maxTokenLifetimeSeconds: 86_400 }))
  return {
    ...api,
    woken,
    call: (method, url, { as, body } = {}) =>
      api.app.inject({
        method,
        url,
        headers: { ...(as === undefined ? {} : { authorization: as }), ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
        ...(body === undefined ? {} : { payload: typeof body === 'string' ? body : JSON.stringify(body) }),
      }),
  }
}
