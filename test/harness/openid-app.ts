import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { auth } from 'express-openid-connect'
import session from 'express-session'

export interface OpenidApp {
  readonly url: string
  /** Logs in through the issuer by following its redirects, and returns the application's cookies. */
  logIn(user: string): Promise<string>
  /** The user's `sub` that the application sees behind the cookies, or null. */
  whoAmI(cookies: string): Promise<string | null>
  close(): Promise<void>
}

/** Binds a port first, so that the issuer can know the address before the application asks it for its metadata. */
export const reserveOpenidApp = async () => {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

  /** An express-openid-connect application with back-channel logout, as a team would set it up. */
  const start = (options: { issuerUrl: string; clientId: string; clientSecret: string }): OpenidApp => {
    const store = new session.MemoryStore()
    const app = express()
    app.use(
      auth({
        issuerBaseURL: options.issuerUrl,
        baseURL: url,
        clientID: options.clientId,
        clientSecret: options.clientSecret,
        clientAuthMethod: 'client_secret_post',
        secret: 'a long, randomly-generated string stored in env',
        authRequired: false,
        authorizationParams: { response_type: 'code', scope: 'openid' },
        backchannelLogout: { store: store as never },
      }),
    )
    app.get('/me', (request, response) => void response.json({ sub: request.oidc.user?.['sub'] ?? null }))
    server.on('request', app)
    const jar = new Map<string, string>()
    const keep = (response: Response) => {
      for (const cookie of response.headers.getSetCookie()) {
        const [pair = ''] = cookie.split(';')
        const at = pair.indexOf('=')
        jar.set(pair.slice(0, at), pair.slice(at + 1))
      }
    }
    const header = () => [...jar].map(([name, value]) => `${name}=${value}`).join('; ')
    const step = async (to: string): Promise<string | null> => {
      const response = await fetch(to, { redirect: 'manual', headers: to.startsWith(url) ? { cookie: header() } : {} })
      if (to.startsWith(url)) keep(response)
      const location = response.headers.get('location')
      if (response.status >= 400) throw new Error(`${to} answered ${response.status}: ${await response.text()}`)
      return location === null ? null : new URL(location, to).href
    }
    return {
      url,
      logIn: async (user) => {
        jar.clear()
        const authorize = await step(`${url}/login`)
        if (authorize === null) throw new Error('the application did not send the user to its issuer')
        const callback = await step(`${authorize}&login_hint=${user}`)
        if (callback === null) throw new Error('the issuer did not send the user back')
        await step(callback)
        return header()
      },
      whoAmI: async (cookies) => ((await (await fetch(`${url}/me`, { headers: { cookie: cookies } })).json()) as { sub: string | null }).sub,
      close: async () => {
        server.closeAllConnections()
        await new Promise((resolve) => server.close(resolve))
      },
    }
  }
  return { url, redirectUri: `${url}/callback`, start }
}
