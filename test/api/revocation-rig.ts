/** Requests about revocations, against the real server without an engine: what was accepted stays as it is. */
import type { LightMyRequestResponse } from 'fastify'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

export interface RevocationApi extends TestApi {
  /** Permission to write and read revocations of the whole instance. */
  readonly admin: string
  call(method: 'GET' | 'POST', url: string, options?: { as?: string; body?: unknown; headers?: Record<string, string> }): Promise<LightMyRequestResponse>
  post(body: unknown, options?: { as?: string; headers?: Record<string, string> }): Promise<LightMyRequestResponse>
  /** Accepts one with a reason of its own, and returns its id. */
  accept(body: object, as?: string): Promise<string>
  /** How many there are. */
  accepted(): Promise<number>
}

export const startRevocationApi = async (options: Parameters<typeof startApi>[0] = {}): Promise<RevocationApi> => {
  const api = await startApi(options)
  const admin = await api.bearer({ permissions: ['revocation.write', 'revocation.read'], sub: 'admin' })
  const call: RevocationApi['call'] = (method, url, { as = admin, body, headers = {} } = {}) =>
    api.app.inject({
      method,
      url,
      headers: { authorization: as, ...headers },
      ...(body === undefined ? {} : { payload: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
  const post: RevocationApi['post'] = (body, asked = {}) => call('POST', '/v1/revocations', { body, ...asked })
  return {
    ...api,
    admin,
    call,
    post,
    accept: async (body, as = admin) => {
      const answer = await post({ reason: 'test', ...body }, { as })
      if (answer.statusCode !== 202) throw new Error(`${answer.statusCode} ${answer.body}`)
      return answer.json<{ name: string }>().name.replace('revocations/', '')
    },
    accepted: async () => {
      const { rows } = await api.database.sql.query<{ count: number }>('SELECT count(*)::int AS count FROM revocations')
      return rows[0]?.count ?? 0
    },
  }
}
