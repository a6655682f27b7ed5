/**
 * The demo's organization: its users, its sessions and the receiver that tells the demo shop, all written through
 * Curfew's own API with the demo issuer's token, as an identity provider would. May be repeated: what is there stays,
 * and what was ended stays ended.
 */
import type { DemoLogin, DemoUser } from './demo-issuer.ts'

const demoOrganization = '69629023906488334'

export const demoClientId = 'demo-shop'

/** The user that the demo signs in at the shop. */
export const alice: DemoUser = { id: 'alice', name: 'Alice' }

const others = [
  'Bob', 'Carol', 'Dan', 'Erin', 'Frank', 'Grace', 'Heidi', 'Ivan', 'Judy', 'Kim', 'Leo', 'Mallory', 'Niaj', 'Olivia',
  'Peggy', 'Quentin', 'Rupert', 'Sybil', 'Trent',
].map((name): DemoUser => ({ id: name.toLowerCase(), name }))

export const demoUsers: readonly DemoUser[] = [alice, ...others]

export interface DemoTenantOptions {
  /** Curfew's address. */
  readonly api: string
  /** A token with `session.write` and `receiver.write` for the instance. */
  readonly token: () => Promise<string>
  readonly logoutUrl: string
  readonly issuer: string
}

export const createDemoTenant = (options: DemoTenantOptions) => {
  const { api, issuer } = options

  const put = async (path: string, body: unknown, accepted: readonly number[]): Promise<void> => {
    const answer = await fetch(`${api}${path}`, {
      method: 'PUT',
      headers: { authorization: `Bearer ${await options.token()}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    const text = await answer.text()
    if (!accepted.includes(answer.status)) throw new Error(`PUT ${path} was answered ${answer.status}: ${text.slice(0, 300)}`)
  }

  const putSession = (login: DemoLogin, accepted: readonly number[]): Promise<void> =>
    put(`/v1/sessions/${login.sessionId}`, {
      userId: login.user.id,
      resourceOwner: demoOrganization,
      clients: [{ clientId: login.clientId }],
      userAgent: { fingerprintId: `fp-${login.user.id}`, ip: '192.0.2.1', description: 'A browser' },
    }, accepted)

  return {
    /** A login that has just happened: its session must be new. */
    register: (login: DemoLogin): Promise<void> => putSession(login, [201]),

    /** The receiver, and one session for each of the other users. */
    seed: async (): Promise<void> => {
      const receiver = { type: 'backchannel_logout', url: options.logoutUrl, issuer, clientId: demoClientId }
      // The issuer's port is part of the ids: on another port it is another issuer, with things of its own.
      const { port } = new URL(issuer)
      await put(`/v1/receivers/${demoClientId}-${port}`, receiver, [200, 201])
      await Promise.all(others.map((user) =>
        // 409: ended or expired since an earlier start.
        putSession({ sessionId: `demo-${port}-${user.id}`, user, clientId: demoClientId }, [200, 201, 409]),
      ))
    },
  }
}
