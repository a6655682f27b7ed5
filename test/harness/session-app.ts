import type { AddressInfo } from 'node:net'
import { RedisStore } from 'connect-redis'
import express from 'express'
import session from 'express-session'
import { createClient } from 'redis'

declare module 'express-session' {
  interface SessionData {
    user: string
    visits: number
  }
}

export interface SessionApp {
  readonly url: string
  /** Logs a user in and returns the cookie and the session's id, as the application's store knows it. */
  logIn(user: string): Promise<{ cookie: string; sid: string }>
  /** The user that the application sees behind a cookie, or null. */
  whoAmI(cookie: string): Promise<string | null>
  /** Begins a request that changes the session and is held in flight until `finish` is called. */
  slowRequest(cookie: string): Promise<{ finish(): Promise<void> }>
  close(): Promise<void>
}

/** A real express-session application on connect-redis, as a team would write it. */
export const startSessionApp = async (redisUrl: string): Promise<SessionApp> => {
  const client = createClient({ url: redisUrl })
  client.on('error', () => {})
  await client.connect()
  const app = express()
  let held: { arrived: () => void; release: Promise<void> } | undefined
  app.use(session({ store: new RedisStore({ client }), secret: 'cat', resave: false, saveUninitialized: false }))
  app.get('/login/:user', (request, response) => {
    request.session.user = request.params.user
    response.json({ sid: request.sessionID })
  })
  app.get('/me', (request, response) => void response.json({ user: request.session.user ?? null }))
  app.get('/slow', async (request, response) => {
    request.session.visits = (request.session.visits ?? 0) + 1
    held?.arrived()
    await held?.release
    response.json({})
  })
  const server = app.listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url,
    logIn: async (user) => {
      const response = await fetch(`${url}/login/${user}`)
      const { sid } = (await response.json()) as { sid: string }
      return { cookie: (response.headers.get('set-cookie') ?? '').split(';')[0] ?? '', sid }
    },
    whoAmI: async (cookie) => ((await (await fetch(`${url}/me`, { headers: { cookie } })).json()) as { user: string | null }).user,
    slowRequest: async (cookie) => {
      let release = () => {}
      const released = new Promise<void>((resolve) => (release = resolve))
      const arrived = new Promise<void>((resolve) => (held = { arrived: resolve, release: released }))
      const answer = fetch(`${url}/slow`, { headers: { cookie } })
      await arrived
      return {
        finish: async () => {
          release()
          await (await answer).json()
          held = undefined
        },
      }
    },
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      client.destroy()
    },
  }
}
